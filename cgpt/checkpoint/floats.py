"""float32 arrays as decimal text and back, exactly, many numbers at a time.

Every number gets the fewest digits (at most nine) that lie inside the interval of decimals which
round to it, by a margin of 1e-6 of the interval. The margin is far more than the rounding errors
of the search, and enough that a reader may parse to float64 first and round to float32 then. So
the text is the shortest one except where a shorter decimal lies on the border of the interval.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from cgpt.arena import Floats

PIECE = 1 << 16                         # numbers at a time: the temporaries stay in the cache
_LEAST_EXPONENT = -40
_POWERS = np.array([float(f"1e{k}") for k in range(_LEAST_EXPONENT, 60)])
_MARGIN = 1 - 1e-6
# One row a number: sign, "0.", up to four zeros, digit, ".", eight digits, "e-45", ",".
_SIGN, _ZERO, _FIRST, _POINT, _REST, _EXPONENT, _COMMA = 0, 1, 7, 8, 9, 17, 21
_READ = 1 << 20                         # bytes of text parsed at a time
_NUMERIC = b"0123456789+-.eE, \t\r\n"


def format_floats(values: Floats) -> bytes:
    """Finite float32 (n,) as "0.125,-1.0,...,", each with a comma behind it."""
    magnitude = np.abs(values)
    zero = magnitude == 0
    digits, exponent = _shortest(np.where(zero, np.float32(1), magnitude))
    digits[zero] = 0
    rows = np.zeros((_COMMA + 1, len(values)), np.uint8)
    np.multiply(np.signbit(values), np.uint8(ord("-")), out=rows[_SIGN])
    small = (exponent < 0) & (exponent >= -5)           # as 0.00123, without an exponent
    shown = (small, small, *(small & (exponent <= -zeros) for zeros in (2, 3, 4, 5)))
    for slot, where in enumerate(shown, _ZERO):
        np.multiply(where, np.uint8(ord("." if slot == _ZERO + 1 else "0")), out=rows[slot])
    _put_digits(rows, digits, small, exponent)
    _put_exponents(rows, exponent, np.flatnonzero(~small & (exponent != 0)))
    rows[_COMMA] = ord(",")
    return np.ascontiguousarray(rows.T).tobytes().translate(None, b"\0")


def _shortest(x: Floats) -> tuple[NDArray[np.uint32], NDArray[np.int8]]:
    """For positive x: nine decimal digits d (trailing ones zero) and e, x ~ d * 10**(e - 8)."""
    value = x.astype(np.float64)
    exponent = np.floor(np.log10(value)).astype(np.int64)
    for _ in range(2):                  # the logarithm may be one off at powers of ten
        scale = _POWERS[8 - _LEAST_EXPONENT - exponent]
        scaled = value * scale
        off = (scaled >= 999_999_999.5).astype(np.int64) - (scaled < 99_999_999.5)
        if not off.any():
            break
        exponent += off
    below = (x.view(np.int32) - 1).view(np.float32)
    half_gap = (value - below) * scale * (0.5 * _MARGIN)
    digits = np.rint(scaled)
    for power in (1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8):
        shorter = np.rint(scaled / power) * power
        inside = np.abs(shorter - scaled) < half_gap
        if not inside.any():
            break
        digits = np.where(inside, shorter, digits)
    carried = digits >= 1e9
    exponent += carried
    return np.where(carried, 1e8, digits).astype(np.uint32), exponent.astype(np.int8)


def _put_digits(rows: NDArray[np.uint8], digits: NDArray[np.uint32], small: NDArray[np.bool_],
                exponent: NDArray[np.int8]) -> None:
    """Write the digits up to the last that is not zero, and the point after the first."""
    unscaled = exponent == 0            # as 1.25: at least one digit after the point
    shown = np.zeros(len(digits), bool)
    for place in range(8, -1, -1):
        rest = digits // np.uint32(10)
        digit = (digits - rest * np.uint32(10)).astype(np.uint8)
        shown |= digit != 0
        if place == 1:
            np.multiply(~small & (shown | unscaled), np.uint8(ord(".")), out=rows[_POINT])
            shown |= unscaled
        if place == 0:
            shown[:] = True
        slot = _REST + place - 1 if place else _FIRST
        np.multiply(digit + np.uint8(ord("0")), shown, out=rows[slot])
        digits = rest


def _put_exponents(rows: NDArray[np.uint8], exponent: NDArray[np.int8],
                   where: NDArray[np.int64]) -> None:
    """Write e-7, e12, ... in the given columns."""
    size = np.abs(exponent[where]).astype(np.uint8)
    rows[_EXPONENT, where] = ord("e")
    rows[_EXPONENT + 1, where] = (exponent[where] < 0) * np.uint8(ord("-"))
    rows[_EXPONENT + 2, where] = (size // 10 + np.uint8(ord("0"))) * (size >= 10)
    rows[_EXPONENT + 3, where] = size % 10 + np.uint8(ord("0"))


def parse_floats(text: memoryview, target: Floats) -> None:
    """Comma-separated JSON numbers into float32 `target`, as many as it has elements.

    Raises ValueError saying what is wrong.
    """
    position = filled = 0
    while position < len(text):
        piece = bytes(text[position:position + _READ])
        last = position + len(piece) == len(text)
        cut = len(piece) if last else piece.rfind(b",")
        numbers = _parse_piece(piece[:cut] if cut > 0 else b"")
        if filled + len(numbers) > len(target):
            raise ValueError(f"more than {len(target)} numbers")
        part = target[filled:filled + len(numbers)]
        with np.errstate(over="ignore"):
            part[:] = numbers
        if not np.isfinite(part).all():
            raise ValueError("a number that is too large for float32")
        filled += len(numbers)
        position += cut + (not last)
    if filled != len(target):
        raise ValueError(f"{filled} numbers instead of {len(target)}")


def _parse_piece(piece: bytes) -> list[float]:
    if piece.translate(None, _NUMERIC) or not piece.strip():
        raise ValueError("something else than numbers")
    try:
        # parse_int: an integer would lose the sign of -0 and may be too large for a float.
        return json.loads(b"[" + piece + b"]", parse_int=float)
    except json.JSONDecodeError:
        raise ValueError("a malformed number") from None
