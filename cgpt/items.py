"""One item of a data file, in any accepted form -> a document or a dialogue, text unaltered.

A string · {"text"} · {"messages": [{"role", "content"}]} · ShareGPT {"conversations": [{"from",
"value"}]} · Alpaca {"instruction", "input", "output"} · an idiom {"成语", ...}.
A string of the older forms `用户：…助手：…` and `User: … Assistant: …` is a dialogue of one or more
turns. Of other strings only start and end markers such as </s> are stripped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant")
FORMS = "a string, {text}, {messages}, {conversations} or {instruction, output}"
_ITEM_KEYS = {"messages", "conversations", "instruction", "text", "成语"}
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
_SPEAKERS, _SPOKEN = {"role", "from"}, {"content", "value"}
_START_MARKERS = ("<s>", "<bos>", "<|endoftext|>")
_END_MARKERS = ("</s>", "<eos>", "<|endoftext|>")
_LABELS = tuple(re.compile(rf"(?<![A-Za-z])(?:({system})|({user})|({assistant}))[ \t]*[：:]")
                for system, user, assistant in (("系统", "用户", "助手"),
                                                ("System", "User", "Assistant")))


@dataclass(frozen=True)
class Message:
    """One turn: role is "system", "user" or "assistant"."""

    role: str
    content: str


Dialogue = tuple[Message, ...]


def n_characters(item: str | Dialogue) -> int:
    """Characters of a text, or of all messages of a dialogue."""
    return len(item) if isinstance(item, str) else sum(len(message.content) for message in item)


class Unusable(Exception):
    """An item that cannot be used; the message says what was found and expected."""


def turn_fault(messages: Sequence[Message], last: str = "assistant") -> str | None:
    """What is wrong with the turns, or None: [system] user assistant user ... ends with `last`."""
    expected = "user"
    for number, message in enumerate(messages, 1):
        if message.role not in ROLES:
            return f"message {number} has the role {message.role!r:.50}, " \
                   "expected system, user or assistant"
        if not isinstance(message.content, str):
            return f"message {number} has {kind_of(message.content)} as its content, " \
                   "expected a string"
        if not message.content.strip():
            return f"message {number} ({message.role}) is empty; fill it or remove the dialogue"
        if message.role == "system" and number == 1:
            continue
        if message.role != expected:
            return f"message {number} is from the {message.role}, expected the {expected}; " \
                   "turns go [system] user assistant user assistant"
        expected = "assistant" if expected == "user" else "user"
    if not messages:
        return "no messages, expected at least one from the user and one from the assistant"
    if messages[-1].role != last:
        return f"the last message is from the {messages[-1].role}, expected the {last}"
    return None


def is_item(value: dict[str, Any]) -> bool:
    """Whether an object is an item by itself, not one that holds a list of items."""
    return not _ITEM_KEYS.isdisjoint(value)


def read_item(value: Any) -> str | Dialogue | None:
    """One item as a document, a dialogue or, where it is a blank string, None.

    Raises Unusable saying what was found and expected.
    """
    if isinstance(value, str):
        return _from_string(value)
    if not isinstance(value, dict):
        raise Unusable(f"found {kind_of(value)}, expected {FORMS}")
    if "messages" in value or "conversations" in value:
        return _checked(_from_messages(value))
    if "instruction" in value:
        return _checked(_from_alpaca(value))
    if "text" in value:
        return _from_string(_string(value, "text"))
    if "成语" in value:
        return "\n".join(f"{key}：{_listing(entry)}" for key, entry in value.items())
    raise Unusable(f"found an object with {keys_of(value)}, expected {FORMS}")


def _checked(messages: list[Message]) -> Dialogue:
    fault = turn_fault(messages)
    if fault:
        raise Unusable(fault)
    return tuple(messages)


def _from_messages(value: dict[str, Any]) -> list[Message]:
    """The turns of {"messages": [...]} or ShareGPT; either may spell role/content or from/value."""
    name = "messages" if "messages" in value else "conversations"
    entries = value[name]
    if not isinstance(entries, list):
        raise Unusable(f"found {kind_of(entries)} under '{name}', expected a list of turns")
    messages = _system(value)
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise Unusable(f"message {number} is {kind_of(entry)}, expected an object")
        if _SPOKEN.isdisjoint(entry) or _SPEAKERS.isdisjoint(entry):
            raise Unusable(f"message {number} has {keys_of(entry)}, expected 'role' and 'content' "
                           "(or 'from' and 'value')")
        role: Any = entry.get("role", entry.get("from"))
        if isinstance(role, str):
            role = _SHAREGPT_ROLES.get(role, role)
        content: Any = entry.get("content", entry.get("value"))
        messages.append(Message(role, content))
    return messages


def _from_alpaca(value: dict[str, Any]) -> list[Message]:
    """instruction and input are the user's text, output the answer; history and system optional."""
    messages = _system(value)
    history = value.get("history") or []
    if not isinstance(history, list) or not all(
            isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise Unusable("'history' must be a list of [question, answer] pairs")
    for question, answer in history:
        messages += [Message("user", question), Message("assistant", answer)]
    question = _string(value, "instruction")
    addition = _string(value, "input") if value.get("input") else ""
    if addition.strip():
        question += "\n" + addition
    return [*messages, Message("user", question), Message("assistant", _string(value, "output"))]


def _system(value: dict[str, Any]) -> list[Message]:
    system = value.get("system")
    return [Message("system", system)] if system else []


def _string(value: dict[str, Any], key: str) -> str:
    entry = value.get(key)
    if not isinstance(entry, str):
        raise Unusable(f"found {kind_of(entry)} under '{key}', expected a string")
    return entry


def _listing(entry: Any) -> str:
    return "、".join(map(str, entry)) if isinstance(entry, list) else str(entry)


def _from_string(text: str) -> str | Dialogue | None:
    text = _strip_markers(text)
    if not text.strip():
        return None
    for labels in _LABELS:
        messages = _turns(text.strip(), labels)
        if messages:
            return _checked(messages)
    return text


def _turns(text: str, labels: re.Pattern[str]) -> list[Message]:
    """The turns of an older string; [] where it does not start with a label or has no answer.

    A label counts only where its turn is due, and a further question only where an answer
    follows, so that "用户：" inside a text stays text.
    """
    if not labels.match(text):      # as most texts; the search below would read all of it
        return []
    found = [(match.start(), match.end(), role) for match in labels.finditer(text)
             for role, label in zip(ROLES, match.groups(), strict=True) if label]
    answers = [start for start, _, role in found if role == "assistant"]
    if not answers or found[0][2] == "assistant":
        return []
    turns = [found[0]]
    for start, end, role in found[1:]:
        due = "assistant" if turns[-1][2] == "user" else "user"
        if role == due and start <= answers[-1]:
            turns.append((start, end, role))
    ends = [start for start, _, _ in turns[1:]] + [len(text)]
    return [Message(role, _strip_markers(text[begin:end]).strip())
            for (_, begin, role), end in zip(turns, ends, strict=True)]


def _strip_markers(text: str) -> str:
    """Without start and end markers and the blanks beside them; otherwise as it was."""
    while (bare := text.lstrip()).startswith(_START_MARKERS):
        text = bare[bare.index(">") + 1:].lstrip()
    while (bare := text.rstrip()).endswith(_END_MARKERS):
        text = bare[:bare.rindex("<")].rstrip()
    return text


def keys_of(value: dict[str, Any]) -> str:
    """The keys of an object, for an error message."""
    return f"the keys {', '.join(map(repr, [*value][:6]))}" if value else "no keys"


def kind_of(value: Any) -> str:
    """What a JSON value is, for an error message."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false",
             type(None): "nothing"}
    return kinds.get(type(value), f"the number {value!r:.30}")
