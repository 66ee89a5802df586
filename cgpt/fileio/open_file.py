"""Files and bytes in memory, read at any position; work on their parts on two threads."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

from cgpt.errors import Phrase
from cgpt.fileio.file_errors import damaged, foreign, unreadable
from cgpt.runtime.forking import ForkLock
from cgpt.runtime.processors import available

BYTES = "<bytes>"  # how errors call bytes
HEAD = 1 << 16  # bytes of a file that tell its kind
THREADS = min(2, available())  # more would starve the disk
_MOST = 1 << 30  # bytes asked of one read call
_GROUP = 1 << 21  # bytes of a thread's next piece of work


class Readable(Protocol):
    """What a model can be read from: read(n) gives at most n bytes, none at the end."""

    def read(self, n: int, /) -> bytes:
        """At most n bytes."""
        ...


class Writable(Protocol):
    """What a model can be written to: write(data) takes some of the bytes or all."""

    def write(self, data: Any, /) -> object:
        """The number of bytes taken."""


PathLike = str | os.PathLike[str]
Data = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class InMemory:
    """A model's bytes; `name` is what errors call them, `folder` where paths in them begin."""

    data: memoryview
    name: str = BYTES
    folder: Path = Path()

    def __str__(self) -> str:
        return self.name


Location = PathLike | InMemory


def folder_of(location: Location) -> Path:
    """Where the paths in a file begin."""
    return location.folder if isinstance(location, InMemory) else Path(location).parent


Opened = TypeVar("Opened", bound="OpenFile")


class Job(NamedTuple):
    """Work on so many bytes that may run on another thread."""

    size: int
    run: Callable[[], Any]


class OpenFile:
    """A regular file, or bytes in memory, for reading at any position; `head` is the first 64 KiB.

    path  what was opened, as errors name it
    """

    def __init__(self, path: Location) -> None:
        """Raises CheckpointError where it cannot be opened."""
        self.path = path
        self.fd = -1
        self._lock = ForkLock()
        self._memory: memoryview | None = None
        if isinstance(path, InMemory):
            self._memory, self.size = path.data, len(path.data)
            self.head = bytes(path.data[:HEAD])
        else:
            self._open(path)

    def _open(self, path: str | os.PathLike[str]) -> None:
        try:
            if "\0" in os.fsdecode(path):
                raise FileNotFoundError
            self.fd = os.open(
                path,
                os.O_RDONLY
                | getattr(os, "O_CLOEXEC", 0)
                | getattr(os, "O_BINARY", 0)
                | getattr(os, "O_NONBLOCK", 0),
            )
            status = os.fstat(self.fd)
            if not stat.S_ISREG(status.st_mode):
                raise (
                    unreadable(path, IsADirectoryError())
                    if stat.S_ISDIR(status.st_mode)
                    else foreign(path, "a device or pipe")
                )
            self.size = status.st_size
            self.head = os.read(self.fd, HEAD)
        except OSError as error:
            self.close()
            raise unreadable(path, error) from error
        except UnicodeEncodeError as error:  # a name that no file can have
            raise unreadable(path, FileNotFoundError()) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            with suppress(OSError):  # it was only read
                os.close(self.fd)
            self.fd = -1

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read_into(self, position: int, target: memoryview) -> None:
        """Fill `target` (bytes) from the file. Raises CheckpointError where the file ends."""
        view = target
        try:
            while view:
                n = self._read_some(view[:_MOST], position)
                if n == 0:
                    raise damaged(
                        self.path,
                        Phrase("its end at byte {at}", at=position),
                        Phrase("{n} bytes more", n=len(view)),
                    )
                view, position = view[n:], position + n
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _read_some(self, view: memoryview, position: int) -> int:
        if self._memory is not None:
            found = self._memory[position : position + len(view)]
            view[: len(found)] = found
            return len(found)
        if hasattr(os, "preadv"):
            return os.preadv(self.fd, [view], position)
        with self._lock:  # Windows
            os.lseek(self.fd, position, os.SEEK_SET)
            data = os.read(self.fd, len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, position: int, length: int) -> bytearray:
        """`length` bytes at `position`, which the caller knows to be inside the file."""
        data = bytearray(length)
        self.read_into(position, memoryview(data))
        return data


class Running:
    """Jobs that run on other threads from now on; `finish` helps and raises the first error."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._groups = deque(enumerate(grouped(jobs)))
        self._errors: list[tuple[int, BaseException]] = []
        self._threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(THREADS - 1, len(self._groups)))
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._errors:
            try:
                number, group = self._groups.popleft()
            except IndexError:
                return
            try:
                for job in group:
                    job.run()
            except BaseException as error:
                self._errors.append((number, error))

    def finish(self) -> None:
        """Return when all are done. Raises the error of the first job that failed."""
        try:
            self._work()
        finally:
            self.cancel()
        if self._errors:
            raise min(self._errors, key=lambda one: one[0])[1]

    def cancel(self) -> None:
        """Begin no other job, and return when none runs any more."""
        self._groups.clear()
        for thread in self._threads:
            thread.join()


def in_parallel(jobs: Sequence[Job]) -> None:
    """Run the jobs on two threads; of those that fail, the first one's error is raised."""
    if len(grouped(jobs)) > 1:
        Running(jobs).finish()
    else:
        for job in jobs:
            job.run()


def grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs in order, in groups that are worth a thread's attention."""
    groups: list[list[Job]] = []
    room = 0
    for job in jobs:
        if room <= 0:
            groups.append([])
            room = _GROUP
        groups[-1].append(job)
        room -= job.size
    return groups
