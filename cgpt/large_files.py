"""Items of a file too large to hold, read from its beginning to its end in little memory.

The same items and, where something is wrong, the same sentences as cgpt/readers.py has for a file
that is read whole; only the column in broken JSON is left out. A document of a .txt file ends at
the latest after LONGEST_TEXT characters.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_CHUNK = 1 << 20        # characters that are read at a time
_LONGEST = 1 << 24      # characters of an item
LONGEST_TEXT = 1 << 21  # characters of a document of a .txt file
_BLANKS = " \t\r\n"      # of JSON, which knows no others
_GAP = re.compile(f"[{_BLANKS}]*")


class Broken(Exception):
    """JSON that cannot be read; args are (line, what is wrong)."""


class _Hashed(io.FileIO):
    """A file whose bytes go into a hash as they are read."""

    def __init__(self, path: str, digest: Any) -> None:
        super().__init__(path)
        self._digest = digest

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:size])
        return size


def _open(path: str, digest: Any, newline: str | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(_Hashed(path, digest), 1 << 20), "utf-8-sig",
                            newline=newline)


def is_list(path: str) -> bool:
    """Whether a .json file begins as a list. Raises OSError."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        while (char := file.read(1)) and char in _BLANKS:
            pass
    return char == "["


def text_lines(path: str, digest: Any, longest: int = -1) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; its bytes go into `digest`.

    longest  characters after which a line is cut; then \\r and \\r\\n end lines as \\n does
    Raises UnicodeDecodeError, OSError.
    """
    with _open(path, digest, "\n" if longest < 0 else None) as file:
        while line := file.readline(longest):
            yield line.removesuffix("\n")


def first_wrong_line(path: str) -> tuple[int, bytes]:
    """(number, bytes) of the first line that is no UTF-8, as `text_lines` met it."""
    number = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number, line
    return number, b""


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


def listed(path: str, digest: Any) -> Iterator[tuple[int, int, Any]]:
    """(number of the item, line it starts on, value) of every item of a JSON list.

    Its bytes go into `digest`. Raises Broken, UnicodeDecodeError, OSError.
    """
    with _open(path, digest, "") as file:
        window = _Window(file)
        window.next_sign()
        window.skip(1)      # "[", see is_list
        number = 0
        if window.next_sign() == "]":
            window.skip(1)
        else:
            while True:
                number += 1
                window.next_sign()
                line = window.line
                yield number, line, window.value()
                sign = window.next_sign()
                window.skip(1)
                if sign == "]":
                    break
                if sign != ",":
                    raise Broken(window.line, f"expected ',' or ']', found {sign!r}")
        if window.next_sign():
            raise Broken(window.line, "something behind the end of the list")


class _Window:
    """The part of a text that is looked at; `line` is that of its start."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file, self._text, self._at = file, "", 0
        self.line = 1

    def skip(self, size: int) -> None:
        """Go on by `size` characters, which hold no line end."""
        self._at += size

    def _more(self) -> bool:
        """Read on, and forget what lies behind."""
        chunk = self._file.read(_CHUNK)
        self._text, self._at = self._text[self._at:] + chunk, 0
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
        scan = json.JSONDecoder().raw_decode
        while True:
            try:
                value, end = scan(self._text, self._at)
                # A number at the end of the window may go on.
                if end < len(self._text):
                    self.line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
                wrong = "the end of the file"
            except json.JSONDecodeError as error:
                wrong = error.msg
            except (RecursionError, ValueError) as error:
                raise Broken(self.line, "too deep nesting" if isinstance(error, RecursionError)
                             else "too long a number") from None
            # What is wrong may only be that the value goes on behind the window.
            if len(self._text) - self._at > _LONGEST or not self._more():
                raise Broken(self.line, wrong)
