"""The processes that share a training: what each asks of the others, and a group of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cgpt.errors import CgptError


class PeerError(CgptError):
    """Another process of a parallel training failed or is gone. code: peer."""

    code = "peer"


class SingleProcess:
    """A group of one process, and what a training asks of the others: here nothing.

    rank, size  which process of how many; rank 0 writes and prints
    """

    rank = 0
    size = 1

    def begin_sum(self, part: NDArray[np.float32]) -> None:
        """Begin to replace `part` by its sum over all processes; finish_sums() ends it."""

    def progress(self) -> None:
        """Advance the sums that were begun; called now and then during other work."""

    def finish_sums(self) -> None:
        """Return when all sums that were begun are there. Raises PeerError."""

    def gather(self, values: Sequence[float]) -> NDArray[np.float64]:
        """(size, len(values)): what each process gave. Raises PeerError."""
        return np.array([values], np.float64)

    def summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes. Raises PeerError."""
        return values

    def any(self, value: object) -> bool:
        """Whether it is true in any process. Raises PeerError."""
        return bool(self.gather([float(bool(value))]).any())

    def require_same(self, values: dict[str, object], weights: NDArray[np.float32]) -> None:
        """Raises ConfigError in every process where one of them has others than process 0."""


SINGLE_PROCESS = SingleProcess()
