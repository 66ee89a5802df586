"""Muon: momentum made orthogonal for the matrices of the blocks, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from cgpt import kernels as K
from cgpt.arena import Entry, Floats, aligned
from cgpt.errors import ConfigError
from cgpt.model import GPT
from cgpt.optim import AdamW

QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
UPDATE_RMS = 0.2        # of an AdamW update, about: so one learning rate serves both
_LEAST = 1e-30          # squared norm below which there is no direction


class Orthogonalizer:
    """Newton-Schulz for matrices of one shape; holds the buffers that it needs.

    x := u / |u|, then five times x := (a + b A + c A A) x with A = x x^T. Singular values go to
    about 1 (0.7 to 1.2), small ones among them; singular vectors stay. For a matrix that is
    taller than wide A is x^T x and stands on the right, so that it is always the smaller one.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.tall = rows > columns
        small = min(rows, columns)
        self.u, self._next = (aligned(rows * columns).reshape(rows, columns) for _ in range(2))
        self._gram, self._square = (aligned(small**2).reshape(small, small) for _ in range(2))

    def solve(self) -> Floats:
        """The orthogonal factor of `u`, (rows, columns), which is overwritten."""
        a, b, c = QUINTIC
        x, other, gram, square = self.u, self._next, self._gram, self._square
        scale = 1 / max(K.sum_of_squares(x.reshape(-1)), _LEAST)
        diagonal = square.reshape(-1)[::len(square) + 1]
        for number in range(ROUNDS):
            self._multiply_by_itself(x)
            if number == 0:
                gram *= np.float32(scale)
            K.linear_forward(gram, gram, None, square)
            square *= np.float32(c)
            gram *= np.float32(b)
            square += gram
            diagonal += np.float32(a)
            if number == 0:
                square *= np.float32(math.sqrt(scale))
            if self.tall:
                K.linear_forward(x, square, None, other)
            else:
                K.linear_backward_input(square, x, other)
            x, other = other, x
        return x

    def _multiply_by_itself(self, x: Floats) -> None:
        if self.tall:
            self._gram.fill(0)
            K.linear_backward_weight(x, x, self._gram, None)
        else:
            K.linear_forward(x, x, None, self._gram)


class Muon(AdamW):
    """Nesterov momentum, made orthogonal, for the matrices of the blocks; AdamW for the rest.

    W := (1 - lr weight_decay) W - lr 0.2 sqrt(max(rows, columns)) orthogonal(g + momentum m),
    m := momentum m + g before. Queries, keys and values are three matrices. The factor gives an
    update the size of AdamW's, whatever the shape. The moment v of these matrices stays zero.
    Raises ConfigError as AdamW does, and for a momentum out of range.
    Source: Jordan et al. 2024 as above; Liu et al. 2025, arXiv:2502.16982, equation 4.
    """

    kind = "muon"

    def __init__(self, gpt: GPT, betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8,
                 weight_decay: float = 0.1, freeze: Iterable[str] = (), momentum: float = 0.95, *,
                 embedding_lr: float = 1.0, fresh: bool = True) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError(f"Muon: momentum must be in [0, 1), found {momentum}")
        self.momentum = float(momentum)
        super().__init__(gpt, betas, eps, weight_decay, freeze, embedding_lr=embedding_lr,
                         fresh=fresh)
        self._matrices = [entry for entry in gpt.arena.entries
                          if not self._by_adam(entry) and not self._frozen(entry.name)]
        self._solvers: dict[tuple[int, int], Orthogonalizer] = {}

    def _by_adam(self, entry: Entry) -> bool:
        return not (entry.decay and entry.name.startswith("h."))

    def _apply(self, lr: float, factor: float) -> None:
        super()._apply(lr, factor)
        for entry in self._matrices:
            parts = 3 if entry.name.endswith(".c_attn.weight") else 1
            rows, columns = entry.shape[0] // parts, entry.shape[1]
            for part in range(parts):
                start = entry.offset + part * rows * columns
                self._turn(slice(start, start + rows * columns), rows, columns, lr, factor)

    def _turn(self, part: slice, rows: int, columns: int, lr: float, factor: float) -> None:
        """One update of the matrix (rows, columns) that lies at `part` of the arena."""
        arena = self.gpt.arena
        solver = self._solvers.get((rows, columns))
        if solver is None:
            solver = self._solvers[rows, columns] = Orthogonalizer(rows, columns)
        grad, m = arena.require_grad()[part], arena.require_moments()[0][part]
        K.momentum(grad, m, solver.u.reshape(-1), self.momentum, factor)
        rate = lr * UPDATE_RMS * math.sqrt(max(rows, columns))
        K.descend(arena.data[part], solver.solve().reshape(-1), rate, 1 - lr * self.weight_decay)

    def to_dict(self) -> dict[str, Any]:
        """The settings and the step count, JSON-ready; the moments are in the arena."""
        return {**super().to_dict(), "kind": self.kind, "momentum": self.momentum}

    @staticmethod
    def _arguments(values: dict[str, Any]) -> dict[str, Any]:
        return {**AdamW._arguments(values), "momentum": values["momentum"]}
