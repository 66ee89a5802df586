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

from cgpt.errors import DataError
from cgpt.items import FORMS, Dialogue, Unusable, is_item, keys_of, kind_of, read_item

SUFFIXES = (".json", ".jsonl", ".txt")
# Texts about the data, not data: left out of a folder, read when named.
_ASIDE = re.compile(r"(?i)licen[cs]es?$|(readme|licen[cs]e|copying|notice)(\.\w+)*\.txt$")
_GAP = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class FileReport:
    """What a file gave: documents, dialogues, blank strings dropped; or why it was skipped."""

    path: str
    documents: int = 0
    dialogues: int = 0
    dropped: int = 0
    skipped: str = ""


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


def read_corpus(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Corpus:
    """Read files and folders, each file once, folders in natural order (file2 before file10).

    In a folder, hidden files are left out; files with other suffixes, README.txt, LICENSE.txt,
    COPYING.txt, NOTICE.txt and the folder licenses are skipped and reported. Raises
    DataError that names file, line or item and what was found, for anything that cannot be read
    or used.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    documents: list[str] = []
    dialogues: list[Dialogue] = []
    files: list[FileReport] = []
    digest = hashlib.sha256()
    seen: set[str] = set()
    for path, skipped in chain.from_iterable(_find(os.fspath(path)) for path in paths):
        real = os.path.realpath(path)
        if skipped:
            files.append(FileReport(path, skipped=skipped))
        elif real not in seen:
            seen.add(real)
            data = _read_bytes(path)
            digest.update(hashlib.sha256(data).digest())
            items = list(_read_items(path, data))
            texts = [item for item in items if isinstance(item, str)]
            talks = [item for item in items if isinstance(item, tuple)]
            if not texts and not talks:
                raise DataError(f"{path}: no usable document in it, expected items, each {FORMS}")
            documents += texts
            dialogues += talks
            files.append(FileReport(path, len(texts), len(talks), items.count(None)))
    if not files:
        raise DataError("no data: name at least one .json, .jsonl or .txt file or folder")
    return Corpus(documents, dialogues, files, digest.hexdigest())


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


def _read_bytes(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            raise DataError(f"{path}: not a regular file; name a file or folder with data")
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
        numbered = _paragraphs(text.replace("\r\n", "\n").replace("\r", "\n"))
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


def _decode(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With utf-8-sig the position counts from behind the byte order mark.
        at = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, at) + 1
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


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Documents of a .txt file with the number of the line that each starts on."""
    lines: list[str] = []
    first = 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, "\n".join(lines)
            lines = []


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
