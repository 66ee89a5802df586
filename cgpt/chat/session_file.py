"""A dialogue as a JSON file: written whole, checked when it is read.

    {"format": "cgpt-session", "version": 1, "system": null, "sampling": {...}, "drawn": 0,
     "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
`drawn` counts the random numbers that were used, so that a conversation with a seed continues.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgpt.config import SamplingConfig
from cgpt.corpus.records import Message, turn_fault
from cgpt.errors import ConfigError, DataError, Phrase, as_reason, shown
from cgpt.fileio.atomic import Output, write_file
from cgpt.fileio.text import utf8
from cgpt.validation import is_int

FORMAT, VERSION = "cgpt-session", 1
_KEYS = ("format", "version", "system", "sampling", "drawn", "messages")
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Saved:
    """What a file holds; messages are user and assistant in turn."""

    system: str | None
    sampling: SamplingConfig
    drawn: int
    messages: list[Message]


def values_of(saved: Saved) -> dict[str, Any]:
    """What the file holds, JSON-ready."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "system": saved.system,
        "sampling": saved.sampling.to_dict(),
        "drawn": saved.drawn,
        "messages": [{"role": one.role, "content": str(one.content)} for one in saved.messages],
    }


def saved_of(values: Mapping[str, Any]) -> Saved:
    """The reverse of `values_of`. Raises DataError with what is wrong."""
    try:
        return _checked(values)
    except (ValueError, ConfigError) as error:
        raise DataError(
            "ChatSession.from_dict: not a session as to_dict gives it ({reason}); give what it "
            "gave",
            reason=as_reason(error),
        ) from None


def write_session(path: str | os.PathLike[str], saved: Saved) -> Path:
    """Returns the path. Raises CheckpointError (code "write") with the reason."""
    text = json.dumps(values_of(saved), ensure_ascii=False, indent=1) + "\n"
    data = utf8(text)

    def write(out: Output) -> None:
        out.write(data)

    return write_file(path, len(data), write)


def read_session(path: str | os.PathLike[str]) -> Saved:
    """Raises DataError with what is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DataError(
            "{path}: cannot be read ({reason}); check path and permissions",
            path=path,
            reason=as_reason(error),
        ) from None
    except ValueError:  # a name that no file can have
        raise DataError(
            "{path}: cannot be read ({reason}); check path and permissions",
            path=ascii(path),
            reason=Phrase(os.strerror(errno.ENOENT)),
        ) from None
    try:
        return _parse(data)
    except (ValueError, RecursionError, ConfigError) as error:
        raise _no_session(path, error) from None


def _no_session(path: str | os.PathLike[str], error: Exception) -> DataError:
    reason = as_reason(error)
    if isinstance(error, RecursionError):
        reason = Phrase("too deep nesting")
    elif isinstance(error, json.JSONDecodeError):
        reason = Phrase(
            "broken JSON at line {line}, column {column}", line=error.lineno, column=error.colno
        )
    elif isinstance(error, UnicodeDecodeError):
        reason = Phrase("byte {n} is not UTF-8", n=error.start)
    return DataError(
        "{path}: not a session that cgpt saved ({reason}); choose another file",
        path=path,
        reason=reason,
    )


def _wrong(template: str, /, **fields: object) -> ValueError:
    return ValueError(Phrase(template, **fields))


def _parse(data: bytes) -> Saved:
    """Raises ValueError with the reason, or ConfigError for the sampling."""
    if len(data) > _MOST_BYTES:
        raise _wrong("more than {n} bytes", n=_MOST_BYTES)
    return _checked(json.loads(data.decode("utf-8-sig", "surrogatepass")))


def _checked(values: Any) -> Saved:
    """Raises ValueError with the reason, or ConfigError for the sampling."""
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise _wrong('no "format": "{name}" in it', name=FORMAT)
    if values.get("version") != VERSION:
        found = shown(values.get("version"))
        raise _wrong("its version is {value}, this release reads {n}", value=found, n=VERSION)
    if set(values) != set(_KEYS):
        raise _wrong("its keys must be {keys}", keys=list(_KEYS))
    system, drawn, sampling = values["system"], values["drawn"], values["sampling"]
    if system is not None and not isinstance(system, str):
        raise _wrong("system must be a string or null")
    if not is_int(drawn) or not 0 <= drawn < 1 << 63:
        raise _wrong("drawn must be a whole number from 0 on, found {value}", value=shown(drawn))
    if not isinstance(sampling, Mapping):
        raise _wrong("sampling must be an object")
    return Saved(system, SamplingConfig.from_dict(sampling), drawn, _messages(values["messages"]))


def _messages(values: Any) -> list[Message]:
    if not isinstance(values, list):
        raise _wrong("messages must be a list")
    found = []
    for number, one in enumerate(values, 1):
        if (
            not isinstance(one, dict)
            or set(one) != {"role", "content"}
            or not all(isinstance(text, str) for text in one.values())
        ):
            raise _wrong("message {n} must have role and content, both strings", n=number)
        found.append(Message(one["role"], one["content"]))
    if found and found[0].role == "system":
        raise _wrong("its first message is from the system, which has a key of its own")
    fault = turn_fault(found, "assistant") if found else None
    if fault:
        raise ValueError(fault)
    return found
