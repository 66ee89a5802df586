"""Dropout: masks are made from a key and never kept."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Floats
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class Dropout(Layer):
    """y = x / (1 - p) where kept, else 0.  The mask is made again from the step's key.

    p is the step's: 0 passes x through untouched.
    """

    def __init__(self, C: int, index: int) -> None:
        self.C = C
        self.index = index  # tells apart the masks of one step

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.backward("dropped", self.C)

    def forward(self, x: Floats, step: Step) -> Floats:
        if step.dropout == 0:
            return x
        y = self.y[: len(x)]
        # Any odd constant spreads the indices; 2^64 / golden ratio is the usual one.
        key = (step.key + (self.index + 1) * 0x9E3779B97F4A7C15) & (2**64 - 1)
        K.dropout(x.reshape(-1), y.reshape(-1), step.dropout, key)
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        return self.forward(dy, step)
