"""Checks of what callers hand over, each written once: numbers, choices, names, lists, paths."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

from cgpt.errors import ConfigError, DataError, Phrase, shown
from cgpt.locale import N_

Item = TypeVar("Item")

_PLAIN: tuple[type, ...] = (bool, int, float, str)


def plain(value: Any) -> Any:
    """NumPy's scalars and subclasses of str, int and float as plain values, also inside lists,
    tuples and dictionaries; anything else as it is.

    So a field says the same in JSON and in an error, whatever it was computed with.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple):
        return kind(map(plain, value))
    if kind is dict:
        return {plain(key): plain(one) for key, one in value.items()}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = float(value) if value.dtype.kind == "f" else value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return str.__str__(value) if isinstance(value, str) else value  # not the name of an Enum


def is_int(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, which True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, which True and False are not; infinity and NaN are."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_int(owner: str, name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as a plain int. Raises ConfigError for all but whole numbers in the range."""
    value = plain(value)
    if not is_int(value):
        raise ConfigError(
            "{owner}: {name} must be a whole number, found {value}",
            owner=owner,
            name=name,
            value=shown(value),
        )
    if value < least or (most is not None and value > most):
        raise ConfigError(
            "{owner}: {name} must be at least {least}, found {value}"
            if most is None
            else "{owner}: {name} must be between {least} and {most}, found {value}",
            owner=owner,
            name=name,
            least=least,
            most=most,
            value=shown(value),
        )
    return value


def check_float(
    owner: str,
    name: str,
    value: Any,
    least: float,
    most: float = math.inf,
    *,
    open_below: bool = False,
    open_above: bool = False,
) -> float:
    """The value as a plain number. Raises ConfigError for all but finite ones in the range."""
    value = plain(value)
    if not is_number(value):
        raise ConfigError(
            "{owner}: {name} must be a number, found {value}",
            owner=owner,
            name=name,
            value=shown(value),
        )
    low = value <= least if open_below else value < least
    high = value >= most if open_above else value > most
    if low or high or not -sys.float_info.max <= value <= sys.float_info.max:
        left, right = "(" if open_below else "[", ")" if open_above else "]"
        raise ConfigError(
            "{owner}: {name} must be a finite number in {span}, found {value}",
            owner=owner,
            name=name,
            span=f"{left}{least}, {most}{right}",
            value=shown(value),
        )
    return value


def check_bool(owner: str, name: str, value: Any) -> bool:
    """The value as a plain bool. Raises ConfigError for anything else."""
    value = plain(value)
    if not isinstance(value, bool):
        raise ConfigError(
            "{owner}: {name} must be true or false, found {value}",
            owner=owner,
            name=name,
            value=shown(value),
        )
    return value


def check_names(owner: str, name: str, value: Any) -> tuple[str, ...]:
    """The value as a tuple of plain str. Raises ConfigError for anything else."""
    names: tuple[Any, ...] = tuple(map(plain, value)) if is_list_like(value) else (None,)
    if not all(isinstance(one, str) for one in names):
        raise ConfigError(
            "{owner}: {name} must be a list of names, found {value}",
            owner=owner,
            name=name,
            value=shown(value),
        )
    return names


def check_choice(owner: str, name: str, value: Any, known: Collection[str]) -> str:
    """The value as a plain str. Raises ConfigError for all but the known ones."""
    value = plain(value)
    if not isinstance(value, str) or value not in known:
        raise ConfigError(
            "{owner}: unknown {name} {value}; known: {known}",
            owner=owner,
            name=name,
            value=shown(value),
            known=list(known),
        )
    return value


def unknown_name(
    owner: str, kind: str, name: str, known: Sequence[str], meant: str | None = None
) -> ConfigError:
    """The error of a name that nothing has: it gives the nearest one, or all that there are.

    kind   of name: "field", "option";  meant  the one that is surely meant
    """
    if meant is None:
        import difflib

        meant = next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.65)), None)
    template = _UNKNOWN[kind, bool(meant)]
    return ConfigError(template, owner=owner, name=name, near=meant, known=list(known))


_UNKNOWN = {
    ("field", True): N_("{owner}: unknown field '{name}'; did you mean '{near}'?"),
    ("field", False): N_("{owner}: unknown field '{name}'; known: {known}"),
    ("option", True): N_("{owner}: unknown option '{name}'; did you mean '{near}'?"),
    ("option", False): N_("{owner}: unknown option '{name}'; known: {known}"),
}


def expect(owner: str, value: object, kind: type | tuple[type, ...], name: str) -> None:
    """Raises ConfigError where an argument is of another type.

    name  what is expected, with its article: "a GPT"
    """
    if not isinstance(value, kind):
        raise ConfigError(
            "{owner}: expected {expected}, found {found}",
            owner=owner,
            expected=Phrase(name),
            found=shown(value),
        )


def expect_function(owner: str, name: str, value: object, *, optional: bool = False) -> None:
    """Raises ConfigError where an argument cannot be called; None may be `optional`."""
    if not callable(value) and not (optional and value is None):
        raise ConfigError(
            "{owner}: {name} must be a function, found {value}",
            owner=owner,
            name=name,
            value=shown(value),
        )


def is_list_like(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether a value can be read as a list of values: no text, no bytes, no dictionary and no
    array of no dimension, which says that it can and then cannot."""
    return (
        isinstance(value, Iterable)
        and getattr(value, "ndim", 1) != 0
        and not isinstance(value, (str, bytes, bytearray, Mapping))
    )


def list_of(owner: str, values: object, kind: type[Item], name: str) -> list[Item]:
    """The values as a list. Raises ConfigError where one is of another type, or it is no list.

    name  what is expected: "a list of scores"
    """
    found = list(values) if is_list_like(values) else None
    wrong = [values] if found is None else [one for one in found if not isinstance(one, kind)]
    if found is None or wrong:
        raise ConfigError(
            "{owner}: expected {expected}, found {found}",
            owner=owner,
            expected=Phrase(name),
            found=shown(wrong[0]),
        )
    return found


def path_text(owner: str, value: object) -> str:
    """A path as plain str. Raises ConfigError for what is none, bytes among them."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise ConfigError(
            "{owner}: expected a path, found {found}", owner=owner, found=shown(value)
        )
    return str.__str__(text)


def path_list(owner: str, values: object) -> list[str]:
    """A path, or a list of paths, as plain str. Raises ConfigError for anything else."""
    if isinstance(values, (str, os.PathLike)):
        values = [values]
    if not is_list_like(values):
        raise ConfigError(
            "{owner}: expected a path or a list of paths, found {found}",
            owner=owner,
            found=shown(values),
        )
    return [path_text(owner, value) for value in values]


def one_text(owner: str, text: Any) -> str:
    """The text as plain str. Raises DataError for anything else."""
    text = plain(text)
    if not isinstance(text, str):
        raise DataError("{owner}: expected a text, found {found}", owner=owner, found=shown(text))
    return text


def text_list(owner: str, texts: Any) -> list[str]:
    """The texts as plain str, one by itself as a list of one.

    Raises DataError naming the first that is no text.
    """
    if isinstance(texts, str):
        return [plain(texts)]
    if not is_list_like(texts):
        raise DataError(
            "{owner}: expected a text or a list of texts, found {value}",
            owner=owner,
            value=shown(texts),
        )
    found = list(texts)
    if set(map(type, found)) <= {str}:
        return found
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise DataError(
                "{owner}: expected a text at texts[{n}], found {value}",
                owner=owner,
                n=number,
                value=shown(text),
            )
    return list(map(plain, found))
