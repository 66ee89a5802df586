"""Rows of a file, read from its beginning to its end in little memory.

Where something is wrong the sentences are those of cgpt/corpus/reader.py for a .json file that is
read whole; only the column in broken JSON is left out. A document of a .txt file ends at the latest
after LONGEST_TEXT characters.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from cgpt.corpus.files import LONGEST_LINE, byte_lines, not_utf8
from cgpt.corpus.records import Unusable
from cgpt.errors import Phrase, shown
from cgpt.locale import N_

_CHUNK = 1 << 20  # characters that are read at a time
_LONGEST = 1 << 24  # characters of an item
LONGEST_TEXT = 1 << 21  # characters of a document of a .txt file
_BLANKS = " \t\r\n"  # of JSON, which knows no others
_GAP = re.compile(f"[{_BLANKS}]*")


class Broken(Exception):
    """JSON that cannot be read; args are (line, what is wrong: a Phrase)."""


class Row(NamedTuple):
    """What stands at one place of a file: a value, or why there is none.

    place  template of `InvalidRow.place`, whose fields are line, number and column, as far as known
    """

    place: str
    line: int
    value: Any = None
    fault: Unusable | None = None
    number: int = 0
    column: int = 0

    def where(self) -> Phrase:
        """The place with its fields."""
        return Phrase(self.place, line=self.line, n=self.number, column=self.column)


class Parser:
    """JSON whose objects may repeat a key; which ones do is kept until `forget`."""

    def __init__(self) -> None:
        self._repeated: list[tuple[dict[str, Any], str]] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.scan = self._decoder.raw_decode
        self.decode = self._decoder.decode

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self._repeated.append((found, key))
                    break
                seen.add(key)
        return found

    def forget(self) -> None:
        """Begin with another text."""
        if self._repeated:
            self._repeated = []

    def fault(self, value: Any) -> Unusable | None:
        """The fault of a value in which an object has a key twice; None where there is none."""
        return self._fault_in(value) if self._repeated else None

    def own_fault(self, value: dict[str, Any]) -> Unusable | None:
        """The same of an object by itself, whatever it holds."""
        for one, key in self._repeated:
            if one is value:
                return Unusable(
                    "the key {name} occurs twice in one object; remove one of the two",
                    code="repeated_key",
                    name=shown(key),
                )
        return None

    def _fault_in(self, value: Any) -> Unusable | None:
        found = None
        if isinstance(value, dict):
            found, value = self.own_fault(value), value.values()
        elif not isinstance(value, list):
            return None
        for entry in value:
            found = found or self._fault_in(entry)
        return found


def is_list(file: BinaryIO) -> bool:
    """Whether a .json file begins as a list."""
    with decoded(file, errors="replace") as text:
        while (char := text.read(1)) and char in _BLANKS:
            pass
    return char == "["


@contextmanager
def decoded(
    file: BinaryIO, newline: str | None = None, errors: str = "strict"
) -> Iterator[io.TextIOWrapper]:
    """The text of a UTF-8 file, which stays open."""
    text = io.TextIOWrapper(file, "utf-8-sig", errors, newline)
    try:
        yield text
    finally:
        text.detach()


def text_lines(file: BinaryIO, longest: int = -1) -> Iterator[str]:
    """The lines of a UTF-8 text without their ends; \\r and \\r\\n end lines as \\n does.

    longest  characters after which a line is cut, -1 for none
    Raises UnicodeDecodeError.
    """
    with decoded(file) as text:
        while line := text.readline(longest):
            yield line.removesuffix("\n")


def json_lines(file: BinaryIO) -> Iterator[Row]:
    """A row for every line of a .jsonl file that is not blank."""
    parser = Parser()
    for number, line in enumerate(byte_lines(file), 1):
        if line is None:
            yield Row(
                "line {line}",
                number,
                fault=Unusable(
                    "a row of more than {n} bytes; divide it", code="too_large", n=LONGEST_LINE
                ),
            )
            continue
        try:
            text = line.decode("utf-8")
            if not text.strip():
                continue
            parser.forget()
            value = parser.decode(text)
            yield Row("line {line}", number, value, parser.fault(value))
        except UnicodeDecodeError as error:
            yield Row("line {line}", number, fault=not_utf8(line, error.start))
        except json.JSONDecodeError as error:
            place, fault = N_("line {line}, column {column}"), broken_json(text, error)
            yield Row(place, number, fault=fault, column=error.colno)
        except (RecursionError, ValueError) as error:
            yield Row("line {line}", number, fault=unreadable_json(error))


def broken_json(text: str, error: json.JSONDecodeError) -> Unusable:
    """What is wrong with a JSON text, and what to do."""
    return Unusable(
        "broken JSON ({reason}), found {text}; mend the file"
        if error.pos < len(text)
        else "broken JSON ({reason}), found the end; mend the file",
        code="json",
        reason=Phrase(error.msg),
        text=repr(text[error.pos : error.pos + 20]),
    )


def unreadable_json(error: Exception) -> Unusable:
    """The same of JSON that is beyond what Python reads."""
    return Unusable(
        "JSON that cannot be read ({reason}); mend the file", code="json", reason=_beyond(error)
    )


def _beyond(error: Exception) -> Phrase:
    nested = isinstance(error, RecursionError)
    return Phrase("too deep nesting" if nested else "too long a number")


def paragraphs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Documents between blank lines, with the number of the line that each starts on."""
    held: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(lines, 1):
        blank = not line.strip()
        if held and (blank or size >= LONGEST_TEXT):
            yield first, "\n".join(held)
            held, size = [], 0
        if not blank:
            first = first if held else number
            held.append(line)
            size += len(line)
    if held:
        yield first, "\n".join(held)


def listed(file: BinaryIO) -> Iterator[Row]:
    """A row for every item of a JSON list. Raises Broken, UnicodeDecodeError."""
    parser = Parser()
    with decoded(file, "") as text:
        window = _Window(text, parser)
        window.next_sign()
        window.skip(1)  # "[", see is_list
        number = 0
        if window.next_sign() == "]":
            window.skip(1)
        else:
            while True:
                number += 1
                window.next_sign()
                line = window.line
                value = window.value()
                yield Row("item {n} (line {line})", line, value, parser.fault(value), number)
                sign = window.next_sign()
                window.skip(1)
                if sign == "]":
                    break
                if sign != ",":
                    raise Broken(
                        window.line, Phrase("expected ',' or ']', found {sign}", sign=repr(sign))
                    )
        if window.next_sign():
            raise Broken(window.line, Phrase("something behind the end of the list"))


class _Window:
    """The part of a text that is looked at; `line` is that of its start."""

    def __init__(self, file: io.TextIOBase, parser: Parser) -> None:
        self._file, self._text, self._at = file, "", 0
        self._parser = parser
        self.line = 1

    def skip(self, size: int) -> None:
        """Go on by `size` characters, which hold no line end."""
        self._at += size

    def _more(self) -> bool:
        """Read on, and discard what was read."""
        chunk = self._file.read(_CHUNK)
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def next_sign(self) -> str:
        """The next character that is no blank, which stays; "" at the end."""
        while True:
            gap = _GAP.match(self._text, self._at)
            end = gap.end() if gap else self._at
            self.line += self._text.count("\n", self._at, end)
            self._at = end
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The JSON value that begins here. Raises Broken."""
        while True:
            try:
                self._parser.forget()
                value, end = self._parser.scan(self._text, self._at)
                # A number at the end of the window may continue.
                if end < len(self._text):
                    self.line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
                wrong = Phrase("the end of the file")
            except json.JSONDecodeError as error:
                wrong = Phrase(error.msg)
            except (RecursionError, ValueError) as error:
                raise Broken(self.line, _beyond(error)) from None
            # What is wrong may only be that the value continues after the window.
            if len(self._text) - self._at > _LONGEST or not self._more():
                raise Broken(self.line, wrong)
