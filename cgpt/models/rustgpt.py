"""RustGPT: the graph of RustGPT-Chinese, declared once like GPT's and run by the same passes.

Sinusoidal positions, layer norm before each branch, queries, keys and values without biases, ReLU,
no final norm, and a head with weights and a bias of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cgpt.config import GPTConfig
from cgpt.config.declaration import documented, option
from cgpt.models.base import Model
from cgpt.models.graph import Block, Graph
from cgpt.nn.activations import ReLU
from cgpt.nn.attention import CausalAttention
from cgpt.nn.embedding import SinusoidalEmbedding
from cgpt.nn.heads import LinearHead
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.residual import Residual


@documented
@dataclass(frozen=True)
class RustGPTConfig(GPTConfig):
    """Shape of a RustGPT graph. Raises ConfigError as GPTConfig."""

    block_size: int = option(
        128,
        minimum=1,
        maximum=4096,  # a table of positions is made, which no file bounds
        doc="T: longest context",
    )
    norm_eps: float = option(
        1e-8,
        minimum=0.0,
        maximum=1.0,
        open_below=True,
        doc="what is added to the variance in a norm",
    )


class RustBlock(Block):
    """One transformer block: attention, then MLP, each added to the residual stream."""

    kind = "RustBlock"

    def __init__(self, config: RustGPTConfig, index: int) -> None:
        C, F, eps = config.n_embd, config.n_ff, config.norm_eps
        out = 0.02 / math.sqrt(2 * config.n_layer)
        # Queries, keys and values are three matrices below each other: one product.
        self.attn = Residual(
            ln=LayerNorm(C, eps),
            c_attn=Linear(C, 3 * C, bias=False, parts=3),
            heads=CausalAttention(C, config.n_head, index),
            c_proj=Linear(C, C, std=out, bias=False),
        )
        self.mlp = Residual(
            ln=LayerNorm(C, eps), c_fc=Linear(C, F), relu=ReLU(), c_proj=Linear(F, C, std=out)
        )


class RustGPTGraph(Graph):
    """A table of tokens with computed positions, blocks, and a table of its own for the head."""

    def __init__(self, config: RustGPTConfig) -> None:
        self.embedding = SinusoidalEmbedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [RustBlock(config, i) for i in range(config.n_layer)]
        self.head = LinearHead(config.n_embd, config.vocab_size)


class RustGPT(Model):
    """A RustGPT graph with its parameters; arguments, passes and promises are Model's.

    config  RustGPTConfig
    """

    config: RustGPTConfig
    graph_class = RustGPTGraph
