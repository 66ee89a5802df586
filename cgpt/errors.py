"""Errors that users meet: each says what, where, found, expected and what to do.

The command line turns every CgptError into one line and an exit code, in one place
(cgpt/cli). `code` is stable: programs may test it.
"""

from __future__ import annotations

from typing import TypeVar

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


def shown(value: object, longest: int = 60) -> str:
    """repr(value) for an error's sentence, cut where it is longer than `longest` characters."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits, or a repr of somebody's own
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[: longest - 1] + "…"
