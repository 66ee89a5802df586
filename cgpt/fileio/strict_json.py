"""Strict JSON of bounded size, and long lists of float32 in it, which are read piece by piece."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgpt.errors import CheckpointError, Phrase, Templated, as_reason, foreign_text, shown
from cgpt.fileio._codec import crc32, skip_numbers
from cgpt.fileio._codec import parse_floats as _parse
from cgpt.fileio.file_errors import damaged, not_saved
from cgpt.fileio.open_file import OpenFile
from cgpt.locale import N_

_DEEPEST = 64  # nesting of a JSON part
_LONGEST = 1 << 24  # bytes of a JSON part
# Bytes that a part's Python objects may take; more only in a file that is itself as large.
PARSED_ROOM = 40_000_000
_LONGEST_OPEN = 1 << 12  # bytes of the opening of a list of numbers, spaces included
_WINDOW = 1 << 22  # bytes that are looked through at a time
_NUMBERS_WINDOW = 1 << 20  # bytes of numbers that are read at a time
PIECE = 1 << 16  # numbers that are formatted at a time

Pairs = list[tuple[str, Any]]


def dump_metadata(path: object, value: Any) -> str:
    """What the user wants to keep, as `dump_json` and so that `parse_json` takes it."""
    text = dump_json(path, "metadata", value)
    check_part_size(path, "metadata", text.encode("ascii"))
    try:
        parse_json(path, "metadata", f'{{"metadata": {text}}}'.encode("ascii"))
    except CheckpointError:
        raise not_saved(
            path,
            "metadata that could not be read again",
            Phrase(
                "objects whose names are different strings, nested less than {n} deep", n=_DEEPEST
            ),
            "change metadata",
        ) from None
    return text


def dump_json(path: object, what: str, value: Any) -> str:
    """Plain ASCII JSON. Raises CheckpointError (write) naming what JSON cannot hold."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        reason = foreign_text(
            str(error),
            N_("found {value}"),
            N_("keys must be str, int, float, bool or None, not {value}"),
            N_("Out of range float values are not JSON compliant: {value}"),
        )
        raise not_saved(
            path,
            Phrase("{what} that JSON cannot hold ({reason})", what=Phrase(what), reason=reason),
            "strings, finite numbers, lists and objects",
            Phrase("change {what}", what=Phrase(what)),
        ) from None


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"found {type(value).__name__}")


def parse_json(
    path: object,
    what: str,
    text: bytes | bytearray,
    make_object: Callable[[Pairs], Any] | None = None,
    *,
    encoding: str = "ascii",
    room: int = 0,
) -> Any:
    """Strict JSON: no NaN, no name twice in an object, bounded nesting, at most so many values.

    room  bytes that the file's own size allows the values besides
    Raises CheckpointError.
    """
    if parsed_size(text) > PARSED_ROOM + room:
        raise damaged(
            path, Phrase("{what} with more values than a model has", what=Phrase(what)), "fewer"
        )

    def build(pairs: Pairs) -> Any:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(Phrase("a name that occurs twice in one object"))
        return found if make_object is None else make_object(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(Phrase("the constant {name}", name=constant))

    try:
        value = json.loads(text.decode(encoding), object_pairs_hook=build, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(
            path,
            Phrase("{what} with {reason}", what=Phrase(what), reason=_described(error)),
            "strict JSON",
        ) from None
    if _too_deep(value):
        raise damaged(
            path,
            Phrase("{what} nested more than {n} deep", what=Phrase(what), n=_DEEPEST),
            Phrase("at most {n}", n=_DEEPEST),
        )
    return value


def check_part_length(path: object, what: str, length: int) -> None:
    """Bound what a JSON part makes a reader hold in memory, before it is read."""
    if length > _LONGEST:
        raise damaged(
            path,
            Phrase("{what} of {n} bytes", what=Phrase(what), n=length),
            Phrase("at most {n}", n=_LONGEST),
        )


def check_part_size(path: object, what: str, text: bytes) -> None:
    """Refuse to save a part that is too long to be read again, or has too many values."""
    if len(text) > _LONGEST or parsed_size(text) > PARSED_ROOM:
        raise not_saved(
            path,
            Phrase(
                "{what} of {n} bytes of JSON and {size} in memory",
                what=Phrase(what),
                n=len(text),
                size=parsed_size(text),
            ),
            Phrase("at most {n} and {size}", n=_LONGEST, size=PARSED_ROOM),
            Phrase("shorten {what}", what=Phrase(what)),
        )


def check_text_size(path: object, values: int, length: int) -> None:
    """Refuse to save a JSON file of `length` bytes with too many values but its numbers.

    values  the sum of `parsed_size` of its parts
    """
    if values > PARSED_ROOM + length:
        raise not_saved(
            path,
            Phrase("parts of {n} bytes in memory beside the numbers", n=values),
            Phrase("at most {n} in a file of this size", n=PARSED_ROOM + length),
            "make the model wider or the vocabulary smaller",
        )


def parsed_size(text: bytes | bytearray) -> int:
    """About the most bytes that the Python objects of a JSON text take while it is parsed."""
    count = text.count
    return (
        2 * len(text) + 100 * count(b"[") + 350 * count(b"{") + 250 * count(b":") + 60 * count(b",")
    )


def _described(error: Exception) -> Templated:
    if isinstance(error, json.JSONDecodeError):
        return Phrase("'{reason}' at character {at}", reason=Phrase(error.msg), at=error.pos)
    if isinstance(error, UnicodeDecodeError):
        return Phrase("bytes that are no text ({reason})", reason=Phrase(error.reason))
    return Phrase("too deep nesting") if isinstance(error, RecursionError) else as_reason(error)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def check_object(path: object, what: str, value: Any) -> dict[str, Any]:
    """`value` where it is a JSON object."""
    if not isinstance(value, dict):
        raise damaged(path, Phrase("{what} that is no JSON object", what=Phrase(what)), "an object")
    return value


def check_listed(path: object, found: Any) -> list[dict[str, Any]]:
    """A file's layers where each says its name, type and parameters, whatever these are."""
    if not isinstance(found, list):
        raise damaged(path, "layers that are no list of objects", "a list of objects")
    for number, one in enumerate(found, 1):
        values = [one.get(key) for key in ("name", "type")] if isinstance(one, dict) else [None]
        names = one.get("parameters") if isinstance(one, dict) else None
        if not isinstance(names, list) or not all(
            isinstance(text, str) for text in (*values, *names)
        ):
            raise damaged(
                path,
                Phrase("layer {n} as {value}", n=number, value=shown(one, 200)),
                "name, type and parameters",
            )
    return found


class Span(NamedTuple):
    """Where the numbers of a "data" list lie in the file: first byte and the one after."""

    start: int
    end: int


class Scan:
    """One pass over an open file: its checksum, and its text without the lists of numbers.

    crc       CRC-32 of all but the last `tail` bytes
    skeleton  the text with every "data": [numbers] as "data":"TOKEN:i"
    spans     where the numbers i lie
    The names of such lists are what the pattern `names` matches.
    """

    def __init__(self, source: OpenFile, tail: int = 0, names: bytes = b"data") -> None:
        self._open = re.compile(rb'(?<=[{,\s])"(' + names + rb')"\s*:\s*\[')
        self.token = secrets.token_hex(8)
        self.crc = 0
        self.skeleton = bytearray()
        self.spans: list[Span] = []
        self._source = source
        self._key = -1  # where the opening began whose numbers are looked through
        self._name = ""
        self._numbers = 0  # where they begin
        held, base, seen = b"", 0, 0  # the end of the window before, and where it lies
        for start in range(0, source.size, _WINDOW):
            piece = source.read(start, min(_WINDOW, source.size - start))
            self.crc = crc32(piece[: max(0, source.size - tail - start)], self.crc)
            text = held + piece
            at = self._scan_window(text, base, seen, start + len(piece) == source.size)
            seen = min(at, 1)  # one byte is kept: an opening must follow certain ones
            held, base = bytes(text[at - seen :]), base + at - seen
        if self._key >= 0:
            self._keep_text(source.size)

    def _scan_window(self, text: bytes | bytearray, base: int, at: int, last: bool) -> int:
        """Look through a window from `at` on; how far."""
        while True:
            if self._key >= 0:
                at = skip_numbers(text, at)
                if at == len(text):
                    return at
                if text[at] == ord("]"):
                    self.skeleton += f'"{self._name}":"{self.token}:{len(self.spans)}"'.encode()
                    self.spans.append(Span(self._numbers, base + at))
                    self._key, at = -1, at + 1
                else:
                    self._keep_text(base + at)
            found = self._open.search(text, at)
            if found is None:
                end = len(text) if last else max(at, len(text) - _LONGEST_OPEN)
                self.skeleton += text[at:end]
                return end
            self.skeleton += text[at : found.start()]
            self._key, self._numbers, at = base + found.start(), base + found.end(), found.end()
            self._name = found[1].decode()

    def _keep_text(self, end: int) -> None:
        """What began like a list of numbers and is none, up to `end`, stays as it is."""
        self.skeleton += self._source.read(self._key, end - self._key)
        self._key = -1


def parse_floats(text: bytes | memoryview, target: NDArray[np.float32]) -> None:
    """Comma-separated JSON numbers into float32 `target`, as many as it has elements.

    Raises ValueError saying what is wrong.
    """
    _complete(_parse(text, target), target)


def read_floats(
    read: Callable[[int, int], bytearray], start: int, end: int, target: NDArray[np.float32]
) -> None:
    """As `parse_floats`, of a text that `read(position, length)` gives, a piece at a time.

    start, end  the text's first byte and the one after it
    """
    filled = 0
    while True:
        size = min(_NUMBERS_WINDOW, end - start)
        text = read(start, size)
        if start + size == end:
            return _complete(_parse(text, target, filled), target)
        cut = text.rfind(b",")  # a number may continue in the next piece
        if cut < 0:
            raise ValueError(Phrase("a malformed number"))
        filled = _parse(memoryview(text)[:cut], target, filled)
        start += cut + 1


def _complete(filled: int, target: NDArray[np.float32]) -> None:
    if filled != len(target):
        raise ValueError(Phrase("{n} numbers instead of {wanted}", n=filled, wanted=len(target)))
