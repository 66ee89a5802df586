"""Errors that users meet: each says what, where, found, expected and what to do.

A message is an English template and fields by name, so that a front end may say it in another
language (cgpt/locale), print it as JSON (`as_dict`) or look at a field; nothing parses sentences.

    raise DataError("{path}, line {line}: {fault}", path=path, line=7, fault=Phrase("too long"))

The command line turns every CgptError into one line and an exit code, in one place (cgpt/cli).
`code` is stable: programs may test it.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, TypeAlias, Union

Field: TypeAlias = Union[str, int, float, "Templated", "list[Field]", None]

_FORMATTER = string.Formatter()


class Templated:
    """A message: `str(message)` is the English template with the fields in their places.

    template  English text with {named} fields; where there are no fields it is taken as it is,
              braces too
    fields    values by name. A Phrase or another error is said in the reader's language, a list
              is shown with ", " between its items, other text is shown as it is. What is no str,
              number, bool or None is kept as its str.
    """

    template: str
    fields: dict[str, Any]

    def _take(self, template: str, fields: Mapping[str, object]) -> str:
        self.template, self.fields = template, {name: _plain(fields[name]) for name in fields}
        english = template.rpartition("\x04")[2]  # without gettext's context
        return "".join(text for both in pieces(english, self.fields, str) for text in both)


class Phrase(Templated):
    """A part of a sentence, for a field of an error: Phrase("only the first {n} bytes", n=8)."""

    def __init__(self, template: str, /, **fields: object) -> None:
        self._english = self._take(template, fields)

    def __str__(self) -> str:
        return self._english

    def __repr__(self) -> str:
        return f"Phrase({self._english!r})"

    def __eq__(self, other: object) -> bool:
        mine = (self.template, self.fields)
        return isinstance(other, Phrase) and mine == (other.template, other.fields)

    def __hash__(self) -> int:
        return hash(self._english)


class CgptError(Templated, Exception):
    """Base of all errors that cgpt raises on purpose; `str(error)` is one clear English sentence.

    template, fields  of which the sentence is made, see Templated
    code  what kind it is; stable, programs may test it
    hint  what a front end may add to the advice in its own terms, "" for nothing: the sentence
          speaks of the library's calls, and the command line of its own commands and options
    """

    code = "error"
    hint = ""

    def __init__(
        self, template: str, /, *, code: str | None = None, hint: str = "", **fields: object
    ) -> None:
        super().__init__(self._take(template, fields))
        if code is not None:
            self.code = code
        if hint:
            self.hint = hint


class ConfigError(CgptError):
    """A configuration that cannot work: unknown name, wrong type, out of range. code: config."""

    code = "config"


class DataError(CgptError):
    """Training data that cannot be read or used; names file and line. code: data."""

    code = "data"


class CheckpointError(CgptError):
    """A model file that cannot be read or written.

    code: "missing" no such file · "damaged" cut short or changed · "version" written by another
    format version · "foreign" not a cgpt file · "write" could not be saved (the reason is named) ·
    "several" a folder holds several trainings that could be meant.
    """

    code = "damaged"


class CgptWarning(Templated, UserWarning):
    """What a program should know and can go on with; `str(warning)` is one clear sentence.

    template, fields, code, hint  as those of CgptError
    """

    code = "warning"
    hint = ""

    def __init__(
        self, template: str, /, *, code: str | None = None, hint: str = "", **fields: object
    ) -> None:
        super().__init__(self._take(template, fields))
        if code is not None:
            self.code = code
        if hint:
            self.hint = hint


def pieces(
    template: str, fields: Mapping[str, Field], say: Callable[[Any], str]
) -> Iterator[tuple[str, str]]:
    """A template in pieces: literal text, and the text of the field behind it, "" for none.

    say  gives the text of a field that is a message itself
    """
    if not fields:
        yield template, ""
        return
    for literal, name, spec, conversion in _FORMATTER.parse(template):
        yield literal, "" if name is None else _text(fields[name], spec or "", conversion, say)


def phrase_of(values: Mapping[str, Any]) -> Phrase:
    """The message that as_dict described, without the class of an error."""
    return Phrase(
        values["template"], **{name: _read(one) for name, one in values["fields"].items()}
    )


def as_dict(message: Templated) -> dict[str, Any]:
    """A message for JSON: its template and fields, and of an error its code and sentence."""
    found: dict[str, Any] = {"template": message.template, "fields": _json(message.fields)}
    if isinstance(message, (CgptError, CgptWarning)):
        found = {"code": message.code, "message": str(message), **found}
    return found


def as_reason(error: BaseException) -> Templated:
    """What an exception says, as a field: its message where it has one, else the foreign text, of
    which the catalogue may know the Chinese."""
    if isinstance(error, Templated):
        return error
    found = error.args[0] if error.args else None
    if isinstance(found, Templated):
        return found
    if isinstance(error, UnicodeDecodeError):
        return Phrase(
            "'{encoding}' codec can't decode byte {byte} in position {at}: {reason}",
            encoding=error.encoding,
            byte=f"0x{error.object[error.start]:02x}",
            at=error.start,
            reason=Phrase(error.reason),
        )
    return Phrase(getattr(error, "strerror", None) or str(error))


def foreign_text(text: str, *templates: str) -> Phrase:
    """A text of another program, whose errors have no fields, as the first of the templates with
    one field {value} that fits it, or as it is."""
    for template in templates:
        head, _, tail = template.partition("{value}")
        value = text.removeprefix(head).removesuffix(tail)
        if head + value + tail == text and value:
            return Phrase(template, value=value)
    return Phrase(text)


def shown(value: object, longest: int = 60) -> str:
    """repr(value) for an error's sentence, cut where it is longer than `longest` characters."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits, or a repr of somebody's own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _plain(value: object) -> Field:
    if value is None or isinstance(value, (str, bool, int, float, Templated)):
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, Integral) else str(value)


def _text(value: Field, spec: str, conversion: str | None, say: Callable[[Any], str]) -> str:
    if isinstance(value, Templated):
        return say(value)
    if isinstance(value, list):
        return ", ".join(_text(one, spec, conversion, say) for one in value)
    return format(repr(value) if conversion == "r" else value, spec)


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(one) for one in value]
    return phrase_of(value) if isinstance(value, dict) else value


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_json(one) for one in value]
    return as_dict(value) if isinstance(value, Templated) else value
