"""Text in terminal cells: a Chinese character is two cells wide, a combining mark none.

Own code where libraries do worse: rich and wcwidth begin lines with closing marks, tables of rich
cut numbers off at 40 cells, and importing rich would make `cgpt --help` take half as long again.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

BOX_INNER = 59
SCREEN_LEAST, SCREEN_MOST = 40, 100
WIDE = 10_000  # cells of a line that is not wrapped
CLOSING = "，。、；：！？）》」』”’…,.;:!?)]}%|"  # no line begins with one
OPENING = "（《「『“‘([{"  # and none ends with one of these
# Characters that are one or two cells whatever stands beside them. Texts of these alone need no
# wcwidth, whose import would make `cgpt --help` a third slower.
SIMPLE = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u21ff\u2500-\u262f"
    "\u2690-\u27bf\u3000-\u3029\u3030-\u3098\u309b-\u3163\u3165-\u4dbf\u4e00-\ua48c\uac00-\ud7a3"
    "\uff01-\uff9d\U0001f300-\U0001f3fa\U0001f400-\U0001f64f]*"
)
CELLS = {"W": 2, "F": 2, "H": 1, "Na": 1, "A": 1, "N": 1}  # of an East Asian Width


def graphemes(text: str) -> list[str]:
    """What a reader sees as characters: with their marks, flags whole, emoji sequences whole."""
    if SIMPLE.fullmatch(text):
        return list(text)
    from wcwidth import iter_graphemes

    return list(iter_graphemes(text))


def _cells(pieces: Sequence[str]) -> list[int]:
    """Cells of each grapheme."""
    if SIMPLE.fullmatch("".join(pieces)):
        return [CELLS[unicodedata.east_asian_width(piece)] for piece in pieces]
    from wcwidth import wcswidth

    return [max(wcswidth(piece), 0) for piece in pieces]


def text_width(text: str) -> int:
    """Cells that the text takes on one line."""
    return sum(_cells(graphemes(text)))


def _n_fitting(cells: Sequence[int], width: int) -> int:
    """How many graphemes of so many cells, from the first one on, fit into `width` cells."""
    return next((i for i, used in enumerate(accumulate(cells)) if used > width), len(cells))


def cut(text: str, width: int) -> tuple[str, str]:
    """Split into (the longest head of at most `width` cells, the rest); no grapheme is divided."""
    pieces = graphemes(text)
    n = _n_fitting(_cells(pieces), width)
    return "".join(pieces[:n]), "".join(pieces[n:])


def rows_of(line: str, width: int) -> int:
    """Rows that a terminal of `width` cells breaks the line into."""
    rows, rest = 1, cut(line, max(width, 2))[1]
    while rest:
        rows, rest = rows + 1, cut(rest, max(width, 2))[1]
    return rows


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells.

    Breaks at spaces, beside wide characters and behind a bar; never before a closing mark or
    behind an opening one. A word that is wider than a line is cut.
    """
    lines = []
    for paragraph in text.split("\n"):
        rest = graphemes(paragraph)
        cells = _cells(rest)
        while (n := max(_n_fitting(cells, max(width, 2)), 1)) < len(rest):
            indent = next((i for i, piece in enumerate(rest) if piece != " "), n)
            n = next((i for i in range(n, indent, -1) if _may_break(rest, cells, i)), n)
            lines.append("".join(rest[:n]).rstrip())
            while n < len(rest) and rest[n].isspace():
                n += 1
            rest, cells = rest[n:], cells[n:]
        lines.append("".join(rest))
    return lines


def _may_break(pieces: Sequence[str], cells: Sequence[int], i: int) -> bool:
    """Whether a line may end before the i-th grapheme."""
    before, after = pieces[i - 1], pieces[i]
    if " " in (before, after):
        return True
    if after in CLOSING or before in OPENING:
        return False
    return before == "|" or 2 in cells[i - 1 : i + 1]


def columns(rows: list[tuple[str, str]], width: int, indent: int = 2) -> list[str]:
    """Two columns, the second one wrapped; narrow screens put it below the first."""
    if not rows:
        return []
    first = min(max(text_width(left) for left, _ in rows) + 2, max(width // 3, 20))
    room = width - indent - first
    if room < 24 and any(text_width(right) > room for _, right in rows):
        first = 4
    lines: list[str] = []
    for left, right in rows:
        texts = wrap(right, width - indent - first) if right else [""]
        if text_width(left) + 2 > first:
            lines.extend(" " * indent + line for line in wrap(left, width - indent))
        else:
            pad = " " * (first - text_width(left))
            lines.append((" " * indent + left + pad + texts.pop(0)).rstrip())
        lines.extend((" " * (indent + first) + text).rstrip() for text in texts)
    return [line for line in lines if line]


def box(title: str, width: int, left: int | None = None) -> list[str]:
    """A double-line box around the title whose right border is straight.

    width  cells of the screen; the box takes 61 of them, fewer on a narrow screen
    left   cells before the title, None or no room for them: centred
    """
    inner = max(min(BOX_INNER, width - 2), text_width(title))
    space = inner - text_width(title)
    if left is None or inner != BOX_INNER or left > space:
        left = space // 2
    return [
        "╔" + "═" * inner + "╗",
        "║" + " " * left + title + " " * (space - left) + "║",
        "╚" + "═" * inner + "╝",
    ]


def folded(rows: Sequence[Sequence[str]], width: int, indent: int = 0) -> list[str]:
    """Cells in straight columns, all to the left; what a line has no room for stands on the next.

    So on a narrow screen each row is several lines, the later ones further in.
    """
    if not rows:
        return []
    sizes = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    groups: list[tuple[int, list[int]]] = []  # (cells before it, columns of one line)
    room = -1
    for i, size in enumerate(sizes):
        if room < size:
            groups.append((indent + (4 if groups else 0), []))
            room = width - groups[-1][0]
        groups[-1][1].append(i)
        room -= size + 2
    return [
        (
            " " * before + "  ".join(row[i] + " " * (sizes[i] - text_width(row[i])) for i in group)
        ).rstrip()
        for row in rows
        for before, group in groups
        if any(row[i] for i in group)
    ]


def aligned(rows: Sequence[Sequence[str]], width: int, gap: int = 2) -> list[str]:
    """Cells in straight columns, the first to the left and the others to the right.

    A table wider than `width` cells has its first column shortened to the end of its names, to at
    least 8 cells; where that is not enough each row becomes a block of lines "head: cell".
    """
    if not rows:
        return []
    sizes = [max(text_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    rest = sum(size + gap for size in sizes[1:])
    if rest + min(sizes[0], 8) > width:
        return [line for row in rows[1:] for line in _block(rows[0], row, width)]
    first = min(sizes[0], width - rest)
    lines = []
    for row in rows:
        head = row[0] if text_width(row[0]) <= first else "…" + _tail(row[0], first - 1)
        line = head + " " * (first - text_width(head))
        for cell, size in zip(row[1:], sizes[1:], strict=True):
            line += " " * (gap + size - text_width(cell)) + cell
        lines.append(line.rstrip())
    return lines


def _tail(text: str, width: int) -> str:
    """The longest end of at most `width` cells."""
    pieces = graphemes(text)[::-1]
    return "".join(pieces[: _n_fitting(_cells(pieces), width)][::-1])


def _block(heads: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """A row as lines of its own: its first cell, then the others with the end of their heads."""
    cells = max(map(text_width, row[1:]), default=0)
    size = max(min(max(map(text_width, heads[1:]), default=0), width - cells - 4), 1)
    lines = [cut(row[0], width)[0]]
    for head, cell in zip(heads[1:], row[1:], strict=True):
        if not cell:
            continue
        shown = head if text_width(head) <= size else "…" + _tail(head, size - 1)
        lines.append(f"  {shown}{' ' * (size - text_width(shown))}  {cell}")
    return lines


def screen_width() -> int:
    """Cells of the terminal, at most 100 so that help stays readable."""
    import shutil

    return max(min(shutil.get_terminal_size().columns, SCREEN_MOST), SCREEN_LEAST) - 1


def output_width(elsewhere: int = WIDE) -> int:
    """Cells of a line of results: the terminal's, or `elsewhere` where they go to none."""
    return screen_width() if sys.stdout.isatty() else elsewhere
