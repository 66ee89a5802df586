"""Writing beside training: the arrays are copied at once, a thread writes the copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from cgpt.checkpoint.binary_writer import Packed, arrays_of, pack
from cgpt.checkpoint.storage import Storage
from cgpt.fileio.format_v1 import Kind
from cgpt.language_model import LanguageModel
from cgpt.nn.arena import Floats, aligned
from cgpt.runtime.forking import renew_after_fork


class BackgroundWriter:
    """One thread that writes snapshots, one at a time.

    The copies are kept and used again: they take as much memory as the arrays themselves.
    """

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Nothing is being written: the thread of a parent process is not in its child."""
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[object] | None = None
        self._copies: dict[Kind, Floats] = {}

    def submit(
        self, llm: LanguageModel, path: str | os.PathLike[str], write: Callable[[Packed], object]
    ) -> None:
        """Copy `llm` as it is now and let the thread call `write` with the file made of it.

        Waits for the snapshot before it, whose error is raised here; `path` is what errors name.
        """
        self.wait()
        packed = pack(
            llm,
            path,
            [(kind, self._copy(kind, array)) for kind, array in arrays_of(llm)],
            Storage(),
            snapshot=True,
        )
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "cgpt-checkpoint")
        self._running = self._pool.submit(write, packed)

    def wait(self) -> None:
        """Return when nothing is being written. Raises what the last write failed with."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Wait and end the thread. Raises as `wait` does."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
            self._copies.clear()

    def _copy(self, kind: Kind, array: Floats) -> Floats:
        if kind not in self._copies or self._copies[kind].size != array.size:
            self._copies[kind] = aligned(array.size)
        np.copyto(self._copies[kind], array)
        return self._copies[kind]
