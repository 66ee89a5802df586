"""Fonts for pictures: one that has every character of a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cgpt.errors import ConfigError

# Families with Chinese glyphs that systems come with, looked at before all others.
KNOWN = [
    "noto sans cjk sc",
    "noto sans sc",
    "source han sans",
    "microsoft yahei",
    "simhei",
    "pingfang",
    "hiragino sans gb",
    "heiti",
    "wenquanyi",
    "sarasa",
    "droid sans fallback",
    "arial unicode",
    "noto serif cjk sc",
    "simsun",
    "songti",
]
# These have a placeholder for every character.
PLACEHOLDERS = ("last resort", "lastresort", ".lastresort", "adobe blank", "adobe notdef")
WEIGHTS = ("400", "500", "normal", "regular", "medium")
ADVICE = "Noto Sans CJK SC"
BASE = "DejaVu Sans"  # comes with matplotlib


class Font:
    """The font of one picture: `family` for matplotlib, and the characters that it has."""

    def __init__(self, family: Sequence[str], characters: frozenset[str]) -> None:
        self.family = list(family)
        self.characters = characters

    def covers(self, text: str) -> bool:
        """Whether every character of the text has a glyph."""
        return set(text) <= self.characters


def find_font(texts: Iterable[str], file: str | None = None) -> Font:
    """The font that shows most of the texts: the one in `file`, else one of the system's.

    Raises ConfigError where `file` is no font.
    """
    from matplotlib.font_manager import findfont

    base = characters_of(findfont(BASE))
    wanted = {char for text in texts for char in text}
    if file is not None:
        family = add_font(file)
        return Font([family, BASE], base | characters_of(file))
    if wanted <= base:
        return Font([BASE], base)
    best, most = Font([BASE], base), len(wanted & base)
    for entry in installed():
        try:
            found = characters_of(entry.fname)
        except (OSError, RuntimeError):
            continue
        if len(wanted & (base | found)) > most:
            most = len(wanted & (base | found))
            best = Font([entry.name, BASE], base | found)
        if most == len(wanted):
            break
    return best


def installed() -> list[Any]:
    """Upright fonts of the system, one a family, those with Chinese glyphs first."""
    from matplotlib.font_manager import fontManager

    families: dict[str, Any] = {}
    for entry in fontManager.ttflist:
        upright = entry.style == "normal" and str(entry.weight) in WEIGHTS
        if upright and not entry.name.lower().startswith(PLACEHOLDERS):
            families.setdefault(entry.name, entry)

    def order(name: str) -> int:
        low = name.lower()
        return next((i for i, known in enumerate(KNOWN) if low.startswith(known)), len(KNOWN))

    return [families[name] for name in sorted(families, key=lambda name: (order(name), name))]


def characters_of(file: str) -> frozenset[str]:
    """The characters that a font file has glyphs for."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(file).get_charmap())) | frozenset(" \n")


def add_font(file: str) -> str:
    """Make a font file known to matplotlib; its family. Raises ConfigError where it is none."""
    from matplotlib.font_manager import FontProperties, fontManager

    try:
        fontManager.addfont(file)
        return str(FontProperties(fname=file).get_name())
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            "{file}: not a font that can be read; name a .ttf, .otf or .ttc file", file=file
        ) from error
