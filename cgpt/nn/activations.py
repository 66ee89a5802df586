"""Activations, element by element: GELU, ReLU."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Floats
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class GELU(Layer):
    """y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).  x, y (N, F).

    Between two Linear layers it costs no pass over memory of its own: the one before writes y
    while x is in the cache, the one after multiplies its dx by the slope. That one also makes y
    again, so y is not kept.
    """

    def __init__(self, F: int) -> None:
        self.width = F
        self.fused = False

    def output(self, x: Floats) -> Floats:
        """Where y for x (N, F) goes, whoever computes it."""
        self.x = x
        return self.y[: len(x)]

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = (
            workspace.shared("gelu", self.width)
            if self.fused
            else workspace.saved(self.name, "gelu", self.width)
        )
        if not self.fused:
            self.dx = workspace.backward(f"d{slot}", self.width)

    def forward(self, x: Floats, step: Step) -> Floats:
        y = self.output(x)
        if not self.fused:
            K.gelu_forward(x.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        if self.fused:
            return dy
        dx = self.dx[: len(dy)]
        K.gelu_backward(dy.reshape(-1), self.x.reshape(-1), dx.reshape(-1))
        return dx


class ReLU(Layer):
    """y = max(x, 0).  x, y (N, F)."""

    def __init__(self, F: int) -> None:
        self.width = F

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.saved(self.name, "relu", self.width)
        self.dx = workspace.backward(f"d{slot}", self.width)

    def forward(self, x: Floats, step: Step) -> Floats:
        self.x, y = x, self.y[: len(x)]
        K.relu_forward(x.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        dx = self.dx[: len(dy)]
        K.relu_backward(dy.reshape(-1), self.x.reshape(-1), dx.reshape(-1))
        return dx
