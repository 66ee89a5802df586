"""Text in terminal cells: a Chinese character is two cells wide, a combining mark none."""

from __future__ import annotations

import unicodedata

BOX_INNER = 59


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


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells; breaks at spaces, else between wide characters."""
    width = max(width, 2)
    lines = []
    for paragraph in text.split("\n"):
        rest = paragraph
        while text_width(rest) > width:
            head, tail = cut(rest, width)
            at = head.rfind(" ") if tail[:1] != " " else len(head)
            narrow = head[-1:].isascii() and tail[:1].isascii()
            if at > 0 and (narrow or tail[:1] in "，。、；：！？）"):
                head, tail = rest[:at], rest[at:]
            lines.append(head.rstrip())
            rest = tail.lstrip()
        lines.append(rest)
    return lines


def columns(rows: list[tuple[str, str]], width: int, indent: int = 2) -> list[str]:
    """Two columns, the second one wrapped; narrow screens put it below the first."""
    if not rows:
        return []
    first = min(max(text_width(left) for left, _ in rows) + 2, max(width // 3, 20))
    if width - indent - first < 24:
        first = 4
    lines = []
    for left, right in rows:
        texts = wrap(right, width - indent - first) if right else [""]
        if text_width(left) + 2 > first:
            lines.append(" " * indent + left)
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
    return ["╔" + "═" * inner + "╗",
            "║" + " " * left + title + " " * (space - left) + "║",
            "╚" + "═" * inner + "╝"]
