"""Files of every accepted form -> documents and dialogues, their text unaltered.

.json    a list (or an object with one list in it, or one object) of items
.jsonl   one item a line
.txt     documents between blank lines; CRLF and CR become LF
What an item may be: cgpt/items.py. All files are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from cgpt._seen import Seen
from cgpt.errors import DataError
from cgpt.items import FORMS, Dialogue, Unusable, is_item, keys_of, kind_of, n_characters, read_item
from cgpt.large_files import (
    LONGEST_TEXT,
    Broken,
    first_wrong_line,
    is_list,
    listed,
    paragraphs,
    text_lines,
)

LARGE = 1 << 24         # bytes of a file that is not read at once
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
SUFFIXES = (".json", ".jsonl", ".txt")
# Texts about the data, not data: left out of a folder, read when named.
_ASIDE = re.compile(r"(?i)licen[cs]es?$|(readme|licen[cs]e|copying|notice)(\.\w+)*\.txt$")
_GAP = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class FileReport:
    """What a file gave, or why it was skipped.

    documents, dialogues  kept;  characters  of their texts;  bytes  of the file
    dropped     strings without text;  duplicates  items that were there before, letter by letter
    """

    path: str
    documents: int = 0
    dialogues: int = 0
    dropped: int = 0
    skipped: str = ""
    duplicates: int = 0
    characters: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Corpus:
    """All that was read, in order; fingerprint is a SHA-256 over the files' contents."""

    documents: list[str]
    dialogues: list[Dialogue]
    files: list[FileReport]
    fingerprint: str

    def texts(self) -> list[str]:
        """Every document and every message's content, to learn a vocabulary from."""
        return self.documents + [message.content for dialogue in self.dialogues
                                 for message in dialogue]


class Reading:
    """Documents and dialogues of files and folders, one by one, each file once.

    Folders are read in natural order (file2 before file10). In a folder, hidden files are left
    out; files with other suffixes, README.txt, LICENSE.txt, COPYING.txt, NOTICE.txt and the folder
    licenses are skipped and reported. Files of more than `large` bytes are read a little at a
    time. Iterating raises DataError that names file, line or item and what was found, for anything
    that cannot be read or used; afterwards `files` and `fingerprint` are those of a Corpus.

    unique  leave out what was there before, letter by letter
    """

    def __init__(self, paths: Paths, *, unique: bool = False, large: int = LARGE) -> None:
        if isinstance(paths, (str, os.PathLike)):
            paths = [paths]
        self._paths = [os.fspath(path) for path in paths]
        self._large = large
        self._unique = unique
        self.files: list[FileReport] = []
        self.fingerprint = ""

    def __iter__(self) -> Iterator[str | Dialogue]:
        self.files.clear()
        seen = Seen() if self._unique else None
        digest = hashlib.sha256()
        for path, skipped in find_files(self._paths):
            if skipped:
                self.files.append(FileReport(path, skipped=skipped))
            else:
                yield from self._file(path, digest, seen)
        if not self.files:
            raise DataError("no data: name at least one .json, .jsonl or .txt file or folder")
        self.fingerprint = digest.hexdigest()

    def _file(self, path: str, digest: Any, seen: Seen | None) -> Iterator[str | Dialogue]:
        """The items of one file that are not in `seen`; its hash goes into `digest`, its report
        into `files`."""
        size, content = _size_of(path), hashlib.sha256()
        if size > self._large and _can_stream(path):
            items = _large_items(path, content)
        else:
            data = _read_bytes(path)
            content.update(data)
            items = _read_items(path, data)
        texts, dialogues, dropped, duplicates, characters = 0, 0, 0, 0, 0
        for item in items:
            if item is None:
                dropped += 1
            elif seen is not None and not seen.add(digest_of(item)):
                duplicates += 1
            else:
                dialogues += isinstance(item, tuple)
                texts += isinstance(item, str)
                characters += n_characters(item)
                yield item
        digest.update(content.digest())
        if not (texts or dialogues or duplicates):
            raise DataError(f"{path}: no usable document in it, expected items, each {FORMS}")
        self.files.append(FileReport(path, texts, dialogues, dropped, duplicates=duplicates,
                                     characters=characters, bytes=size))


def read_corpus(paths: Paths, *, unique: bool = False) -> Corpus:
    """All that `Reading` gives, in memory. Errors as there."""
    reading = Reading(paths, unique=unique)
    documents: list[str] = []
    dialogues: list[Dialogue] = []
    for item in reading:
        if isinstance(item, str):
            documents.append(item)
        else:
            dialogues.append(item)
    return Corpus(documents, dialogues, reading.files, reading.fingerprint)


def fingerprint_of(paths: Paths) -> str:
    """What `Reading.fingerprint` will be. Raises DataError."""
    digest = hashlib.sha256()
    for path, skipped in find_files([paths] if isinstance(paths, (str, os.PathLike)) else paths):
        if not skipped:
            _size_of(path)      # a pipe would be waited for
            digest.update(hash_file(path))
    return digest.hexdigest()


def changed_while_read() -> DataError:
    """What to raise where a file is no longer what it was at the beginning."""
    return DataError("a data file was changed while it was read; start again when nothing writes "
                     "to the data")


def hash_file(path: str) -> bytes:
    """SHA-256 of a file, read a little at a time."""
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.digest()


def find_files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
    """Every file once, with "" or the reason why it is skipped. Raises DataError."""
    seen: set[str] = set()
    for path, skipped in chain.from_iterable(_find(os.fspath(path)) for path in paths):
        real = os.path.realpath(path)
        if skipped:
            yield path, skipped
        elif real not in seen:
            seen.add(real)
            yield path, ""


def digest_of(item: str | Dialogue) -> bytes:
    """16 bytes that say what an item is."""
    text = item if isinstance(item, str) else "\0".join(
        part for message in item for part in (message.role, message.content))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16,
                           key=b"" if isinstance(item, str) else b"dialogue").digest()


def _find(path: str) -> Iterator[tuple[str, str]]:
    """Files of a path with "" or the reason why one is skipped."""
    if os.path.isdir(path):
        found = False
        for file, skipped in _walk(path):
            found = found or not skipped
            yield file, skipped
        if not found:
            raise DataError(f"{path}: no .json, .jsonl or .txt file in this folder; name "
                            "another one, or the files")
    elif not os.path.exists(path):
        raise DataError(f"{path}: no such file or folder; check the path")
    elif not path.lower().endswith(SUFFIXES):
        raise DataError(f"{path}: the name must end in {', '.join(SUFFIXES)} so that the form is "
                        "known; rename the file")
    else:
        yield path, ""


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    for name in sorted(names, key=_natural):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if _ASIDE.match(name):
            yield path, "not training data by its name; name the file itself to read it"
        elif os.path.isdir(path):
            if not os.path.islink(path):
                yield from _walk(path)
        elif not name.lower().endswith(SUFFIXES):
            yield path, f"not a {', '.join(SUFFIXES)} file"
        else:
            yield path, ""


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}); check path and permissions")


def _size_of(path: str) -> int:
    try:
        if not os.path.isfile(path):
            raise DataError(f"{path}: not a regular file; name a file or folder with data")
        return os.path.getsize(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_items(path: str, data: bytes) -> Iterator[str | Dialogue | None]:
    """Documents and dialogues of a file in order, None for a blank string."""
    text = _decode(path, data)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; put documents or dialogues into it")
    suffix = os.path.splitext(path)[1].lower()
    numbered: Iterable[tuple[int, Any]]
    if suffix == ".txt":
        numbered = paragraphs(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    elif suffix == ".jsonl":
        numbered = ((number, _parse(path, line, number))
                    for number, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        numbered = enumerate(_listed(path, text), 1)
    for number, value in numbered:
        try:
            yield read_item(value)
        except Unusable as error:
            where = f"item {number}{_line_of(text, number)}" if suffix == ".json" \
                else f"line {number}"
            raise DataError(f"{path}, {where}: {error}") from None


def _can_stream(path: str) -> bool:
    """Whether a file can be read a little at a time: a .json file only where it is a list."""
    try:
        return not path.lower().endswith(".json") or is_list(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _large_items(path: str, digest: Any) -> Iterator[str | Dialogue | None]:
    """As `_read_items`, of a file that is not held in memory; its bytes go into `digest`."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        for place, value in _large_values(path, suffix, digest):
            try:
                yield read_item(value)
            except Unusable as error:
                raise DataError(f"{path}, {place}: {error}") from None
    except Broken as error:
        raise DataError(f"{path}, line {error.args[0]}: JSON that cannot be read "
                        f"({error.args[1]}); mend the file") from None
    except UnicodeDecodeError:
        number, line = first_wrong_line(path)
        _decode(path, line, number)
        raise changed_while_read() from None        # no line is wrong any more
    except OSError as error:
        raise _unreadable(path, error) from error


def _large_values(path: str, suffix: str, digest: Any) -> Iterator[tuple[str, Any]]:
    """(where it is, what it is) of every item of a large file."""
    if suffix == ".json":
        for number, line, value in listed(path, digest):
            yield f"item {number} (line {line})", value
        return
    if suffix == ".txt":
        for number, text in paragraphs(text_lines(path, digest, LONGEST_TEXT)):
            yield f"line {number}", text
        return
    for number, text in enumerate(text_lines(path, digest), 1):
        if text.strip():
            yield f"line {number}", _parse(path, text, number)


def _decode(path: str, data: bytes, first: int = 1) -> str:
    """The text of bytes that begin in line `first`. Raises DataError that names line and byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With utf-8-sig the position counts from behind the byte order mark.
        at = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, at) + first
        column = at - data.rfind(b"\n", 0, at)
    likely, name = "", "GB18030"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        likely, name = "; it looks like UTF-16", "UTF-16"
    else:
        try:
            data.decode("gb18030")
            likely = "; it looks like GBK"
        except UnicodeDecodeError:
            pass
    raise DataError(f"{path}, line {line}: found byte 0x{data[at]:02X} at byte {column} of the "
                    f"line, expected UTF-8{likely}; convert the file, for example with "
                    f"iconv -f {name} -t UTF-8")


def _parse(path: str, text: str, line: int | None = None) -> Any:
    """json.loads with errors that name file, line and column; `line` where text is that line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        found = repr(text[error.pos:error.pos + 20]) if error.pos < len(text) else "the end"
        hint = ", or call it .jsonl where it has one object a line" \
            if line is None and error.msg == "Extra data" else ""
        raise DataError(f"{path}, line {line or error.lineno}, column {error.colno}: broken JSON "
                        f"({error.msg}), found {found}; mend the file{hint}") from None
    except (RecursionError, ValueError) as error:
        where = f", line {line}" if line else ""
        reason = "too deep nesting" if isinstance(error, RecursionError) else "too long a number"
        raise DataError(f"{path}{where}: JSON that cannot be read ({reason}); mend the file"
                        ) from None


def _listed(path: str, text: str) -> list[Any]:
    """The items of a .json file."""
    value = _parse(path, text)
    if isinstance(value, dict):
        if is_item(value):
            return [value]
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        if len(lists) != 1:
            raise DataError(f"{path}: found an object with {keys_of(value)}, expected a list of "
                            f"items, or an object with one such list; an item is {FORMS}")
        return lists[0]
    if not isinstance(value, list):
        raise DataError(f"{path}: found {kind_of(value)}, expected a list of items; an item is "
                        f"{FORMS}")
    return value


def _line_of(text: str, number: int) -> str:
    """" (line N)", where item `number` of a JSON list starts; "" where the top is no list."""
    start = len(text) - len(text.lstrip())
    if text[start] != "[":
        return ""
    scan = json.JSONDecoder().raw_decode
    start = _past_gap(text, start + 1)
    for _ in range(number - 1):
        start = _past_gap(text, scan(text, start)[1])
    return f" (line {text.count(chr(10), 0, start) + 1})"


def _past_gap(text: str, start: int) -> int:
    gap = _GAP.match(text, start)
    return gap.end() if gap else start
