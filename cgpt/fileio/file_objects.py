"""Models without a path: in bytes, or read from and written to a binary file object.

A model is read whole before it is taken apart, so that everything that is checked of a file is
checked here too. No more of a binary model is read than its header says: a pipe or socket may stay
open after it, and another model may follow.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from cgpt.errors import CheckpointError, ConfigError, Phrase, Templated, as_reason, shown
from cgpt.fileio._codec import crc32
from cgpt.fileio.file_errors import damaged, unreadable
from cgpt.fileio.file_kind import kind_of
from cgpt.fileio.format_v1 import HEADER_SIZE, MAGIC
from cgpt.fileio.open_file import HEAD, Data, InMemory, Location, PathLike, Readable, Writable
from cgpt.locale import N_

_PIECE = 1 << 20  # bytes asked of one read, or given to one write
_LARGEST = 1 << 40  # bytes of a model, where the memory is not known


def located(source: PathLike | Data | Readable | InMemory) -> Location:
    """A path as it is, everything else as bytes in memory.

    Raises CheckpointError where a file object cannot be read, ConfigError where this is none.
    """
    if isinstance(source, (str, os.PathLike, InMemory)):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        return InMemory(view.cast("B") if view.c_contiguous else memoryview(view.tobytes()))
    if not callable(getattr(source, "read", None)):
        raise ConfigError(
            "load: expected a path, bytes or a binary file object, found {value}",
            value=shown(source),
        )
    name = name_of(source)
    data = _read_model(source, name)
    given = getattr(source, "name", None)
    folder = Path(given).parent if isinstance(given, (str, Path)) else Path()
    return InMemory(memoryview(data), name, folder)


def name_of(stream: object) -> str:
    """What errors call a file object."""
    given = getattr(stream, "name", None)
    return (
        os.fspath(given)
        if isinstance(given, (str, os.PathLike)) and os.fspath(given)
        else (f"<{type(stream).__name__}>")
    )


def _read_model(stream: Readable, name: str) -> bytearray:
    """The bytes of the model that comes next: as its header says, else up to the end."""
    data = bytearray()
    _read_up_to(stream, name, data, HEADER_SIZE)
    length = _length_in(data)
    if length is None:
        _read_up_to(stream, name, data, HEAD)
        kind_of(name, bytes(data), len(data))  # refuses what is no model at once
    most = _memory()
    if length is not None and length > most:
        raise damaged(
            name,
            Phrase("a length of {n} bytes", n=length),
            Phrase("at most {n}, half of the memory", n=most),
        )
    _read_up_to(stream, name, data, most + 1 if length is None else length)
    if len(data) > most:
        raise damaged(
            name,
            Phrase("more than {n} bytes", n=most),
            Phrase("at most {n}, half of the memory", n=most),
        )
    return data


def _length_in(head: bytearray) -> int | None:
    """The length of the whole file that a sound header says."""
    if len(head) < HEADER_SIZE or not head.startswith(MAGIC):
        return None
    (crc,) = struct.unpack_from("<I", head, HEADER_SIZE - 4)
    if crc32(head[: HEADER_SIZE - 4]) != crc:
        return HEADER_SIZE  # enough to be refused
    (length,) = struct.unpack_from("<Q", head, 24)
    return max(int(length), HEADER_SIZE)


def _memory() -> int:
    """Half of the memory of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return _LARGEST


def _read_up_to(stream: Readable, name: str, data: bytearray, size: int) -> None:
    """Read on until there are `size` bytes, or the stream ends."""
    while len(data) < size:
        try:
            piece = stream.read(min(_PIECE, size - len(data)))
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise _unreadable(name, error) from error
        if isinstance(piece, str):
            raise _text_mode(name, "rb")
        if piece is None:
            reason = N_("no data yet from a stream that does not wait")
            raise _unreadable(name, OSError(0, reason))
        if not piece:
            return
        data += piece


def _unreadable(name: str, error: Exception) -> CheckpointError:
    return unreadable(
        name, error if isinstance(error, OSError) and error.strerror else OSError(0, str(error))
    )


def _text_mode(name: str, mode: str) -> ConfigError:
    return ConfigError(
        "{name}: this file object is of text, expected one of bytes; open it with '{mode}'",
        name=name,
        mode=mode,
    )


def is_stream(target: object) -> bool:
    """Whether a model is to be written to a file object and not to a path.

    Raises ConfigError where it is neither.
    """
    if isinstance(target, (str, os.PathLike)):
        return False
    if not callable(getattr(target, "write", None)):
        raise ConfigError(
            "save: expected a path or a binary file object, found {value}", value=shown(target)
        )
    if isinstance(target, io.TextIOBase):
        raise _text_mode(name_of(target), "wb")
    return True


class StreamOutput:
    """A file object while a model is written to it, from its beginning to its end."""

    def __init__(self, stream: Writable) -> None:
        self._stream, self.name, self._written = stream, name_of(stream), 0

    def write(self, data: Data) -> None:
        """Write all bytes. Raises CheckpointError (code "write")."""
        view = memoryview(data).cast("B")
        while view:
            piece = view[:_PIECE]
            try:
                taken = self._stream.write(piece)
            except TypeError:  # a file object of text that says so only now
                raise _text_mode(self.name, "wb") from None
            except (OSError, ValueError) as error:
                raise self._failed(as_reason(error)) from error
            if taken is None and isinstance(self._stream, io.RawIOBase):
                raise self._failed(Phrase("no room yet in a stream that does not wait"))
            n = taken if isinstance(taken, int) else len(piece)
            view, self._written = view[n:], self._written + n

    def finish(self) -> None:
        """Hand on what the file object has kept back."""
        try:
            getattr(self._stream, "flush", lambda: None)()
        except (OSError, ValueError) as error:
            raise self._failed(as_reason(error)) from error

    def _failed(self, reason: Templated) -> CheckpointError:
        return CheckpointError(
            "{name} could not be written: found '{reason}' after {n} bytes, expected a "
            "stream that takes the whole model; save it to another one",
            code="write",
            name=self.name,
            reason=reason,
            n=self._written,
        )


def write_all(stream: Writable, parts: Iterable[Data]) -> None:
    """Write the parts of a model one after another; see StreamOutput."""
    out = StreamOutput(stream)
    for part in parts:
        out.write(part)
    out.finish()
