"""Norms of rows."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Parameter
from cgpt.nn.arrays import Floats
from cgpt.nn.decode_operations import DecodeOperation, Normalize
from cgpt.nn.layer import Layer, Step


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, row by row.  x, y (N, C)."""

    kind = "LayerNorm"
    backward_reads = ("x",)
    statistics = (1, 1)  # mean and 1 / sqrt(variance + eps) of each row

    def __init__(self, C: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight = Parameter(C, fill=1.0)
        self.bias = Parameter(C)

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Normalize(self.weight, self.bias, self.eps)]

    def forward(self, step: Step, x: Floats, y: Floats, mean: Floats, rstd: Floats) -> None:
        weight, bias = self.weight.data, self.bias.data
        K.layernorm_forward(x, weight, bias, y, mean.reshape(-1), rstd.reshape(-1), self.eps)

    def backward(
        self, step: Step, dy: Floats, x: Floats, mean: Floats, rstd: Floats, dx: Floats
    ) -> None:
        weight, mean, rstd = self.weight, mean.reshape(-1), rstd.reshape(-1)
        K.layernorm_backward(dy, x, weight.data, mean, rstd, dx, weight.grad, self.bias.grad)
