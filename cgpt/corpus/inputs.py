"""Texts, dialogues and rows as callers hand them over -> documents, dialogues and messages."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cgpt.corpus.records import (
    CHANGES,
    Dialogue,
    Message,
    Unusable,
    read_item,
    read_message,
    turn_fault,
)
from cgpt.errors import CgptWarning, DataError, Phrase, shown
from cgpt.validation import is_list_like, plain

# What callers pass as one document: a text, a dialogue, or a row as a file of data has it.
Document = str | Sequence[Message | Mapping[str, Any]] | Mapping[str, Any]


def as_documents(
    owner: str, documents: Iterable[Document | Any], also: type | tuple[type, ...] = ()
) -> Iterator[Any]:
    """The documents one by one: a text as it is, a dialogue as a tuple of messages.

    also  types whose instances are given as they are

    A dialogue may be a list of Message or of {"role", "content"}, and any row that a data file may
    hold is taken as it is there: {"messages": [...]}, {"text"}, {"instruction", "output"}.
    Warns (CgptWarning) where something is left out of rows, as cgpt/corpus/records.py says.
    Raises DataError naming the document that is none of these and what was found.
    """
    if not is_list_like(documents):
        found = Phrase("one string") if isinstance(documents, str) else shown(documents)
        raise DataError(
            "{owner}: expected a list of texts or dialogues, found {found}",
            owner=owner,
            found=found,
        )
    changes: dict[str, int] = {}
    for number, one in enumerate(documents):
        yield (one if isinstance(one, also) else _document(owner, number, one, changes))
    if changes:
        counts = ", ".join(f"{name} {changes[name]}" for name in CHANGES if name in changes)
        warnings.warn(
            CgptWarning(
                "{owner}: turns of the documents were left out or joined ({counts}); take "
                "them out of the rows to be rid of this warning",
                owner=owner,
                counts=counts,
            ),
            stacklevel=2,
        )


def _document(owner: str, number: int, value: Any, changes: dict[str, int]) -> str | Dialogue:
    if isinstance(value, str):
        text: str = plain(value)
        return text
    listed = isinstance(value, (list, tuple)) and len(value) > 0
    if listed and all(isinstance(one, Message) for one in value):
        fault = turn_fault(value)
        if fault:
            raise _unusable(owner, number, fault)
        return tuple(value)
    if listed and all(isinstance(one, Mapping) for one in value):
        value = {"messages": [dict(one) for one in value]}
    if not isinstance(value, Mapping):
        raise DataError(
            "{owner}: documents[{n}]: found {value}, expected a text, a dialogue (a list of "
            "messages) or a row such as {{'messages': [...]}}",
            owner=owner,
            n=number,
            value=shown(value),
        )
    try:
        return read_item(dict(value), changes=changes) or ""
    except Unusable as error:
        raise _unusable(owner, number, error) from None


def _unusable(owner: str, number: int, fault: Unusable) -> DataError:
    return DataError("{owner}: documents[{n}]: {reason}", owner=owner, n=number, reason=fault)


def as_messages(owner: str, values: Sequence[Any]) -> list[Message]:
    """Messages, each a Message or {"role", "content"} as in a row of data.

    So a content may be a list of text parts, and the role "developer" is "system". Raises DataError
    naming what is no message, or one of a tool.
    """
    if not isinstance(values, (list, tuple)):
        raise DataError(
            "{owner}: expected a list of messages, found {value}", owner=owner, value=shown(values)
        )
    found: list[Message] = []
    for number, one in enumerate(values, 1):
        if isinstance(one, Mapping):
            one = _as_message(owner, dict(one), number)
        if not isinstance(one, Message):
            raise DataError(
                "{owner}: messages[{n}]: found {value}, expected a Message or {{'role', "
                "'content'}}",
                owner=owner,
                n=number - 1,
                value=shown(one),
            )
        found.append(one)
    return found


def _as_message(owner: str, value: dict[str, Any], number: int) -> Message:
    try:
        message = read_message(value, number)
    except Unusable as error:
        raise DataError("{owner}: messages: {reason}", owner=owner, reason=error) from None
    if message is None or any(value.get(name) for name in ("tool_calls", "function_call")):
        raise DataError(
            "{owner}: messages[{n}] is of a tool or calls one, which no model here has "
            "learnt; leave it out",
            owner=owner,
            n=number - 1,
        )
    return message
