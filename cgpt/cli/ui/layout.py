"""Text in terminal cells: a Chinese character is two cells wide, a combining mark none."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

BOX_INNER = 59
SCREEN_LEAST, SCREEN_MOST = 40, 100
WIDE = 10_000  # cells of a line that is not wrapped
CLOSING = "，。、；：！？）》」』”’…,.;:!?)]}%|"  # no line begins with one
OPENING = "（《「『“‘([{"  # and none ends with one of these


def char_width(char: str) -> int:
    """Cells of one character: 2 for East-Asian wide and full-width ones, 0 for marks."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def text_width(text: str) -> int:
    """Cells that the text takes on one line."""
    return sum(map(char_width, text))


def cut(text: str, width: int) -> tuple[str, str]:
    """Split into (the longest head of at most `width` cells, the rest)."""
    used = 0
    for i, char in enumerate(text):
        used += char_width(char)
        if used > width:
            return text[:i], text[i:]
    return text, ""


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
    width = max(width, 2)
    lines = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while text_width(rest) > width:
            at = _last_break(rest, len(cut(rest, width)[0]))
            lines.append(rest[:at].rstrip())
            rest = rest[at:].lstrip()
        lines.append(rest)
    return lines


def _last_break(text: str, most: int) -> int:
    """Where the line ends: the last place of the first `most` characters that may be one."""
    start = len(text) - len(text.lstrip())
    return next((i for i in range(most, start, -1) if _may_break(text[i - 1], text[i])), most)


def _may_break(before: str, after: str) -> bool:
    if " " in (before, after):
        return True
    if after in CLOSING or before in OPENING:
        return False
    return before == "|" or 2 in (char_width(before), char_width(after))


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
    return cut(text[::-1], width)[0][::-1]


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
