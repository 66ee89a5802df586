"""Heads: logits of the last layer's rows, and their loss, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cgpt import kernels as K
from cgpt.arena import Floats, Parameter, Workspace
from cgpt.arrays import Ints
from cgpt.layers import InputLayer, Layer

_LOGITS = 1 << 23       # logits that are held at once in training (32 MB), or
_LEAST_ROWS = 512       # those of so many rows: each block reads the whole table again


class Head(Layer):
    """Logits against a table, and their cross-entropy.

    logits (R, V) = x (R, C) table^T + bias, held for a block of rows at a time. Where the gradients
    are known to be zeros, a block's share of them is added in the forward pass while its logits are
    there; else those of all blocks but the last are made again in the backward pass.
    """

    def __init__(self, table: Parameter, bias: Parameter | None = None) -> None:
        self.table = table
        self.bias = bias
        self.added = False          # whether the forward pass has added to the gradients

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

    def loss(self, x: Floats, targets: Ints, scale: float | None, *,
             add: bool, smoothing: float = 0.0) -> float:
        """Sum of the losses; with `add` most of backward is done too.

        x (R, C), targets (R,); scale of the gradient, default 1 / R; smoothing of the targets as
        in the cross_entropy kernel.
        """
        R = len(targets)
        self.x, self.targets, self.smoothing = x, targets, smoothing
        self.scale = 1 / max(R, 1) if scale is None else scale
        *earlier, last = self._blocks(R)
        self.added = add and bool(earlier)
        for part in earlier:
            self._logits_gradient(part)
            if add:
                self._consume(part)
        self._logits_gradient(last)
        return float(self.losses[:R].sum(dtype=np.float64))

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
        self._consume(last)
        for part in () if self.added else earlier:
            self._logits_gradient(part)
            self._consume(part)
        self.added = False
        return self.dx[:R]

    def _blocks(self, R: int) -> list[slice]:
        """Blocks of about equal size, at least one."""
        size = -(-R // (-(-R // self.block) or 1))
        return [slice(start, min(start + size, R)) for start in range(0, R, size or 1)] or [
            slice(0, 0)]

    def _logits_gradient(self, part: slice) -> None:
        """The losses of a block, and in the buffer the gradient of its logits."""
        logits = self.project(self.x[part], self.logits[:part.stop - part.start])
        K.cross_entropy(logits, self.targets[part], self.losses[part], self.scale,
                        smoothing=self.smoothing)

    def _consume(self, part: slice) -> None:
        """dx and the gradients of table and bias from the buffer."""
        dlogits = self.logits[:part.stop - part.start]
        if self.trained:
            K.linear_backward_weight(dlogits, self.x[part], self.table.grad,
                                     None if self.bias is None else self.bias.grad)
        K.linear_backward_input(dlogits, self.table.data, self.dx[part])


class TiedHead(Head):
    """A head whose table is the token embedding: logits (R, V) = x (R, C) wte^T."""

    def __init__(self, embedding: InputLayer) -> None:
        super().__init__(embedding.wte)

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """None of its own: the table belongs to the embedding."""
        self.name = prefix
        yield from ()


class LinearHead(Head):
    """A head with a table and a bias of its own: logits (R, V) = x (R, C) W^T + b."""

    def __init__(self, C: int, V: int, std: float = 0.02) -> None:
        super().__init__(Parameter(V, C, std=std), Parameter(V))

    def named_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        """weight (V, C) and bias (V,)."""
        self.name = prefix
        yield f"{prefix}.weight", self.table
        if self.bias is not None:
            yield f"{prefix}.bias", self.bias
