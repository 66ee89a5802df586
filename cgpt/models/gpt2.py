"""GPT-2: its block and its graph.

Learned positions, layer norm before each branch, fused queries, keys and values, GELU (tanh), a
final layer norm and a head tied to the token embedding.
Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

from __future__ import annotations

import math

from cgpt.config import GPTConfig
from cgpt.models.base import Model
from cgpt.models.graph import Block, Graph
from cgpt.nn.activations import GELU
from cgpt.nn.attention import CausalAttention
from cgpt.nn.embedding import Embedding
from cgpt.nn.heads import TiedHead
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.residual import Residual


class GPT2Block(Block):
    """One transformer block: attention, then MLP, each added to the residual stream."""

    kind = "Block"

    def __init__(self, config: GPTConfig, index: int) -> None:
        C, F = config.n_embd, config.n_ff
        # Scaled so that the stream's variance does not grow with depth (GPT-2, section 2.3).
        out = 0.02 / math.sqrt(2 * config.n_layer)
        self.attn = Residual(
            ln=LayerNorm(C),
            c_attn=Linear(C, 3 * C, parts=3),
            heads=CausalAttention(C, config.n_head, index),
            c_proj=Linear(C, C, std=out),
        )
        self.mlp = Residual(
            ln=LayerNorm(C), c_fc=Linear(C, F), gelu=GELU(), c_proj=Linear(F, C, std=out)
        )


class GPT2Graph(Graph):
    """Tables of tokens and positions, blocks, a norm, and the table of tokens once more."""

    def __init__(self, config: GPTConfig) -> None:
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [GPT2Block(config, i) for i in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        self.head = TiedHead(self.embedding)


class GPT(Model):
    """A GPT-2 graph with its parameters; arguments, passes and promises are Model's.

    config  GPTConfig
    """

    graph_class = GPT2Graph
