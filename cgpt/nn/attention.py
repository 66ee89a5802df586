"""Causal self-attention over packed documents, or over a KV cache."""

from __future__ import annotations

import numpy as np

from cgpt import kernels as K
from cgpt.nn.arrays import Floats
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
        return [Attend(self.index, self.n_head, self.C)]

    def output_width(self, C: int) -> int:
        return self.C

    def forward(self, step: Step, x: Floats, y: Floats, lse: Floats) -> None:
        cache, i = step.cache, self.index
        if cache is not None:
            K.attention_cached(x, cache.keys[i], cache.values[i], cache.length, y)
        else:
            K.attention_forward(x, step.offsets, self.n_head, y, lse.reshape(self.n_head, -1))

    def weights(self, qkv: Floats) -> Floats:
        """softmax(q k^T / sqrt(D), causal) (H, T, T) of one sequence, computed in float64."""
        T, H = len(qkv), self.n_head
        q, k, _ = qkv.astype(np.float64).reshape(T, 3, H, -1).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2])
        scores[:, ~np.tri(T, dtype=bool)] = -np.inf
        exps = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights: Floats = (exps / exps.sum(axis=2, keepdims=True)).astype(np.float32)
        return weights

    def backward(
        self, step: Step, dy: Floats, x: Floats, y: Floats, lse: Floats, dx: Floats
    ) -> None:
        H = self.n_head
        K.attention_backward(dy, x, y, lse.reshape(H, -1), step.offsets, H, dx)
