"""Encoded documents as files of the cache: written whole, checked whole before they are used.

    CRC-32 of the file's place in the cache and of all that follows int64,
    number of documents int64, their sizes int32, their tokens int16 or int32

A file of a cache costs nothing to lose and much to use wrongly: so what cannot be read or is not
as it was written is `Damaged`, and `token_cache.py` makes it again.
"""

from __future__ import annotations

import errno
import json
import mmap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus.documents import Shard
from cgpt.fileio._codec import crc32
from cgpt.fileio.atomic import Output, write_file

INDEX = "index.json"
_CHECKSUM = 8  # bytes of the checksum
_HEAD = _CHECKSUM + 8
_PIECE = 1 << 20  # bytes that are read and checked at a time


class Damaged(Exception):
    """A file of the cache that is not as it was written; args are its path."""


def shard_path(entry: Path, number: int) -> Path:
    """Where shard `number` of a cache entry lies."""
    return entry / f"{number:06}.shard"


def write_shard(path: Path, shard: Shard, dtype: np.dtype[Any]) -> None:
    """Write a shard with its tokens as `dtype`. Raises CheckpointError (code "write")."""
    parts = (
        np.array([len(shard.sizes)], "<i8"),
        shard.sizes.astype("<i4", copy=False),
        shard.tokens.astype(dtype, copy=False),
    )
    crc = place_checksum(path)
    for part in parts:
        crc = crc32(part.view(np.uint8), crc)
    _write(path, np.array([crc], "<i8"), *parts)


def read_shard(path: Path, dtype: np.dtype[Any]) -> Shard:
    """A shard, every byte of it compared with its checksum.

    The sizes lie in memory, the tokens are mapped; what was read is not held.
    Raises Damaged, FileNotFoundError, OSError.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            wanted, size = int(np.fromfile(file, "<i8", 1).sum()), file.seek(0, 2)
            if size < _HEAD or _checksum(file, place_checksum(path)) != wanted:
                raise Damaged(path)
            file.seek(_CHECKSUM)
            count = int(np.fromfile(file, "<i8", 1)[0])
            if not 0 <= count <= (size - _HEAD) // 4:
                raise Damaged(path)
            sizes = np.fromfile(file, "<i4", count)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tokens = np.frombuffer(mapped, np.uint8, offset=_HEAD + 4 * count)
    except OSError as error:
        if error.errno == errno.EIO:  # as after damage of the disk
            raise Damaged(path) from error
        raise
    if len(tokens) != dtype.itemsize * int(np.abs(sizes.astype(np.int64)).sum()):
        raise Damaged(path)
    return Shard(tokens.view(dtype), sizes, mapped=mapped)


def place_checksum(path: Path) -> int:
    """What a shard's checksum begins with, so that a shard in the place of another is noticed."""
    return crc32(f"{path.parent.name}/{path.name}".encode())


def _checksum(file: Any, crc: int) -> int:
    """CRC-32 of what follows the checksum, after `crc`."""
    buffer = memoryview(bytearray(_PIECE))
    file.seek(_CHECKSUM)
    while size := file.readinto(buffer):
        crc = crc32(buffer[:size], crc)
    return crc


def write_index(entry: Path, values: dict[str, Any]) -> None:
    """Write what completes a cache entry, with its checksum.

    Raises CheckpointError (code "write").
    """
    text = {"index": values, "crc32": crc32(json.dumps(values).encode())}
    _write(entry / INDEX, json.dumps(text).encode())


def read_index(entry: Path) -> dict[str, Any]:
    """What `write_index` wrote. Raises Damaged, FileNotFoundError, OSError."""
    path = entry / INDEX
    try:
        found = json.loads(path.read_bytes())
        values, wanted = found["index"], found["crc32"]
        if isinstance(values, dict) and crc32(json.dumps(values).encode()) == wanted:
            return values
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    raise Damaged(path)


def raise_file_limit(files: int) -> None:
    """Let this process hold so many files more, where the system can: every map keeps its own."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            most = soft + files if hard == resource.RLIM_INFINITY else min(soft + files, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _write(path: Path, *parts: Any) -> None:
    """Write buffers end to end; the file is there whole or not at all."""

    def write(out: Output) -> None:
        for part in parts:
            out.write(memoryview(part))

    write_file(path, sum(memoryview(part).nbytes for part in parts), write)
