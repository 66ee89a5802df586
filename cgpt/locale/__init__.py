"""What users read, in English or Chinese: the language of this run, and the text of a template.

English stands where it is used, as `t("{n} bytes read", n=n)`, `Phrase(...)` or the template of an
error; zh.po beside this file has its Chinese and is compiled to zh.mo when the package is built.
Imports errors only. Begin reading at `t` and `localized`; tests/catalogue.py checks the catalogue.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from cgpt.errors import Templated, pieces

if TYPE_CHECKING:
    from gettext import NullTranslations

LANGUAGES = ("zh", "en")
_CONTEXT = "\x04"  # between context and template, as gettext has it

_language: ContextVar[str] = ContextVar("language", default="zh")


def language() -> str:
    """The language of this run, "zh" or "en"."""
    return _language.get()


def set_language(name: str) -> None:
    """Choose the language; anything that begins with zh or en will do. Raises ValueError."""
    found = [known for known in LANGUAGES if name.strip().lower().startswith(known)]
    if not found:
        raise ValueError(name)
    _language.set(found[0])


def N_(template: str, context: str = "") -> str:
    """Marks a text for the catalogue and gives what t() and translate() look up.

    context  tells apart two uses of one English text whose Chinese differs
    """
    return f"{context}{_CONTEXT}{template}" if context else template


def translate(template: str) -> str:
    """The template in the language of this run; English where the catalogue does not have it."""
    english = template.rpartition(_CONTEXT)[2]
    if not english or language() == "en":
        return english
    found = _chinese().gettext(template)
    return english if found is template else found


def t(template: str, /, **fields: object) -> str:
    """The text in the language of this run with its {fields} filled in, as of a Phrase."""
    filled = {
        name: localized(value) if isinstance(value, Templated) else value
        for name, value in fields.items()
    }
    return translate(template).format(**filled) if fields else translate(template)


def localized(message: Templated) -> str:
    """The sentence of an error, warning or Phrase in the language of this run."""
    if language() == "en":
        return str(message)
    text = value = ""
    for literal, following in pieces(translate(message.template), message.fields, localized):
        text += " " * _touch(literal[:1], value[-1:]) + literal
        value = following
        text += " " * _touch(text[-1:], value[:1]) + value
    return text


def _touch(chinese: str, narrow: str) -> bool:
    """Whether these are a Chinese character and a narrow one, which a space sets apart."""
    return "\u4e00" <= chinese <= "\u9fff" and "!" <= narrow <= "~"


@cache
def _chinese() -> NullTranslations:
    """The catalogue, read when the first text of it is wanted."""
    import gettext

    try:
        with open(os.path.join(os.path.dirname(__file__), "zh.mo"), "rb") as file:
            return gettext.GNUTranslations(file)
    except FileNotFoundError:  # run from a source tree that was not built
        return gettext.NullTranslations()
