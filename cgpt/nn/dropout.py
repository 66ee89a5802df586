"""Dropout: masks are made from a key and never kept."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arrays import Floats
from cgpt.nn.layer import Layer, Step


class Dropout(Layer):
    """y = x / (1 - p) where kept, else 0.  p and the key of the mask are the step's.

    index  tells apart the masks of one step
    """

    def __init__(self, index: int) -> None:
        self.index = index

    def forward(self, step: Step, x: Floats, y: Floats) -> None:
        # Any odd constant spreads the indices; 2^64 / golden ratio is the usual one.
        key = (step.key + (self.index + 1) * 0x9E3779B97F4A7C15) & (2**64 - 1)
        K.dropout(x.reshape(-1), y.reshape(-1), step.dropout, key)

    def backward(self, step: Step, dy: Floats, dx: Floats) -> None:
        self.forward(step, dy, dx)
