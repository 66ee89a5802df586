"""Heads: logits of the last layer's rows, and their loss, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cgpt import kernels as K
from cgpt.nn.arena import Floats, Parameter, Role
from cgpt.nn.arrays import Ints
from cgpt.nn.embedding import InputLayer
from cgpt.nn.layer import Layer
from cgpt.nn.workspace import Workspace

_LOGITS = 1 << 23  # logits that are held at once in training (32 MB), or
_LEAST_ROWS = 512  # those of so many rows: each block reads the whole table again


class Head(Layer):
    """Logits against a table, and their cross-entropy.

    logits (R, V) = x (R, C) table^T + bias, held for a block of rows at a time. Where the gradients
    are known to be zeros, a block's share of them is added in the forward pass while its logits are
    there; else those of all blocks but the last are made again in the backward pass.
    """

    def __init__(self, table: Parameter, bias: Parameter | None = None) -> None:
        self.table = table
        self.bias = bias
        self.added = False  # whether the forward pass has added to the gradients

    def plan(self, workspace: Workspace, slot: int = 0) -> None:
        V, C = self.table.shape
        self.losses = workspace.shared("losses", 1).reshape(-1)
        if workspace.keep:
            self.block = min(workspace.rows, max(_LEAST_ROWS, _LOGITS // V))
            self.logits = workspace.shared("logits", V, self.block)
            self.dx = workspace.shared("d1", C)

    @property
    def trained(self) -> bool:
        """Whether the gradient of table or bias is wanted."""
        return self.table.trained or (self.bias is not None and self.bias.trained)

    def project(self, x: Floats, logits: Floats) -> Floats:
        """logits (R, V), written, of x (R, C)."""
        K.linear_forward(x, self.table.data, None if self.bias is None else self.bias.data, logits)
        return logits

    def loss(
        self,
        x: Floats,
        targets: Ints,
        scale: float | None,
        *,
        add: bool,
        smoothing: float = 0.0,
        weights: Floats | None = None,
    ) -> float:
        """Sum of the losses, each times its weight; with `add` most of backward is done too.

        x (R, C), targets (R,), weights (R,) or None for ones; scale of the gradient, default 1 over
        the sum of the weights' sizes; smoothing of the targets as in the cross_entropy kernel.
        """
        R = len(targets)
        self.x, self.targets, self.smoothing, self.weights = x, targets, smoothing, weights
        self.scale = 1 / total_weight(R, weights) if scale is None else scale
        *earlier, last = self._blocks(R)
        self.added = add and bool(earlier)
        for part in earlier:
            self._logits_gradient(part)
            if add:
                self._consume(part, self._block_of(part))
        self._logits_gradient(last)
        return weighted_sum(self.losses[:R], weights)

    def keep(self, x: Floats, logits: Floats) -> None:
        """Write the logits (R, V) of x (R, C), for a loss of the caller's own."""
        self.x = x
        for part in self._blocks(len(x)):
            self.project(x[part], logits[part])

    def own_gradient(self, dlogits: Floats) -> Floats:
        """dx (R, C) of a loss whose gradient to the logits that were kept is dlogits (R, V)."""
        for part in self._blocks(len(dlogits)):
            self._consume(part, dlogits[part])
        return self.dx[: len(dlogits)]

    def abandon(self) -> None:
        """Take back what loss() has added where backward() never came: there were zeros."""
        if self.added:
            self.table.grad.fill(0)
            if self.bias is not None:
                self.bias.grad.fill(0)
            self.added = False

    def gradient(self) -> Floats:
        """dx (R, C) of the loss, with which the backward pass begins."""
        R = len(self.targets)
        *earlier, last = self._blocks(R)
        self._consume(last, self._block_of(last))
        for part in () if self.added else earlier:
            self._logits_gradient(part)
            self._consume(part, self._block_of(part))
        self.added = False
        return self.dx[:R]

    def _blocks(self, R: int) -> list[slice]:
        """Blocks of about equal size, at least one."""
        size = -(-R // (-(-R // self.block) or 1))
        return [slice(start, min(start + size, R)) for start in range(0, R, size or 1)] or [
            slice(0, 0)
        ]

    def _logits_gradient(self, part: slice) -> None:
        """The losses of a block, and in the buffer the gradient of its logits."""
        logits = self.project(self.x[part], self._block_of(part))
        weights = None if self.weights is None else self.weights[part]
        K.cross_entropy(
            logits,
            self.targets[part],
            self.losses[part],
            self.scale,
            smoothing=self.smoothing,
            weights=weights,
        )

    def _block_of(self, part: slice) -> Floats:
        """The buffer of a block's logits."""
        return self.logits[: part.stop - part.start]

    def _consume(self, part: slice, dlogits: Floats) -> None:
        """dx and the gradients of table and bias from those of a block's logits."""
        if self.trained:
            K.linear_backward_weight(
                dlogits,
                self.x[part],
                self.table.grad,
                None if self.bias is None else self.bias.grad,
            )
        K.linear_backward_input(dlogits, self.table.data, self.dx[part])


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
        self.name = prefix
        yield from ()


class LinearHead(Head):
    """A head with a table and a bias of its own: logits (R, V) = x (R, C) W^T + b."""

    kind = "LinearHead"

    def __init__(self, C: int, V: int, std: float = 0.02) -> None:
        super().__init__(Parameter(V, C, std=std, role=Role.HEAD), Parameter(V))

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """weight (V, C) and bias (V,)."""
        self.name = prefix
        yield f"{prefix}.weight", self.table
        if self.bias is not None:
            yield f"{prefix}.bias", self.bias
