"""Heads: logits of the last layer's rows, and their loss, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cgpt import kernels as K
from cgpt.nn.arena import Parameter, Role
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decode_operations import DecodeOperation, Multiply
from cgpt.nn.embedding import InputLayer
from cgpt.nn.graph import Value
from cgpt.nn.layer import GradientTargets, Layer

_LOGITS = 1 << 23  # logits that are held at once in training (32 MB), or
_LEAST_ROWS = 512  # those of so many rows: each block reads the whole table again


@dataclass(frozen=True)
class Loss:
    """The cross-entropy of R rows.

    targets    (R,) int32; weights (R,), None for ones
    scale      of the gradient of sum(w nll)
    smoothing  of the targets, as in the cross_entropy kernel
    """

    targets: Ints
    weights: Floats | None
    scale: float
    smoothing: float


class HeadArrays(NamedTuple):
    """What a head reads and writes in training: x and dx (R, C), losses (R, 1), logits (B, V)."""

    x: Floats
    losses: Floats
    logits: Floats
    dx: Floats


class Head(Layer):
    """Logits against a table, and their cross-entropy.

    logits (R, V) = x (R, C) table^T + bias, held for a block of rows at a time. A block's share of
    the gradients can be added in the forward pass while its logits are there (`early`); the last
    block's is added in the backward pass, and those of the others, whose logits are recomputed
    then, where that was not done.
    """

    def __init__(self, table: Parameter, bias: Parameter | None = None) -> None:
        self.table = table
        self.bias = bias

    def decode_operations(self) -> list[DecodeOperation] | None:
        return [Multiply(self.table, self.bias)]

    @property
    def block_rows(self) -> int:
        """The most rows whose logits are held at once."""
        return max(_LEAST_ROWS, _LOGITS // self.table.shape[0])

    def training_values(self, x: Value) -> tuple[Value, Value, Value]:
        """The losses, logits and dx that training needs for x."""
        return (
            Value("head.losses", 1, x.pruned),
            Value("head.logits", self.table.shape[0], x.pruned, self.block_rows),
            Value("head.dx", x.width, x.pruned),
        )

    def project(self, x: Floats, logits: Floats) -> Floats:
        """logits (R, V), written, of x (R, C)."""
        K.linear_forward(x, self.table.data, None if self.bias is None else self.bias.data, logits)
        return logits

    def loss(self, arrays: HeadArrays, loss: Loss, early: GradientTargets | None) -> float:
        """Sum of the losses, each times its weight; `early`: gradients that are added already."""
        *earlier, last = self._blocks(len(loss.targets))
        for part in earlier:
            dlogits = self._logits_gradient(arrays, loss, part)
            if early is not None:
                self._consume(arrays, dlogits, part, early)
        self._logits_gradient(arrays, loss, last)
        return weighted_sum(arrays.losses.reshape(-1), loss.weights)

    def gradient(
        self, arrays: HeadArrays, loss: Loss, targets: GradientTargets, *, early: bool
    ) -> None:
        """dx of the loss; `early`: whether loss() has added gradients already."""
        *earlier, last = self._blocks(len(loss.targets))
        self._consume(arrays, _rows_of(arrays.logits, last), last, targets)
        for part in () if early else earlier:
            self._consume(arrays, self._logits_gradient(arrays, loss, part), part, targets)

    def write_logits(self, x: Floats, logits: Floats) -> None:
        """Write the logits (R, V) of x (R, C), for a loss of the caller's own."""
        for part in self._blocks(len(x)):
            self.project(x[part], logits[part])

    def own_gradient(self, arrays: HeadArrays, dlogits: Floats, targets: GradientTargets) -> None:
        """dx of a loss whose gradient to the logits is dlogits (R, V)."""
        for part in self._blocks(len(dlogits)):
            self._consume(arrays, dlogits[part], part, targets)

    def clear_gradients(self) -> None:
        """Zeros in place of what loss() has added early where backward() never came."""
        self.table.grad.fill(0)
        if self.bias is not None:
            self.bias.grad.fill(0)

    def _blocks(self, R: int) -> list[slice]:
        """Blocks of about equal size, at least one."""
        size = -(-R // (-(-R // self.block_rows) or 1))
        blocks = [slice(start, min(start + size, R)) for start in range(0, R, size or 1)]
        return blocks or [slice(0, 0)]

    def _logits_gradient(self, arrays: HeadArrays, loss: Loss, part: slice) -> Floats:
        """The gradient of a block's logits, in their buffer; its losses are written."""
        logits = self.project(arrays.x[part], _rows_of(arrays.logits, part))
        K.cross_entropy(
            logits,
            loss.targets[part],
            arrays.losses.reshape(-1)[part],
            loss.scale,
            smoothing=loss.smoothing,
            weights=None if loss.weights is None else loss.weights[part],
        )
        return logits

    def _consume(
        self, arrays: HeadArrays, dlogits: Floats, part: slice, targets: GradientTargets
    ) -> None:
        """dx and the gradients of table and bias from those of a block's logits."""
        if targets.wants(self.table, self.bias):
            bias = None if self.bias is None else self.bias.grad
            K.linear_backward_weight(dlogits, arrays.x[part], self.table.grad, bias)
        K.linear_backward_input(dlogits, self.table.data, arrays.dx[part])


def _rows_of(logits: Floats, part: slice) -> Floats:
    """The buffer of a block's logits."""
    return logits[: part.stop - part.start]


def total_weight(R: int, weights: Floats | None) -> float:
    """The sum of the sizes of R weights, which None says are ones; 1 where it is 0."""
    return (R if weights is None else float(np.abs(weights).sum(dtype=np.float64))) or 1


def weighted_sum(losses: Floats, weights: Floats | None) -> float:
    """The sum of losses, each times its weight."""
    return float(
        losses.sum(dtype=np.float64)
        if weights is None
        else np.dot(losses.astype(np.float64), weights.astype(np.float64))
    )


class TiedHead(Head):
    """A head whose table is the token embedding: logits (R, V) = x (R, C) wte^T."""

    kind = "TiedHead"

    def __init__(self, embedding: InputLayer) -> None:
        super().__init__(embedding.wte)

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """None of its own: the table belongs to the embedding."""
        yield from ()


class LinearHead(Head):
    """A head with a table and a bias of its own: logits (R, V) = x (R, C) W^T + b."""

    kind = "LinearHead"

    def __init__(self, C: int, V: int, std: float = 0.02) -> None:
        super().__init__(Parameter(V, C, std=std, role=Role.HEAD), Parameter(V))

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """weight (V, C) and bias (V,)."""
        yield f"{prefix}.weight", self.table
        if self.bias is not None:
            yield f"{prefix}.bias", self.bias
