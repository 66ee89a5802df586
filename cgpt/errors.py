"""Errors that users meet: each says what, where, found, expected and what to do.

The command line turns every CgptError into one line and an exit code, in one place
(cgpt/cli). `code` is stable: programs may test it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

Item = TypeVar("Item")


class CgptError(Exception):
    """Base of all errors that cgpt raises on purpose; `str(error)` is one clear sentence.

    code  what kind it is; stable, programs may test it
    hint  what a front end may add to the advice in its own terms, "" for nothing: the sentence
          speaks of the library's calls, and the command line of its own commands and options
    """

    code = "error"
    hint = ""

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
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


class CgptWarning(UserWarning):
    """What a program should know and can go on with; `str(warning)` is one clear sentence."""


def expect(owner: str, value: object, kind: type | tuple[type, ...], name: str) -> None:
    """Raises ConfigError where an argument is of another type.

    name  what is expected, with its article: "a GPT"
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{owner}: expected {name}, found {shown(value)}")


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

    name  what is expected, in the plural: "scores"
    """
    found = list(values) if is_list_like(values) else None
    wrong = [values] if found is None else [one for one in found if not isinstance(one, kind)]
    if found is None or wrong:
        raise ConfigError(f"{owner}: expected a list of {name}, found {shown(wrong[0])}")
    return found


def expect_function(owner: str, name: str, value: object, *, optional: bool = False) -> None:
    """Raises ConfigError where an argument cannot be called; None may be `optional`."""
    if not callable(value) and not (optional and value is None):
        raise ConfigError(f"{owner}: {name} must be a function, found {shown(value)}")


def path_text(owner: str, value: object) -> str:
    """A path as plain str. Raises ConfigError for what is none, bytes among them."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise ConfigError(f"{owner}: expected a path, found {shown(value)}")
    return str.__str__(text)


def path_list(owner: str, values: object) -> list[str]:
    """A path, or a list of paths, as plain str. Raises ConfigError for anything else."""
    if isinstance(values, (str, os.PathLike)):
        values = [values]
    if not is_list_like(values):
        raise ConfigError(f"{owner}: expected a path or a list of paths, found {shown(values)}")
    return [path_text(owner, value) for value in values]


def shown(value: object, longest: int = 60) -> str:
    """repr(value) for an error's sentence, cut where it is longer than `longest` characters."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits, or a repr of somebody's own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[: longest - 1] + "…"
