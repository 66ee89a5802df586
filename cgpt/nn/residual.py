"""Residual: a branch of layers whose output is added to the stream."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arrays import Floats
from cgpt.nn.decode_operations import AddToStream, DecodeOperation, StartBranch
from cgpt.nn.dropout import Dropout
from cgpt.nn.graph import Tape, Value
from cgpt.nn.layer import Layer, Step, operations_of


class Sum(Layer):
    """y = x + b.  x, b, y (N, C); the gradient of both is dy."""

    passes_gradient = True

    def forward(self, step: Step, x: Floats, b: Floats, y: Floats) -> None:
        K.residual_forward(x.reshape(-1), b.reshape(-1), y.reshape(-1))


class Residual(Layer):
    """y = x + dropout(branch(x)), the branch being layers in a row.  x, y (N, C)."""

    def __init__(self, **branch: Layer) -> None:
        vars(self).update(branch)

    def decode_operations(self) -> list[DecodeOperation] | None:
        found = operations_of(layer for _, layer in self.children())
        return None if found is None else [StartBranch(), *found, AddToStream()]

    def trace(self, tape: Tape, x: Value) -> Value:
        y = x
        for _, layer in self.children():
            y = layer.trace(tape, y)
        if tape.dropout:
            y = Dropout(next(tape.masks)).record(tape, y)
        return Sum().record(tape, x, y)
