"""float32 arrays as decimal text and back, exactly; the loops are compiled (_codec.pyx)."""

from __future__ import annotations

from collections.abc import Callable

from cgpt.fileio import _codec
from cgpt.nn.arena import Floats

PIECE = 1 << 16  # numbers that are formatted at a time
_WINDOW = 1 << 20  # bytes of text that are read at a time

format_floats = _codec.format_floats


def parse_floats(text: bytes | memoryview, target: Floats) -> None:
    """Comma-separated JSON numbers into float32 `target`, as many as it has elements.

    Raises ValueError saying what is wrong.
    """
    _complete(_codec.parse_floats(text, target), target)


def read_floats(
    read: Callable[[int, int], bytearray], start: int, end: int, target: Floats
) -> None:
    """As `parse_floats`, of a text that `read(position, length)` gives, a piece at a time.

    start, end  the text's first byte and the one behind it
    """
    filled = 0
    while True:
        size = min(_WINDOW, end - start)
        text = read(start, size)
        if start + size == end:
            return _complete(_codec.parse_floats(text, target, filled), target)
        cut = text.rfind(b",")  # a number may go on in the next piece
        if cut < 0:
            raise ValueError("a malformed number")
        filled = _codec.parse_floats(memoryview(text)[:cut], target, filled)
        start += cut + 1


def _complete(filled: int, target: Floats) -> None:
    if filled != len(target):
        raise ValueError(f"{filled} numbers instead of {len(target)}")
