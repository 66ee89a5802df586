"""Which files hold data, in which order they are read, and their bytes, unpacked and hashed.

.json .jsonl .txt .csv .tsv   also packed as .gz, or as .zst where zstandard is installed
.parquet                      where pyarrow is installed
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from cgpt.corpus.records import Unusable
from cgpt.errors import DataError, Phrase, as_reason

SUFFIXES = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".parquet")
EARLIER = (".json", ".jsonl", ".txt")  # all that folders were read for once
PACKINGS = (".gz", ".zst")
NAMES = ", ".join(SUFFIXES)
LONGEST_LINE = 1 << 26  # bytes of a row of a file that has a row a line
# Texts about the data, not data: left out of a folder, read when named.
_ASIDE = re.compile(r"(?i)licen[cs]es?$|(readme|licen[cs]e|copying|notice)(\.\w+)*\.txt$")
_PIECE = 1 << 20
_FEW = 1 << 8  # bytes of zstd, which are at most 8 MB unpacked


def suffixes_of(path: str) -> tuple[str, str]:
    """(suffix that says what is in a file, suffix of its packing or ""); ("", "") if unknown."""
    name = path.lower()
    packing = next((one for one in PACKINGS if name.endswith(one)), "")
    suffix = next((one for one in SUFFIXES if name.removesuffix(packing).endswith(one)), "")
    return ("", "") if not suffix or (packing and suffix == ".parquet") else (suffix, packing)


def find_files(
    paths: Iterable[str | os.PathLike[str]], suffixes: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Every file once, with "" or the reason why it is skipped. Raises DataError.

    suffixes  those of the files that folders are read for; () for all that are known
    """
    seen: set[str] = set()
    every = chain.from_iterable(_find(os.fspath(path), tuple(suffixes)) for path in paths)
    for path, skipped in every:
        real = os.path.realpath(path)
        if skipped:
            yield path, skipped
        elif real not in seen:
            seen.add(real)
            yield path, ""


def _find(path: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Files of a path with "" or the reason why one is skipped."""
    if os.path.isdir(path):
        found = False
        for file, skipped in walk(path, suffixes):
            found = found or not skipped
            yield file, skipped
        if not found:
            raise DataError(
                "{path}: no data in this folder, expected files whose names end in "
                "{suffixes}; name another one, or the files",
                path=path,
                suffixes=NAMES,
            )
    elif not os.path.exists(path):
        raise DataError("{path}: no such file or folder; check the path", path=path)
    elif not suffixes_of(path)[0]:
        raise DataError(
            "{path}: the name must end in {suffixes} so that the form is known; rename the file",
            path=path,
            suffixes=NAMES,
        )
    else:
        yield path, ""


def walk(folder: str, suffixes: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """All files of a folder in natural order (file2 before file10), hidden ones left out.

    Each with "" or the reason why it is skipped. Raises DataError.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise unreadable(folder, error) from error
    for name in sorted(names, key=_natural):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if _ASIDE.match(name):
            yield path, "not training data by its name; name the file itself to read it"
        elif os.path.isdir(path):
            if not os.path.islink(path):
                yield from walk(path, suffixes)
        elif not suffixes_of(name)[0]:
            yield path, f"not a {NAMES} file"
        elif suffixes and not name.lower().endswith(suffixes):
            yield path, "not of the kinds of files that this run was begun with"
        else:
            yield path, ""


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def is_inside(file: str, folder: str) -> bool:
    """Whether a file is `folder` or in it; both without links."""
    return file == folder or file.startswith(folder.rstrip(os.sep) + os.sep)


def unreadable(path: str, error: OSError) -> DataError:
    """What to raise where the system refuses to read a file."""
    return DataError(
        "{path}: cannot be read ({reason}); check path and permissions",
        path=path,
        reason=as_reason(error),
    )


def size_of(path: str) -> int:
    """Bytes of a file. Raises DataError where it is no regular one: a pipe would be waited for."""
    try:
        if not os.path.isfile(path):
            raise DataError(
                "{path}: not a regular file; name a file or folder with data", path=path
            )
        return os.path.getsize(path)
    except OSError as error:
        raise unreadable(path, error) from error


def unpacked_size(path: str, most: int) -> int:
    """Bytes that a file holds: those of a packed one are counted up to `most`, then estimated."""
    size = size_of(path)
    if not suffixes_of(path)[1]:
        return size
    content, found = hashlib.sha256(), 0
    with open_data(path, content, whole=False) as (file, taken):
        while found < most and (piece := file.read(_PIECE)):
            found += len(piece)
        return found if found < most else max(found, found * size // max(taken(), 1))


def hash_file(path: str) -> bytes:
    """SHA-256 of a file, read a little at a time."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_PIECE):
                found.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return found.digest()


class _Hashed(io.RawIOBase):
    """A file whose bytes go into a hash as they are read."""

    def __init__(self, path: str, digest: Any) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._digest = digest
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:size])
        self.taken += size
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def open_data(
    path: str, digest: Any, *, whole: bool = True
) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """(the unpacked bytes of a file, a function that says how many packed ones were read).

    Where `whole`, all bytes of the file have gone into `digest` when the block ends as it should.
    Raises DataError where the file cannot be read, or its packing is damaged.
    """
    packing = suffixes_of(path)[1]
    try:
        with _Hashed(path, digest) as raw:
            file = io.BufferedReader(raw, _PIECE)
            yield _unpacked(path, packing, file), lambda: raw.taken
            while whole and file.read(_PIECE):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, packing) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        if packing == ".zst" and type(error).__name__ == "ZstdError":
            raise _damaged(path, packing) from error
        raise


def _unpacked(path: str, packing: str, file: BinaryIO) -> BinaryIO:
    if packing == ".gz":
        return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=file), _PIECE))
    if packing == ".zst":
        try:
            import zstandard
        except ImportError:
            raise DataError(
                "{path}: reading it needs the package zstandard; install the extra: pip "
                "install 'cgpt[data]'",
                path=path,
            ) from None
        return cast(
            BinaryIO,
            io.BufferedReader(_Zstandard(file, zstandard.ZstdDecompressor().decompressobj), _PIECE),
        )
    return file


class _Zstandard(io.RawIOBase):
    """What the frames of a file hold; the reader of zstandard itself takes a cut one for whole.

    Bytes are taken so few at a time that what they unpack to is bounded.
    """

    def __init__(self, file: BinaryIO, frame: Callable[[], Any]) -> None:
        self._file, self._frame = file, frame
        self._current: Any = None
        self._packed, self._found = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._found:
            self._packed = self._packed or self._file.read(_FEW)
            if not self._packed:
                if self._current is not None:
                    raise EOFError
                return 0
            self._current = self._current or self._frame()
            self._found = memoryview(self._current.decompress(self._packed))
            self._packed = b""
            if self._current.eof:
                self._packed, self._current = self._current.unused_data, None
        size = min(len(buffer), len(self._found))
        buffer[:size] = self._found[:size]
        self._found = self._found[size:]
        return size


def _damaged(path: str, packing: str) -> DataError:
    return DataError(
        "{path}: what was packed as {name} is damaged or cut short; copy or make the file again",
        path=path,
        name=packing,
    )


def byte_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file without a byte order mark and their ends; None for one too long."""
    first = True
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield (line.removeprefix(codecs.BOM_UTF8) if first else line).removesuffix(b"\n")
        first = False


def first_wrong_line(path: str) -> DataError | None:
    """What to raise of the first line that is no UTF-8; None where there is none."""
    number, before = 1, b""
    with open_data(path, hashlib.sha256()) as (file, _):
        while line := file.readline(LONGEST_LINE):
            line, before = before + line, b""
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                cut = len(line) >= LONGEST_LINE and error.end == len(line)
                if not cut or len(line) - error.start > 3:
                    return DataError(
                        "{path}, line {line}: {reason}",
                        path=path,
                        line=number,
                        reason=not_utf8(line, error.start),
                    )
                before = line[error.start :]
            number += line.endswith(b"\n")
    return (
        DataError(
            "{path}, line {line}: {reason}", path=path, line=number, reason=not_utf8(before, 0)
        )
        if before
        else None
    )


def not_utf8(line: bytes, at: int) -> Unusable:
    """What is wrong with a line whose byte number `at` is no UTF-8."""
    likely, name = "", "GB18030"
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        likely = name = "UTF-16"
    else:
        try:
            line.decode("gb18030")
            likely = "GBK"
        except UnicodeDecodeError:
            pass
    return Unusable(
        "found byte {byte} at byte {column} of the line, expected UTF-8{guess}; convert the "
        "file, for example with iconv -f {name} -t UTF-8",
        code="encoding",
        byte=f"0x{line[at]:02X}",
        column=at + 1,
        guess=Phrase("; it looks like {encoding}", encoding=likely) if likely else "",
        name=name,
    )


def packaged_data() -> tuple[Path, Path]:
    """(pre-training file, chat file) that come with cgpt. Raises DataError where they are missing.

    A wheel holds them in cgpt/_data; a source tree in data/ next to the package.
    """
    package = Path(os.path.abspath(__file__)).parents[1]
    folder = package / "_data"
    if not folder.is_dir():
        folder = package.parent / "data"
    files = folder / "pretraining_data.json", folder / "chat_training_data.json"
    for file in files:
        if not file.is_file():
            raise DataError(
                "{path}: the data that comes with cgpt is missing; install cgpt again", path=file
            )
    return files
