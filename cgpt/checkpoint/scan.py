"""A JSON file's text without its long lists of numbers, which stay in the file until wanted."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from cgpt.checkpoint.reader import Source
from cgpt.fileio._codec import crc32, skip_numbers

_LONGEST_OPEN = 1 << 12  # bytes of such an opening, spaces included
_WINDOW = 1 << 22  # bytes that are looked through at a time


class Span(NamedTuple):
    """Where the numbers of a "data" list lie in the file: first byte and the one behind."""

    start: int
    end: int


class Scan:
    """One pass over an open file: its checksum, and its text without the lists of numbers.

    crc       CRC-32 of all but the last `tail` bytes
    skeleton  the text with every "data": [numbers] as "data":"TOKEN:i"
    spans     where the numbers i lie
    The names of such lists are what the pattern `names` matches.
    """

    def __init__(self, source: Source, tail: int = 0, names: bytes = b"data") -> None:
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
            at = self._look(text, base, seen, start + len(piece) == source.size)
            seen = min(at, 1)  # one byte is kept: an opening must follow certain ones
            held, base = bytes(text[at - seen :]), base + at - seen
        if self._key >= 0:
            self._give_up(source.size)

    def _look(self, text: bytes | bytearray, base: int, at: int, last: bool) -> int:
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
                    self._give_up(base + at)
            found = self._open.search(text, at)
            if found is None:
                end = len(text) if last else max(at, len(text) - _LONGEST_OPEN)
                self.skeleton += text[at:end]
                return end
            self.skeleton += text[at : found.start()]
            self._key, self._numbers, at = base + found.start(), base + found.end(), found.end()
            self._name = found[1].decode()

    def _give_up(self, end: int) -> None:
        """What began like a list of numbers and is none, up to `end`, stays as it is."""
        self.skeleton += self._source.read(self._key, end - self._key)
        self._key = -1
