"""Causal self-attention over packed documents, or over a KV cache."""

from __future__ import annotations

from cgpt import kernels as K
from cgpt.nn.arena import Floats
from cgpt.nn.decode_operations import Attend, DecodeOperation
from cgpt.nn.layer import Layer, Step


class CausalAttention(Layer):
    """y = softmax(q k^T / sqrt(D), causal) v for each head.  x = qkv (N, 3C), y (N, C).

    Documents do not see each other. With a cache the rows follow those that it holds.
    """

    backward_reads = ("x", "y")
    mixes_rows = True

    def __init__(self, C: int, n_head: int, index: int) -> None:
        self.C = C
        self.n_head = n_head
        self.index = index  # which block of the cache is this layer's
        self.statistics = (n_head,)  # log-sum-exp of the scores, as (H, N)

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Attend(self.index, self.n_head)]

    def output_width(self, C: int) -> int:
        return self.C

    def forward(self, step: Step, x: Floats, y: Floats, lse: Floats) -> None:
        cache, i = step.cache, self.index
        if cache is not None:
            K.attention_cached(x, cache.keys[i], cache.values[i], cache.length, y)
        else:
            K.attention_forward(x, step.offsets, self.n_head, y, lse.reshape(self.n_head, -1))

    def backward(
        self, step: Step, dy: Floats, x: Floats, y: Floats, lse: Floats, dx: Floats
    ) -> None:
        H = self.n_head
        K.attention_backward(dy, x, y, lse.reshape(H, -1), step.offsets, H, dx)
