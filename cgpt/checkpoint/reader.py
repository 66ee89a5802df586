"""A binary model file opened for reading: parsed, and every payload checked before it is used."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from cgpt.checkpoint.format import DType, Kind, Record, align, parse_header, parse_table
from cgpt.checkpoint.parts import check_listed, check_object, check_part_length, parse_json
from cgpt.checkpoint.sniff import HEAD, format_of
from cgpt.checkpoint.streams import InMemory, Location
from cgpt.fileio._codec import READS, crc32, read_checked
from cgpt.fileio.failures import damaged, foreign, unreadable
from cgpt.nn.arena import Floats
from cgpt.runtime.forking import ForkLock
from cgpt.runtime.processors import available

THREADS = min(2, available())  # more would starve the disk
_MOST = 1 << 30  # bytes asked of one read call
_PIECE = 1 << 19  # bytes read and checked at a time
_MOST_LAYERS = 1 << 21  # bytes of all layer records together
_GROUP = 1 << 21  # bytes of a thread's next piece of work


Opened = TypeVar("Opened", bound="Source")


class Job(NamedTuple):
    """Work on so many bytes that may run on another thread."""

    size: int
    run: Callable[[], Any]


class Source:
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
                        self.path, f"its end at byte {position}", f"{len(view)} bytes more"
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


class BinaryFile(Source):
    """A file of format v1 whose header and table are checked; payloads are checked when read."""

    def __init__(self, path: Location) -> None:
        """Raises CheckpointError: missing, foreign, version or damaged."""
        super().__init__(path)
        try:
            if format_of(path, self.head, self.size) != "binary":
                raise foreign(
                    path,
                    "a cgpt model in JSON where a binary one is wanted",
                    "load it with load_model_json or load_model_auto",
                )
            self.header = parse_header(path, self.head, self.size)
            start, length = self.header.table_offset, self.header.table_length
            self.records = parse_table(path, self.header, self.read(start, length))
            self._config: dict[str, Any] | None = None
            self._by_kind: dict[int, list[Record]] = {}
            for record in self.records:
                self._by_kind.setdefault(record.kind, []).append(record)
            self._check_zeros(start + length, None)
        except BaseException:
            self.close()
            raise

    def of(self, kind: Kind) -> list[Record]:
        """The records of a kind, in order."""
        return self._by_kind.get(kind, [])

    def maybe(self, kind: Kind) -> Record | None:
        """The only record of a kind, or None where there is none."""
        found = self.of(kind)
        if len(found) > 1:
            raise damaged(self.path, f"{len(found)} records of kind {kind.name.lower()}", "1")
        return found[0] if found else None

    def one(self, kind: Kind) -> Record:
        """The only record of a kind."""
        found = self.maybe(kind)
        if found is None:
            raise damaged(self.path, f"no record of kind {kind.name.lower()}", "1")
        return found

    def config_values(self) -> dict[str, Any]:
        """The config record, as JSON."""
        if self._config is None:
            self._config = check_object(
                self.path, "the config record", self.json(self.one(Kind.CONFIG))
            )
        return self._config

    @property
    def all_float32(self) -> bool:
        """Whether all weights are float32."""
        return all(record.dtype == DType.FLOAT32 for record in self.of(Kind.TENSOR))

    def layers(self) -> list[dict[str, Any]]:
        """The layers, as JSON."""
        total = sum(record.length for record in self.of(Kind.LAYER))
        if total > _MOST_LAYERS:
            raise damaged(
                self.path, f"layers described in {total} bytes", f"at most {_MOST_LAYERS}"
            )
        return check_listed(self.path, [self.json(record) for record in self.of(Kind.LAYER)])

    def check_rounded(self) -> None:
        """Check the weights where they will take more memory than they take in the file."""
        if not self.all_float32:
            self.verify((Kind.TENSOR, Kind.SCALE))

    def payload(self, record: Record) -> bytearray:
        """A payload, checked."""
        data = self.read(record.offset, record.length)
        self.check(record, data)
        return data

    def json(self, record: Record) -> Any:
        """A payload that is JSON, checked."""
        check_part_length(self.path, record.label, record.length)
        return parse_json(self.path, record.label, self.payload(record))

    def check(self, record: Record, data: bytearray | memoryview) -> None:
        """Compare a payload with its checksum, and see that zeros follow it."""
        self._compare(record, crc32(data))

    def fill(self, record: Record, target: Floats) -> None:
        """Read a float32 payload into `target` and check it."""
        self.fill_bytes(record, target.data.cast("B"))
        if sys.byteorder == "big":
            target.byteswap(inplace=True)

    def fill_bytes(self, record: Record, target: memoryview) -> None:
        """Read a payload into `target`, as long as that, and check it."""
        self._compare(record, self._read_checked(record, target))

    def verify(self, kinds: Sequence[int] = ()) -> None:
        """Check every payload, or those of some kinds."""

        def check(record: Record) -> None:
            buffer = memoryview(bytearray(min(_PIECE, record.length)))
            self._compare(record, self._read_checked(record, buffer))

        in_parallel(
            [
                Job(record.length, partial(check, record))
                for record in self.records
                if not kinds or record.kind in kinds
            ]
        )

    def _read_checked(self, record: Record, target: memoryview) -> int:
        """Read a payload into `target`, over and over where that is shorter; its CRC-32."""
        if READS and self._memory is None:
            try:
                crc, done = read_checked(self.fd, record.offset, record.length, target)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if done < record.length:
                raise damaged(
                    self.path,
                    f"its end at byte {record.offset + done}",
                    f"{record.length - done} bytes more",
                )
            return crc
        crc = 0  # from memory, or on Windows
        again = len(target) < record.length
        for start in range(0, record.length, _PIECE):
            size = min(_PIECE, record.length - start)
            piece = target[:size] if again else target[start : start + size]
            self.read_into(record.offset + start, piece)
            crc = crc32(piece, crc)
        return crc

    def _compare(self, record: Record, crc: int) -> None:
        if crc != record.crc:
            raise damaged(self.path, f"{record.label} with checksum {crc:08x}", f"{record.crc:08x}")
        self._check_zeros(record.end, record)

    def _check_zeros(self, start: int, after: Record | None) -> None:
        """See that only zeros lie between `start` and the next payload."""
        size = align(start) - start
        if size and any(self.read(start, size)):
            place = "the table" if after is None else after.label
            raise damaged(
                self.path, f"bytes that are not zero in the padding after {place}", "zeros"
            )


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
