"""Linear: products with a weight matrix."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Parameter
from cgpt.nn.arrays import Floats
from cgpt.nn.decode_operations import DecodeOperation, Multiply
from cgpt.nn.layer import Layer, Step


class Linear(Layer):
    """y = x W^T + b.  x (N, K), W (M, K), b (M,) or none, y (N, M).

    parts  matrices that lie below each other in W
    """

    backward_reads = ("x",)

    def __init__(
        self, fan_in: int, fan_out: int, std: float = 0.02, *, bias: bool = True, parts: int = 1
    ) -> None:
        self.weight = Parameter(fan_out, fan_in, std=std, parts=parts)
        self.bias = Parameter(fan_out) if bias else None

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Multiply(self.weight, self.bias)]

    def output_width(self, C: int) -> int:
        return self.weight.shape[0]

    def forward(self, step: Step, x: Floats, y: Floats) -> None:
        K.linear_forward(x, self.weight.data, None if self.bias is None else self.bias.data, y)

    def backward(self, step: Step, dy: Floats, x: Floats, dx: Floats) -> None:
        K.linear_backward_input(dy, self.weight.data, dx)
        self.add_gradients(step, dy, x)

    def add_gradients(self, step: Step, dy: Floats, x: Floats) -> None:
        """dW += dy^T x, db += the column sums of dy."""
        adapter = step.gradients.adapters.get(self.weight)
        if adapter is not None:
            adapter(dy, x)
        elif step.gradients.wants(self.weight, self.bias):
            bias = None if self.bias is None else self.bias.grad
            K.linear_backward_weight(dy, x, self.weight.grad, bias)
