"""The sentence of an error in the language of this run.

The library raises its errors in English. error_sentences.py and error_parts.py hold templates of
those texts with their Chinese; here a text is matched with them and said again. They are imported
with the first error that has to be said in Chinese.
"""

from __future__ import annotations

import os
import re
import string
import traceback
from collections.abc import Iterator, Mapping
from functools import cache

from cgpt import locale
from cgpt.errors import CgptError, CgptWarning
from cgpt.locale import N_, language, t

# Fields that hold a text of the library and not a value; they are translated in their turn.
NESTED = frozenset(("found", "expected", "advice", "reason", "what", "guess", "phase",
                    "sentence"))
WHOLE = "sentence"  # a nested text that is a sentence by itself, no part of one
NUMBER = "n"    # a field of digits only

HINTS = {
    "merge": N_("as a command: cgpt merge MODEL ADAPTER OUT.bin"),
    "import": N_("as a command: cgpt import FILE OUT.bin"),
    "guided": N_("in the guided run: cgpt"),
    "new_data": N_("option: --new-data"),
    "skip_invalid": N_("option: --skip-invalid; cgpt data PATH... lists all of them"),
    "too_long": N_("option: --too-long"),
    "mix": N_("option: --mix"),
    "cache": N_("option: --cache, or CGPT_CACHE"),
    "mpi": N_("as a command: mpiexec -n 2 cgpt train --parallel mpi"),
}
_CHINESE = re.compile("[\u4e00-\u9fff]")
_NARROW = re.compile("[!-~]")


def localized(error: CgptError | CgptWarning) -> str:
    """The error's sentence, in Chinese where that is the language and a template fits; what the
    library advises is followed by the command or option that does it."""
    text, hint = locale.localized(error), getattr(error, "hint", "")
    if text == str(error):  # raised as a sentence and not yet as a template
        text = in_this_language(text)
    return text + t(" ({hint})", hint=t(HINTS[hint])) if hint else text


def in_this_language(text: str) -> str:
    """A sentence of the library, in Chinese where that is the language and a template fits."""
    return text if language() == "en" else translated(text)


def reason_of(error: BaseException) -> str:
    """One sentence for a warning, or any error that a command may end with."""
    if isinstance(error, (CgptError, CgptWarning)):
        return localized(error)
    if isinstance(error, MemoryError):
        return t("out of memory; use a smaller model or a smaller batch")
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror if language() == "en" else _part(error.strerror)
        return f"{error.filename}: {reason}" if error.filename else reason
    return str(error) or type(error).__name__


def what_failed(error: BaseException) -> str:
    """The sentence of an error; of one that nobody foresaw also where it comes from."""
    if isinstance(error, (CgptError, OSError, MemoryError)):
        return reason_of(error)
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({os.path.basename(one.filename)}:{one.lineno})" for one in place)
    return f"{type(error).__name__}: {error}{where}"


def translated(text: str) -> str:
    """The Chinese of a sentence of the library, or the sentence itself where no template fits."""
    from cgpt.cli.error_sentences import SENTENCES

    return _in_chinese(text, SENTENCES) or text


def _part(text: str) -> str:
    """The Chinese of what a sentence may hold: a part, or another sentence, or else the text."""
    from cgpt.cli.error_parts import PARTS
    from cgpt.cli.error_sentences import SENTENCES

    return _in_chinese(text, PARTS) or _in_chinese(text, SENTENCES) or text


def _in_chinese(text: str, table: Mapping[str, str]) -> str:
    """The Chinese of the template that says most of the text literally; "" where none fits."""
    for template in _longest_first(tuple(table)):
        found = match(template, text)
        if found is not None:
            return _filled(table[template], {
                name: translated(value) if name == WHOLE else
                _part(value) if name in NESTED else value for name, value in found.items()})
    return ""


def match(template: str, text: str) -> dict[str, str] | None:
    """The fields of `template` where it fits the whole text.

    A nested text takes as much as it can, as it may hold the words that follow; a value as little.
    """
    if any(literal not in text for literal in literals(template)):
        return None
    found = _pattern(template).fullmatch(text)
    return None if found is None else found.groupdict()


@cache
def literals(template: str) -> tuple[str, ...]:
    """What a template says around its fields."""
    return tuple(literal for literal, _ in _pieces(template) if literal)


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    return ((literal, field) for literal, field, _, _ in string.Formatter().parse(template))


@cache
def _longest_first(templates: tuple[str, ...]) -> list[str]:
    return sorted(templates, key=lambda template: -sum(map(len, literals(template))))


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = []
    for literal, field in _pieces(template):
        parts.append(re.escape(literal))
        if field is not None:
            kind = "[0-9.]+" if field == NUMBER else ".*" if field in NESTED else ".*?"
            parts.append(f"(?P<{field}>{kind})")
    return re.compile("".join(parts), re.DOTALL)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields, set apart from Chinese around them where they are not."""
    text = value = ""
    for literal, field in _pieces(template):
        if _CHINESE.match(literal) and _NARROW.match(value[-1:]):
            text += " "
        text += literal
        value = values[field] if field else ""
        if _CHINESE.match(text[-1:]) and _NARROW.match(value):
            text += " "
        text += value
    return text
