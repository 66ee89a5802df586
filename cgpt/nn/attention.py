"""Causal self-attention over packed documents, or over a KV cache."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Floats
from cgpt.nn.layer import Layer, Step
from cgpt.nn.workspace import Workspace


class CausalAttention(Layer):
    """out = softmax(q k^T / sqrt(D), causal) v for each head.  x = qkv (N, 3C), y (N, C).

    Documents do not see each other. With a cache the rows go on where it ends.
    """

    def __init__(self, C: int, n_head: int, index: int) -> None:
        self.C = C
        self.n_head = n_head
        self.index = index  # which block of the cache is this layer's

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        self.y = workspace.saved(self.name, "attention", self.C)
        self.lse = workspace.saved(self.name, "lse", self.n_head).reshape(-1)
        self.dx = workspace.backward(f"d{slot}", 3 * self.C)

    def forward(self, x: Floats, step: Step) -> Floats:
        n = len(x)
        self.x, y = x, self.y[:n]
        if step.cache is not None:
            K.attention_cached(
                x, step.cache.keys[self.index], step.cache.values[self.index], step.cache.length, y
            )
        else:
            K.attention_forward(x, step.offsets, self.n_head, y, self._lse(n))
        return y

    def backward(self, dy: Floats, step: Step) -> Floats:
        n = len(dy)
        dx = self.dx[:n]
        K.attention_backward(dy, self.x, self.y[:n], self._lse(n), step.offsets, self.n_head, dx)
        return dx

    def _lse(self, n: int) -> Floats:
        return self.lse[: self.n_head * n].reshape(self.n_head, n)
