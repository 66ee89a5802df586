"""Norms of rows: LayerNorm, and the identity of graphs that have none."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Floats, Parameter
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class LayerNorm(Layer):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, row by row.  x, y (N, C).

    In a Residual branch y is not kept: `again` makes it for the backward pass of its reader.
    """

    kind = "LayerNorm"

    def __init__(self, C: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight = Parameter(C, fill=1.0)
        self.bias = Parameter(C)
        self.kept = True

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        C = self.weight.shape[0]
        self.y = workspace.saved(self.name, "norm", C) if self.kept else workspace.shared("norm", C)
        self.mean = workspace.saved(self.name, "mean", 1).reshape(-1)
        self.rstd = workspace.saved(self.name, "rstd", 1).reshape(-1)
        self.dx = workspace.backward(f"d{slot}", C)

    def forward(self, x: Floats, step: Step) -> Floats:
        n = len(x)
        self.x, y = x, self.y[:n]
        K.layernorm_forward(
            x, self.weight.data, self.bias.data, y, self.mean[:n], self.rstd[:n], self.eps
        )
        return y

    def again(self) -> None:
        """The y of the last forward, bit for bit, after others have used its buffer."""
        n = len(self.x)
        K.layernorm_again(
            self.x, self.weight.data, self.bias.data, self.mean[:n], self.rstd[:n], self.y[:n]
        )

    def backward(self, dy: Floats, step: Step) -> Floats:
        return self.add_backward(dy, self.dx[: len(dy)], add=False)

    def add_backward(self, dy: Floats, dx: Floats, *, add: bool = True) -> Floats:
        """dx (N, C), added to: the gradient joins that of the stream that the norm reads."""
        n = len(dy)
        K.layernorm_backward(
            dy,
            self.x,
            self.weight.data,
            self.mean[:n],
            self.rstd[:n],
            dx,
            self.weight.grad,
            self.bias.grad,
            add,
        )
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
