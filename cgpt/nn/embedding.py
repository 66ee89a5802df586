"""Embeddings: what a graph begins with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cgpt import kernels as K
from cgpt.nn.arena import Parameter, Role
from cgpt.nn.arrays import Floats
from cgpt.nn.decode_operations import DecodeOperation, Embed
from cgpt.nn.dropout import Dropout
from cgpt.nn.graph import Tape, Value
from cgpt.nn.layer import Layer, Step
from cgpt.runtime.forking import cached_property


class InputLayer(Layer):
    """What a graph begins with: y (N, C) of the step's ids (N,).  wte (V, C) is its table.

    forward(step, y); backward(step, dy). The tables stand at the top of the graph, as GPT-2's:
    their names have no prefix.
    """

    wte: Parameter

    def output_width(self, C: int) -> int:
        return self.wte.shape[1]

    def trace(self, tape: Tape, x: Value | None = None) -> Value:
        return self.record(tape)


class Embedding(InputLayer):
    """y[n] = wte[ids[n]] + wpe[positions[n]], then dropout.  wte (V, C), wpe (T, C), y (N, C)."""

    kind = "Embedding"

    def __init__(self, V: int, T: int, C: int, std: float = 0.02) -> None:
        self.wte = Parameter(V, C, std=std, role=Role.EMBEDDING)
        self.wpe = Parameter(T, C, std=std, role=Role.POSITION)

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        yield "wte.weight", self.wte
        yield "wpe.weight", self.wpe

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Embed(self.wte, self.wpe)]

    def trace(self, tape: Tape, x: Value | None = None) -> Value:
        y = self.record(tape)
        return Dropout(0).record(tape, y) if tape.dropout else y

    def forward(self, step: Step, y: Floats) -> None:
        K.embedding_forward(step.ids, step.positions, self.wte.data, self.wpe.data, y)

    def backward(self, step: Step, dy: Floats) -> None:
        if step.gradients.wants(self.wte, self.wpe):
            K.embedding_backward(dy, step.ids, step.positions, self.wte.grad, self.wpe.grad)


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
        yield "wte.weight", self.wte

    @cached_property
    def positions(self) -> Floats:
        """(T, C), made when it is first used."""
        return sinusoids(self.T, self.wte.shape[1])

    def forward(self, step: Step, y: Floats) -> None:
        K.embedding_forward(step.ids, step.positions, self.wte.data, self.positions, y)

    def backward(self, step: Step, dy: Floats) -> None:
        if step.gradients.wants(self.wte):
            K.embedding_backward(dy, step.ids, step.positions, self.wte.grad, None)
