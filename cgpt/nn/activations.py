"""Activations, element by element: GELU, ReLU."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arrays import Floats
from cgpt.nn.decode_operations import Activate, DecodeOperation
from cgpt.nn.layer import Layer, Step


class GELU(Layer):
    """y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).  x, y (N, F)."""

    backward_reads = ("x",)

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Activate("gelu")]

    def forward(self, step: Step, x: Floats, y: Floats) -> None:
        K.gelu_forward(x.reshape(-1), y.reshape(-1))

    def backward(self, step: Step, dy: Floats, x: Floats, dx: Floats) -> None:
        K.gelu_backward(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))


class ReLU(Layer):
    """y = max(x, 0).  x, y (N, F)."""

    backward_reads = ("x",)

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Activate("relu")]

    def forward(self, step: Step, x: Floats, y: Floats) -> None:
        K.relu_forward(x.reshape(-1), y.reshape(-1))

    def backward(self, step: Step, dy: Floats, x: Floats, dx: Floats) -> None:
        K.relu_backward(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
