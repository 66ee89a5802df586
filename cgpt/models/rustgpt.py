"""RustGPT: the graph of RustGPT-Chinese, declared once like GPT's and run by the same passes.

Sinusoidal positions, layer norm before each branch, queries, keys and values without biases, ReLU,
no final norm, and a head with weights and a bias of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cgpt import kernels as K
from cgpt.config import GPTConfig, _check_float, _check_int
from cgpt.models.base import _TOP, GPT
from cgpt.models.gpt2 import Block
from cgpt.nn.arena import Floats, Parameter, Workspace
from cgpt.nn.arrays import Ints
from cgpt.nn.heads import LinearHead
from cgpt.nn.layers import CausalAttention, InputLayer, Layer, LayerNorm, Linear, Residual, Step

if TYPE_CHECKING:
    from cgpt.models.inspection import Inspection

_LONGEST = 4096  # positions: a table of them is made, which no file bounds


@dataclass(frozen=True)
class RustGPTConfig(GPTConfig):
    """Shape of a RustGPT graph: the fields of GPTConfig, and

    norm_eps  what is added to the variance in a norm
    block_size may be 4096 at most. Raises ConfigError as GPTConfig.
    """

    norm_eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_int("RustGPTConfig", "block_size", self.block_size, 1, _LONGEST)
        _check_float("RustGPTConfig", "norm_eps", self.norm_eps, 0.0, 1.0, open_below=True)

    @property
    def _other_rows(self) -> int:
        """The head's: positions are computed."""
        return self.vocab_size


class ReLU(Layer):
    """y = max(x, 0).  x, y (N, F)."""

    def __init__(self, F: int) -> None:
        self.width = F

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.saved(self.name, "relu", self.width)
        self.dx = workspace.backward(f"d{slot}", self.width)

    def forward(self, x: Floats, step: Step) -> Floats:
        self.x, y = x, self.y[: len(x)]
        K.relu_forward(x.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dx = self.dx[: len(dy)]
        K.relu_backward(dy.reshape(-1), self.x.reshape(-1), dx.reshape(-1))
        return dx


class Identity(Layer):
    """y = x, where another graph has a final norm.  x, y (N, C)."""

    def __init__(self, C: int) -> None:
        self.C = C

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.dx = workspace.backward(f"d{slot}", self.C)

    def forward(self, x: Floats, step: Step) -> Floats:
        self.y = x
        return x

    def backward(self, dy: Floats, step: Step) -> Floats:
        # Blocks add to what they get, and use the slot in which the head has left it.
        dx = self.dx[: len(dy)]
        dx[...] = dy
        return dx


def sinusoids(T: int, C: int) -> Floats:
    """(T, C) float32: sin at even i and cos at odd i of position / 10000^(floor(i / 2) / C).

    The exponent is half of that in Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    i = np.arange(C)
    angles = np.arange(T)[:, None] / 10000.0 ** (i // 2 / C)
    return np.where(i % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


class SinusoidalEmbedding(InputLayer):
    """y[n] = wte[ids[n]] + sinusoids[positions[n]].  wte (V, C), y (N, C)."""

    def __init__(self, V: int, T: int, C: int, std: float = 0.02) -> None:
        self.wte = Parameter(V, C, std=std)
        self.T = T

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """The table is at the top of the graph, as GPT's: no prefix."""
        self.name = prefix
        yield "wte.weight", self.wte

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        C = self.wte.shape[1]
        self.y = workspace.saved(self.name, "stream", C)
        if not hasattr(self, "positions"):
            self.positions = sinusoids(self.T, C)

    def embed(self, ids: Ints, step: Step) -> Floats:
        """y (N, C) of ids (N,)."""
        self.ids, y = ids, self.y[: len(ids)]
        K.embedding_forward(ids, step.positions, self.wte.data, self.positions, y)
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        if self.wte.trained:
            K.embedding_backward(dy, self.ids, step.positions, self.wte.grad, None)
        return dy


class RustBlock(Block):
    """One transformer block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: RustGPTConfig, index: int) -> None:
        C, F, eps = config.n_embd, config.n_ff, config.norm_eps
        out = 0.02 / math.sqrt(2 * config.n_layer)
        # Queries, keys and values are three matrices below each other: one product.
        self.attn = Residual(
            C,
            2 * index + 1,
            ln=LayerNorm(C, eps),
            c_attn=Linear(C, 3 * C, bias=False),
            heads=CausalAttention(C, config.n_head, index),
            c_proj=Linear(C, C, std=out, bias=False),
        )
        self.mlp = Residual(
            C,
            2 * index + 2,
            ln=LayerNorm(C, eps),
            c_fc=Linear(C, F),
            relu=ReLU(F),
            c_proj=Linear(F, C, std=out),
        )
        self.mlp.always = True


class RustGPT(GPT):
    """A RustGPT graph with its parameters; arguments, passes and promises as GPT's.

    config  RustGPTConfig
    """

    config: RustGPTConfig
    decoder: None = None  # its cached tokens go layer by layer

    def _declare(self) -> None:
        config = self.config
        self.embedding = SinusoidalEmbedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [RustBlock(config, i) for i in range(config.n_layer)]
        self.ln_f = Identity(config.n_embd)
        self.head = LinearHead(config.n_embd, config.vocab_size)

    def _layers(self) -> list[tuple[str, Layer]]:
        return [one for one in super()._layers() if one[0] != "ln_f"]

    def inspect(self, ids: ArrayLike) -> Inspection:
        """Hidden states and attention weights for ids (T,): see cgpt.models.inspection.inspect."""
        from cgpt.models.inspection import Parts, inspect

        config = self.config
        return inspect(
            self,
            ids,
            Parts(
                sinusoids(config.block_size, config.n_embd),
                config.norm_eps,
                lambda x: np.maximum(x, 0),
            ),
        )

    def _plan(self, workspace: Workspace) -> None:
        self.ln_f.plan(workspace, _TOP)
        super()._plan(workspace)
