"""Curves drawn with characters: a sparkline of one row, a chart of several series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
BRAILLE = 0x2800
# Bit of the dot in column x (of 2), row y (of 4) of a braille character.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
Points = Sequence[tuple[float, float]]


def means(values: Sequence[float], count: int) -> list[float]:
    """At most `count` means of neighbours, in order; values that are not finite are left out."""
    found = [value for value in values if math.isfinite(value)]
    if len(found) <= count:
        return found
    edges = [round(i * len(found) / count) for i in range(count + 1)]
    return [math.fsum(found[a:b]) / (b - a) for a, b in pairwise(edges)]


def sparkline(values: Sequence[float], width: int) -> str:
    """The values in one row of at most `width` cells, the lowest one as the lowest bar."""
    found = means(values, max(width, 1))
    if not found:
        return ""
    low, high = min(found), max(found)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in found)


class Canvas:
    """Braille dots in `width` by `height` characters; (0, 0) is the upper left dot."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.cells = [[0] * width for _ in range(height)]
        self.owner: list[list[int]] = [[-1] * width for _ in range(height)]

    def dot(self, x: int, y: int, owner: int) -> None:
        """Set the dot x of 2 * width, y of 4 * height; a character belongs to its last owner."""
        self.cells[y // 4][x // 2] |= DOTS[x % 2][y % 4]
        self.owner[y // 4][x // 2] = owner

    def row(self, y: int) -> list[tuple[str, int]]:
        """The characters of a row with their owners, -1 for none."""
        return [
            (chr(BRAILLE + bits) if bits else " ", owner)
            for bits, owner in zip(self.cells[y], self.owner[y], strict=True)
        ]


def chart(series: Sequence[Points], width: int, height: int) -> list[list[tuple[str, int]]]:
    """Rows of (text, series or -1): the curves over a left scale and a lower one.

    series  (x, y) pairs in the order of x; what is not finite is left out
    width, height  characters in all, at least 20 by 4
    Empty where there is no point.
    """
    found = [[(x, y) for x, y in one if math.isfinite(x) and math.isfinite(y)] for one in series]
    points = [point for one in found for point in one]
    if not points:
        return []
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    labels = [short(high), short((low + high) / 2), short(low)]
    margin = max(map(len, labels))
    canvas = Canvas(max(width - margin - 2, 8), max(height - 2, 2))
    for owner, one in enumerate(found):
        _draw(canvas, owner, one, (left, right, low, high))
    rows: list[list[tuple[str, int]]] = []
    for y in range(canvas.height):
        at = {0: labels[0], canvas.height // 2: labels[1], canvas.height - 1: labels[2]}
        rows.append([(f"{at.get(y, ''):>{margin}} │", -1), *canvas.row(y)])
    first, last = short(left), short(right)
    gap = canvas.width - len(first) - len(last)
    rows.append([(" " * margin + " └" + "─" * canvas.width, -1)])
    rows.append([(" " * (margin + 2) + first + " " * max(gap, 1) + last, -1)])
    return rows


def _draw(canvas: Canvas, owner: int, points: Points, box: tuple[float, ...]) -> None:
    """Dots of one curve: a column shows the mean of its points; gaps are bridged."""
    left, right, low, high = box
    across, down = 2 * canvas.width - 1, 4 * canvas.height - 1
    columns: dict[int, list[float]] = {}
    for x, y in points:
        place = round((x - left) / (right - left) * across) if right > left else 0
        columns.setdefault(place, []).append(y)
    before: tuple[int, int] | None = None
    for place in sorted(columns):
        mean = math.fsum(columns[place]) / len(columns[place])
        y = down - round((mean - low) / (high - low) * down) if high > low else down // 2
        for x in range(before[0] + 1 if before else place, place + 1):
            share = (x - before[0]) / (place - before[0]) if before else 1.0
            start = before[1] if before else y
            canvas.dot(x, round(start + share * (y - start)), owner)
        before = (place, y)


def short(value: float) -> str:
    """A number on a scale: four digits or so, no exponent below a million."""
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    digits = max(0, 3 - max(0, math.floor(math.log10(abs(value)))))
    return f"{value:.{min(digits, 6)}f}" if 1e-5 < abs(value) < 1e7 else f"{value:.2e}"
