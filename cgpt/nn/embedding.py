"""Embeddings: what a graph begins with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cgpt import kernels as K
from cgpt.nn.arena import Floats, Parameter, Role
from cgpt.nn.arrays import Ints
from cgpt.nn.dropout import Dropout
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class InputLayer(Layer):
    """What a graph begins with: y (N, C) of ids (N,).  wte (V, C) is its table."""

    wte: Parameter

    def embed(self, ids: Ints, step: Step) -> Floats:
        """y (N, C) of ids (N,)."""
        raise NotImplementedError


class Embedding(InputLayer):
    """y[n] = wte[ids[n]] + wpe[positions[n]], then dropout.  wte (V, C), wpe (T, C), y (N, C)."""

    kind = "Embedding"

    def __init__(self, V: int, T: int, C: int, std: float = 0.02) -> None:
        self.wte = Parameter(V, C, std=std, role=Role.EMBEDDING)
        self.wpe = Parameter(T, C, std=std, role=Role.POSITION)
        self.dropout = Dropout(C, 0)

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """GPT-2 keeps both tables at the top of the graph: no prefix."""
        self.name = prefix
        yield "wte.weight", self.wte
        yield "wpe.weight", self.wpe

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        C = self.wte.shape[1]
        self.y = workspace.saved(self.name, "stream", C)
        self.dropout.plan(workspace)

    def embed(self, ids: Ints, step: Step) -> Floats:
        """y (N, C) of ids (N,)."""
        self.ids, y = ids, self.y[: len(ids)]
        K.embedding_forward(ids, step.positions, self.wte.data, self.wpe.data, y)
        dropped = self.dropout.forward(y, step)
        if dropped is not y:
            y[...] = dropped
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dy = self.dropout.backward(dy, step)
        if self.wte.trained or self.wpe.trained:
            K.embedding_backward(dy, self.ids, step.positions, self.wte.grad, self.wpe.grad)
        return dy


def sinusoids(T: int, C: int) -> Floats:
    """(T, C) float32: sin at even i and cos at odd i of position / 10000^(floor(i / 2) / C).

    The exponent is half of that in Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    i = np.arange(C)
    angles = np.arange(T)[:, None] / 10000.0 ** (i // 2 / C)
    return np.where(i % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


class SinusoidalEmbedding(InputLayer):
    """y[n] = wte[ids[n]] + sinusoids[positions[n]].  wte (V, C), y (N, C)."""

    kind = "SinusoidalEmbedding"

    def __init__(self, V: int, T: int, C: int, std: float = 0.02) -> None:
        self.wte = Parameter(V, C, std=std, role=Role.EMBEDDING)
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
