"""Files of every accepted form -> documents and dialogues, their text unaltered.

.json    a list (or an object with one list in it, or one object) of items
.jsonl   one item a line
.txt     documents between blank lines; CRLF and CR become LF
.csv, .tsv, .parquet  one item a row
What an item may be: cgpt/corpus/records.py; how files are found and unpacked:
cgpt/corpus/files.py. All texts are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cgpt.corpus._digest_set import Seen
from cgpt.corpus.files import (
    NAMES,
    find_files,
    first_wrong_line,
    hash_file,
    is_inside,
    not_utf8,
    open_data,
    size_of,
    suffixes_of,
    unpacked_size,
)
from cgpt.corpus.invalid_rows import InvalidRows, invalid_row
from cgpt.corpus.records import (
    FORMS,
    Dialogue,
    Unusable,
    is_item,
    keys_of,
    kind_of,
    n_characters,
    read_item,
)
from cgpt.corpus.table_rows import csv_rows, parquet_rows, parquet_size
from cgpt.corpus.text_rows import (
    LONGEST_TEXT,
    Broken,
    Parser,
    Row,
    broken_json,
    is_list,
    json_lines,
    listed,
    paragraphs,
    text_lines,
    unreadable_json,
)
from cgpt.errors import DataError, Phrase
from cgpt.validation import check_bool, check_names, path_list, plain

LARGE = 1 << 24  # bytes of a .json file that is not read at once
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_MOST_AT_ONCE = 1 << 26  # bytes of a packed .json file that is no list


@dataclass(frozen=True)
class FileReport:
    """What a file gave, or why it was skipped.

    documents, dialogues  kept;  characters  of their texts;  bytes  of the file
    dropped     strings without text;  duplicates  exact duplicates of items before
    invalid     rows that cannot be used
    changes     how often each of `cgpt.corpus.records.CHANGES` was made in what is kept
    """

    path: str
    documents: int = 0
    dialogues: int = 0
    dropped: int = 0
    skipped: str = ""
    duplicates: int = 0
    characters: int = 0
    bytes: int = 0
    invalid: int = 0
    changes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """All that was read, in order; fingerprint is a SHA-256 over the files' contents.

    invalid  the rows that were left out because they cannot be used
    """

    documents: list[str]
    dialogues: list[Dialogue]
    files: list[FileReport]
    fingerprint: str
    invalid: InvalidRows = field(default_factory=InvalidRows)

    def __repr__(self) -> str:
        return (
            f"Corpus({len(self.documents)} documents, {len(self.dialogues)} dialogues of "
            f"{len(self.files)} files)"
        )

    def texts(self) -> list[str]:
        """Every document and every message's content, to learn a vocabulary from."""
        return self.documents + [
            message.content for dialogue in self.dialogues for message in dialogue
        ]


class Reading:
    """Documents and dialogues of files and folders, one by one, each file once.

    Folders are read in natural order (file2 before file10). In a folder, hidden files are left
    out; files with other suffixes, README.txt, LICENSE.txt, COPYING.txt, NOTICE.txt and the folder
    licenses are skipped and reported. A .json file of more than `large` bytes is read a little at
    a time, all others always are. Iterating raises DataError that names file, line and what was
    found, where a file cannot be read; afterwards `files`, `fingerprint` and `invalid` are those
    of a Corpus.

    Rows that cannot be used are collected from all files; then InvalidRowsError is raised.
    skip_invalid  leave them out; InvalidRowsError is raised only of a file with nothing else in it
    unique   leave out exact duplicates
    suffixes  those of the files that folders are read for; () for all that are known
    as_text  whether strings are documents even where they look like a dialogue: in all files, or
             in those named and in folders named
    """

    def __init__(
        self,
        paths: Paths,
        *,
        unique: bool = False,
        large: int = LARGE,
        skip_invalid: bool = False,
        as_text: bool | Paths = False,
        suffixes: Sequence[str] = (),
    ) -> None:
        self._paths = _listed_paths(paths)
        self._suffixes = check_names("read_corpus", "suffixes", suffixes)
        self._large = large
        self._unique = check_bool("read_corpus", "unique", unique)
        self._skip_invalid = check_bool("read_corpus", "skip_invalid", skip_invalid)
        as_text = plain(as_text)
        self._as_text: bool | list[str] = (
            as_text
            if isinstance(as_text, bool)
            else [os.path.realpath(path) for path in _listed_paths(as_text)]
        )
        self.files: list[FileReport] = []
        self.fingerprint = ""
        self.invalid = InvalidRows()

    @property
    def reading_options(self) -> str:
        """Which files are read as texts: besides their contents, all that decides the result."""
        flags = [
            self._is_text(path)
            for path, skipped in find_files(self._paths, self._suffixes)
            if not skipped
        ]
        return "".join("ft"[flag] for flag in flags) if any(flags) else ""

    def __iter__(self) -> Iterator[str | Dialogue]:
        self.files.clear()
        self.invalid = InvalidRows()
        seen = Seen() if self._unique else None
        digest = hashlib.sha256()
        for path, skipped in find_files(self._paths, self._suffixes):
            if skipped:
                self.files.append(FileReport(path, skipped=skipped))
            else:
                yield from self._file(path, digest, seen)
        if not self.files:
            raise DataError(
                "no data: name at least one file or folder ({suffixes})", suffixes=NAMES
            )
        if self.invalid and not self._skip_invalid:
            raise self.invalid.error()
        self.fingerprint = digest.hexdigest()

    def _file(self, path: str, digest: Any, seen: Seen | None) -> Iterator[str | Dialogue]:
        """The items of one file that are not in `seen`; its hash goes into `digest`, its report
        into `files`."""
        size, content = size_of(path), hashlib.sha256()
        as_text = self._is_text(path)
        texts, dialogues, dropped, duplicates, characters = 0, 0, 0, 0, 0
        invalid_before = len(self.invalid)
        changes: dict[str, int] = {}
        for row in _rows(path, size > self._large, content):
            try:
                if row.fault is not None:
                    raise row.fault
                item = read_item(row.value, as_text=as_text, changes=changes)
            except Unusable as fault:
                self.invalid.add(invalid_row(path, row.where(), row.line, fault))
                continue
            if item is None:
                dropped += 1
            elif seen is not None and not seen.add(digest_of(item)):
                duplicates += 1
            else:
                dialogues += isinstance(item, tuple)
                texts += isinstance(item, str)
                characters += n_characters(item)
                if self._skip_invalid or not self.invalid:  # else all is read to be refused
                    yield item
        digest.update(content.digest())
        invalid = len(self.invalid) - invalid_before
        nothing = not (texts or dialogues or duplicates)
        if nothing and (not invalid or self._skip_invalid):
            raise self._nothing_in(path, dropped, invalid)
        self.files.append(
            FileReport(
                path,
                texts,
                dialogues,
                dropped,
                duplicates=duplicates,
                characters=characters,
                bytes=size,
                invalid=invalid,
                changes={name: count for name, count in changes.items() if count},
            )
        )

    def _is_text(self, path: str) -> bool:
        if isinstance(self._as_text, bool):
            return self._as_text
        real = os.path.realpath(path)
        return any(is_inside(real, folder) for folder in self._as_text)

    def _nothing_in(self, path: str, dropped: int, invalid: int) -> DataError:
        """What to raise of a file that gave nothing."""
        if invalid:
            return self.invalid.nothing_in(path, invalid)
        if not dropped and suffixes_of(path)[0] in (".jsonl", ".txt"):
            return _empty(path)
        return DataError(
            "{path}: no usable document in it, expected items, each {expected}",
            path=path,
            expected=FORMS,
        )


def read_corpus(
    paths: Paths,
    *,
    unique: bool = False,
    skip_invalid: bool = False,
    as_text: bool | Paths = False,
    suffixes: Sequence[str] = (),
) -> Corpus:
    """All that `Reading` gives, in memory. Options and errors as there."""
    reading = Reading(
        paths, unique=unique, skip_invalid=skip_invalid, as_text=as_text, suffixes=suffixes
    )
    documents: list[str] = []
    dialogues: list[Dialogue] = []
    for item in reading:
        if isinstance(item, str):
            documents.append(item)
        else:
            dialogues.append(item)
    return Corpus(documents, dialogues, reading.files, reading.fingerprint, reading.invalid)


def _listed_paths(paths: Paths) -> list[str]:
    return path_list("read_corpus", paths)


def data_size(path: str, most: int) -> int:
    """Bytes that reading a file gives; those of a packed one are counted up to `most`.

    Raises DataError.
    """
    return parquet_size(path) if suffixes_of(path)[0] == ".parquet" else unpacked_size(path, most)


def fingerprint_of(paths: Paths, suffixes: Sequence[str] = ()) -> str:
    """What `Reading.fingerprint` will be. Raises DataError."""
    digest = hashlib.sha256()
    for path, skipped in find_files(_listed_paths(paths), suffixes):
        if not skipped:
            size_of(path)  # a pipe would be waited for
            digest.update(hash_file(path))
    return digest.hexdigest()


def changed_while_read() -> DataError:
    """What to raise where a file is no longer what it was at the beginning."""
    return DataError(
        "a data file was changed while it was read; start again when nothing writes to the data"
    )


def digest_of(item: str | Dialogue) -> bytes:
    """16 bytes that say what an item is."""
    text = (
        item
        if isinstance(item, str)
        else "\0".join(part for message in item for part in (message.role, message.content))
    )
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"),
        digest_size=16,
        key=b"" if isinstance(item, str) else b"dialogue",
    ).digest()


def _empty(path: str) -> DataError:
    return DataError("{path}: the file is empty; put documents or dialogues into it", path=path)


def _rows(path: str, large: bool, digest: Any) -> Iterator[Row]:
    """Every row of a file, whose bytes go into `digest`. Raises DataError."""
    suffix, packing = suffixes_of(path)
    large = large or bool(packing)
    if suffix == ".parquet":
        yield from parquet_rows(path, digest)
        return
    if suffix == ".json" and not _begins_as_list(path):
        yield from _items_of_object(path, _all_of(path, digest))
        return
    try:
        with open_data(path, digest) as (file, _):
            if suffix == ".json":
                yield from listed(file)
            elif suffix == ".jsonl":
                yield from json_lines(file)
            elif suffix == ".txt":
                lines = text_lines(file, LONGEST_TEXT if large else -1)
                yield from (Row("line {line}", number, text) for number, text in paragraphs(lines))
            else:
                yield from csv_rows(path, file, *[["\t"]] * (suffix == ".tsv"))
    except Broken as error:
        if not large:
            _parse(path, _decode(path, _all_of(path, digest)), Parser())  # names the column
        line, reason = error.args
        raise DataError(
            "{path}, line {line}: JSON that cannot be read ({reason}); mend the file",
            path=path,
            line=line,
            reason=reason,
        ) from None
    except UnicodeDecodeError:
        # Where no line is wrong any more, somebody writes to the file.
        raise (first_wrong_line(path) or changed_while_read()) from None


def _begins_as_list(path: str) -> bool:
    with open_data(path, hashlib.sha256(), whole=False) as (file, _):
        return is_list(file)


def _all_of(path: str, digest: Any) -> bytes:
    """The bytes of a file that has to be read at once; a packed one holds at most _MOST_AT_ONCE."""
    packed = bool(suffixes_of(path)[1])
    with open_data(path, digest) as (file, _):
        data = file.read(_MOST_AT_ONCE + 1) if packed else file.read()
        if packed and len(data) > _MOST_AT_ONCE:
            raise DataError(
                "{path}: an object of more than {n} bytes unpacked; unpack the file, or "
                "make a list of its items",
                path=path,
                n=_MOST_AT_ONCE,
            )
        return data


def _items_of_object(path: str, data: bytes) -> Iterator[Row]:
    """The items of a .json file that is no list: an object around one, or one item."""
    text = _decode(path, data)
    if not text.strip():
        raise _empty(path)
    parser = Parser()
    items = _listed(path, _parse(path, text, parser), parser)
    for number, value in enumerate(items, 1):
        yield Row("item {n}", 0, value, parser.fault(value), number)


def _decode(path: str, data: bytes) -> str:
    """The text of a file. Raises DataError that names line and byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With utf-8-sig the position counts from after the byte order mark.
        at = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
    line, start = data.count(b"\n", 0, at) + 1, data.rfind(b"\n", 0, at) + 1
    rest = data[start:].split(b"\n", 1)[0]
    raise DataError(
        "{path}, line {line}: {reason}", path=path, line=line, reason=not_utf8(rest, at - start)
    )


def _parse(path: str, text: str, parser: Parser) -> Any:
    """The value of a JSON text. Raises DataError that names file, line and column."""
    try:
        return parser.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(
            "{path}, line {line}, column {column}: {reason}{guess}",
            path=path,
            line=error.lineno,
            column=error.colno,
            reason=broken_json(text, error),
            guess=Phrase(
                ", or call it .jsonl where it has one object a line"
                if error.msg == "Extra data"
                else ""
            ),
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError("{path}: {reason}", path=path, reason=unreadable_json(error)) from None


def _listed(path: str, value: Any, parser: Parser) -> list[Any]:
    """The items of a .json file that holds no list."""
    if not isinstance(value, dict):
        raise DataError(
            "{path}: found {found}, expected a list of items; an item is {expected}",
            path=path,
            found=kind_of(value),
            expected=FORMS,
        )
    if is_item(value):
        return [value]
    lists = [entry for entry in value.values() if isinstance(entry, list)]
    if len(lists) != 1:
        raise DataError(
            "{path}: found {found}, expected a list of items, or an object with one such list; "
            "an item is {expected}",
            path=path,
            found=Phrase("an object with {what}", what=keys_of(value)),
            expected=FORMS,
        )
    fault = parser.own_fault(value)
    if fault is not None:  # which of the lists is meant?
        raise DataError("{path}: in the object around the list {reason}", path=path, reason=fault)
    return lists[0]
