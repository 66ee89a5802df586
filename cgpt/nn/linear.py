"""Linear: products with a weight matrix."""

from __future__ import annotations

from collections.abc import Iterator

from cgpt import kernels as K
from cgpt.nn.activations import GELU
from cgpt.nn.arena import Floats, Parameter
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class Linear(Layer):
    """y = x W^T + b.  x (N, K), W (M, K), b (M,) or none, y (N, M).

    parts  matrices that lie below each other in W
    A GELU before or after it is computed in the same pass over the product.
    """

    def __init__(
        self, fan_in: int, fan_out: int, std: float = 0.02, *, bias: bool = True, parts: int = 1
    ) -> None:
        self.weight = Parameter(fan_out, fan_in, std=std, parts=parts)
        self.bias = Parameter(fan_out) if bias else None
        self.writes_elsewhere = False  # only ever called through `project`
        self.before: GELU | None = None
        self.after: GELU | None = None

    def children(self) -> Iterator[tuple[str, Layer]]:
        """None: the neighbours belong to the branch."""
        yield from ()

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        fan_out, fan_in = self.weight.shape
        if not self.writes_elsewhere:
            self.y = workspace.saved(self.name, f"linear{slot}", fan_out)
        self.dx = workspace.backward(f"d{slot}", fan_in)

    def forward(self, x: Floats, step: Step) -> Floats:
        return self.project(x, self.y[: len(x)])

    def project(self, x: Floats, y: Floats, residual: Floats | None = None) -> Floats:
        """y (N, M), written: x W^T + b + residual (N, M)."""
        self.x = x
        activated = None if self.after is None else self.after.output(y)
        bias = None if self.bias is None else self.bias.data
        K.linear_forward(x, self.weight.data, bias, y, residual, activated)
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dx = self.dx[: len(dy)]
        if self.before is None:
            K.linear_backward_input(dy, self.weight.data, dx)
        else:  # x is made again on the way: it was not kept
            K.linear_backward_input(dy, self.weight.data, dx, self.before.x, self.x)
        if self.weight.adapter is not None:
            self.weight.adapter(dy, self.x)
        elif self.weight.trained or (self.bias is not None and self.bias.trained):
            K.linear_backward_weight(
                dy, self.x, self.weight.grad, None if self.bias is None else self.bias.grad
            )
        return dx
