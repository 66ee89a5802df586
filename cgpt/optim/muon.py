"""Muon: momentum made orthogonal for the matrices of the blocks, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from cgpt import kernels as K
from cgpt.config import TrainConfig
from cgpt.config.declaration import check_option
from cgpt.models.base import Model
from cgpt.nn.arena import Entry, Role
from cgpt.optim.adamw import AdamW
from cgpt.runtime.interrupts import Operation


class Muon(AdamW):
    """Nesterov momentum, made orthogonal, for the matrices of the blocks; AdamW for the rest.

    W := (1 - lr weight_decay) W - lr 0.2 sqrt(max(rows, columns)) orthogonal(g + momentum m),
    m := momentum m + g before. Queries, keys and values are three matrices. The factor gives an
    update the size of AdamW's, whatever the shape. The moment v of these matrices stays zero.
    Raises ConfigError as AdamW does, and for a momentum out of range.
    Source: Jordan et al. 2024 as above; Liu et al. 2025, arXiv:2502.16982, equation 4.
    """

    kind = "muon"

    def __init__(
        self,
        gpt: Model,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        freeze: Iterable[str] = (),
        momentum: float = 0.95,
        *,
        embedding_lr: float = 1.0,
        fresh: bool = True,
        replaces: AdamW | None = None,
        waits: bool = False,
    ) -> None:
        self.momentum = float(check_option(TrainConfig, "momentum", "Muon", momentum))
        super().__init__(
            gpt,
            betas,
            eps,
            weight_decay,
            freeze,
            embedding_lr=embedding_lr,
            fresh=fresh,
            replaces=replaces,
            waits=waits,
        )
        self._matrices = np.array(
            sorted(self._places(), key=lambda one: -one[1] * one[2]), np.int64
        ).reshape(-1, 3)

    def _repr_more(self) -> str:
        return f"momentum={self.momentum:g}, "

    def _places(self) -> Iterator[tuple[int, int, int]]:
        """Offset, rows and columns of every matrix that is trained here."""
        for entry in self.arena.entries:
            if not self._by_adam(entry) and not self._frozen(entry.name):
                rows, columns = entry.shape[0] // entry.parts, entry.shape[1]
                for part in range(entry.parts):
                    yield entry.offset + part * rows * columns, rows, columns

    def _by_adam(self, entry: Entry) -> bool:
        return entry.role is not Role.MATRIX

    def _updates(self, lr: float, factor: float) -> list[Operation]:
        arena = self.arena
        return [
            partial(
                K.muon,
                arena.data,
                arena.require_grad(),
                arena.require_moments()[0],
                self._matrices,
                lr,
                self.momentum,
                self.weight_decay,
                factor,
            ),
            *super()._updates(lr, factor),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The settings and the step count, JSON-ready; the moments are in the arena."""
        return {**super().to_dict(), "kind": self.kind, "momentum": self.momentum}

    @staticmethod
    def _arguments(values: dict[str, Any]) -> dict[str, Any]:
        return {**AdamW._arguments(values), "momentum": values["momentum"]}
