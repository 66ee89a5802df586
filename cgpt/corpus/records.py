"""One item of a data file, in any accepted form -> a document or a dialogue, text unaltered.

A string · {"text"} or {"content"} · {"messages": [{"role", "content"}]} · ShareGPT
{"conversations": [{"from", "value"}]} · a question and an answer: Alpaca {"instruction", "input",
"output"}, {"prompt", "completion"}, {"question", "answer"}, {"query", "response"}, {"input",
"output"} · an idiom {"成语", ...}.
A string of the older forms `用户：…助手：…` and `User: … Assistant: …` is a dialogue of one or more
turns. From other strings only start and end markers such as </s> are stripped.

What a dialogue of the template cannot hold is left out by these rules, and counted (`CHANGES`):
turns that call a tool or come from one, an assistant's turn before the first question, a last
question without an answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cgpt.errors import CgptError, DataError, Phrase, shown
from cgpt.validation import plain

ROLES = ("system", "user", "assistant")
FORMS = Phrase("a string, {text}, {messages}, {conversations} or {instruction, output}")
# What reading changes in an item that it keeps, in the order in which it is reported.
CHANGES = ("tool_turns", "joined_answers", "openings", "unanswered")
# Why an item cannot be used, in the order in which it is reported.
FAULTS = (
    "json",
    "csv",
    "encoding",
    "repeated_key",
    "too_large",
    "form",
    "type",
    "part",
    "role",
    "order",
    "empty",
)
_QUESTIONS = ("instruction", "prompt", "question", "query", "input")
_ANSWERS = ("output", "completion", "answer", "response")
_ADDITIONS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_ITEM_KEYS = {"messages", "conversations", "instruction", "text", "成语"}
KEYS = frozenset(
    (*_ITEM_KEYS, *_QUESTIONS, *_ANSWERS, *_ADDITIONS, *_SYSTEMS, "content", "history")
)
_ROLE_NAMES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "developer": "system"}
_TOOL_ROLES = {
    "tool",
    "tool_call",
    "tool_calls",
    "tool_response",
    "function",
    "function_call",
    "observation",
    "ipython",
}
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_SPEAKERS, _SPOKEN = {"role", "from"}, {"content", "value"}
_START_MARKERS = ("<s>", "<bos>", "<|endoftext|>")
_END_MARKERS = ("</s>", "<eos>", "<|endoftext|>")
_LABELS = tuple(
    re.compile(rf"(?<![A-Za-z])(?:({system})|({user})|({assistant}))[ \t]*[：:]")
    for system, user, assistant in (("系统", "用户", "助手"), ("System", "User", "Assistant"))
)


@dataclass(frozen=True)
class Message:
    """One turn: role is "system", "user" or "assistant". Raises DataError for anything else, or
    for content that is no text."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if type(self.role) is str and self.role in ROLES and type(self.content) is str:
            return  # as those of large files, of which there are millions
        for name in ("role", "content"):
            value = plain(getattr(self, name))
            if not isinstance(value, str) or (name == "role" and value not in ROLES):
                expected = Phrase("a text" if name == "content" else "system, user or assistant")
                raise DataError(
                    "Message: {name} must be {expected}, found {value}",
                    name=name,
                    expected=expected,
                    value=shown(value),
                )
            object.__setattr__(self, name, value)


class _Turn(NamedTuple):
    """A turn as it was read: whatever stands there."""

    role: Any
    content: Any


Dialogue = tuple[Message, ...]


def n_characters(item: str | Dialogue) -> int:
    """Characters of a text, or of all messages of a dialogue."""
    return len(item) if isinstance(item, str) else sum(len(message.content) for message in item)


class Unusable(CgptError):
    """An item that cannot be used: what was found and expected. code: one of FAULTS."""


def turn_fault(
    messages: Sequence[Message | _Turn], last: str = "assistant", numbers: Sequence[int] = ()
) -> Unusable | None:
    """What is wrong with the turns, or None: [system] user assistant user ... ends with `last`.

    numbers  by which the messages are called; 1, 2, ... where there are none
    """
    expected = "user"
    for place, message in enumerate(messages, 1):
        number = numbers[place - 1] if numbers else place
        if message.role not in ROLES:
            return Unusable(
                "message {n} has the role {role}, expected system, user or assistant",
                code="role",
                n=number,
                role=shown(message.role),
            )
        if not isinstance(message.content, str):
            return Unusable(
                "message {n} has {found} as its content, expected a string",
                code="type",
                n=number,
                found=kind_of(message.content),
            )
        if not message.content.strip():
            return Unusable(
                "message {n} ({role}) is empty; fill it or remove the dialogue",
                code="empty",
                n=number,
                role=message.role,
            )
        if message.role == "system" and place == 1:
            continue
        if message.role != expected:
            return Unusable(
                "message {n} is from the {role}, expected the {due}; turns go [system] "
                "user assistant user assistant",
                code="order",
                n=number,
                role=message.role,
                due=expected,
            )
        expected = "assistant" if expected == "user" else "user"
    if not messages:
        if last == "user":
            return Unusable("no messages, expected at least one from the user", code="empty")
        return Unusable(
            "no messages, expected at least one from the user and one from the assistant",
            code="empty",
        )
    if messages[-1].role != last:
        return Unusable(
            "the last message is from the {role}, expected the {due}",
            code="order",
            role=messages[-1].role,
            due=last,
        )
    return None


def is_item(value: dict[str, Any]) -> bool:
    """Whether an object is an item by itself, not one that holds a list of items."""
    return not _ITEM_KEYS.isdisjoint(value) or (
        has_form(value) and not any(isinstance(entry, list) for entry in value.values())
    )


def has_form(keys: Collection[str]) -> bool:
    """Whether an object with these keys may be an item."""
    return not (
        _ITEM_KEYS.isdisjoint(keys)
        and "content" not in keys
        and (_question_key(keys) is None or _answer_key(keys) is None)
    )


def read_item(
    value: Any, *, as_text: bool = False, changes: dict[str, int] | None = None
) -> str | Dialogue | None:
    """One item as a document, a dialogue or, where it is a blank string, None.

    as_text  a string is a document even where it looks like a dialogue
    changes  to which is added how often each of CHANGES was made in the item, where it is usable
    Raises Unusable saying what was found and expected.
    """
    if isinstance(value, str):
        return _from_string(value, as_text)
    if not isinstance(value, dict):
        raise Unusable(
            "found {found}, expected {expected}", code="form", found=kind_of(value), expected=FORMS
        )
    if "messages" in value or "conversations" in value:
        return _dialogue(_turns_of_messages(value), changes)
    if "instruction" in value:
        return _dialogue(_turns_of_pair(value), changes)
    if "text" in value:
        return _from_string(_string(value, "text"), as_text)
    if "成语" in value:
        return "\n".join(f"{key}：{_listing(entry)}" for key, entry in value.items())
    if _question_key(value) and _answer_key(value):
        return _dialogue(_turns_of_pair(value), changes)
    if "content" in value and _SPEAKERS.isdisjoint(value):
        return _from_string(_string(value, "content"), as_text)
    found = Phrase("an object with {what}", what=keys_of(value))
    raise Unusable("found {found}, expected {expected}", code="form", found=found, expected=FORMS)


def _dialogue(entries: list[Any], changes: dict[str, int] | None) -> Dialogue:
    """The turns {role, content} of an item as a dialogue of the template."""
    messages: list[_Turn] = []
    numbers: list[int] = []
    counts: dict[str, int] = {}
    past_tool = False
    for number, entry in enumerate(entries, 1):
        message = _message(entry, number)
        if message is None:
            _count(counts, "tool_turns")
        elif past_tool and _are_answers(messages[-1:], message):
            messages[-1] = _Turn("assistant", f"{messages[-1].content}\n{message.content}")
            _count(counts, "joined_answers")
        else:
            messages.append(message)
            numbers.append(number)
        past_tool = message is None
    opening = int(bool(messages[1:]) and messages[0].role == "system")
    if messages and (messages[-1].role == "user" or messages[opening].role == "assistant"):
        _leave_out_ends(messages, numbers, counts)
    fault = turn_fault(messages, numbers=numbers)
    if fault:
        raise fault
    if changes is not None:
        for name, count in counts.items():
            changes[name] = changes.get(name, 0) + count
    return tuple([Message(role, content) for role, content in messages])


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _are_answers(before: list[_Turn], message: _Turn) -> bool:
    """Whether both are texts of the assistant."""
    return all(
        one.role == "assistant" and isinstance(one.content, str) for one in (*before, message)
    ) and bool(before)


def _leave_out_ends(messages: list[_Turn], numbers: list[int], counts: dict[str, int]) -> None:
    """Take away what is said before the first question, and a last question without an answer.

    Only where a question with its answer is left.
    """
    roles = [message.role for message in messages]
    first = roles[:1] == ["system"]
    if len(roles) > first + 2 and roles[first : first + 3] == ["assistant", "user", "assistant"]:
        del messages[first], numbers[first], roles[first]
        _count(counts, "openings")
    if roles[-3:] == ["user", "assistant", "user"]:
        del messages[-1], numbers[-1]
        _count(counts, "unanswered")


def read_message(entry: Any, number: int) -> Message | None:
    """A message by itself, as a turn of a dialogue's; None for one of a tool or that calls one.

    Raises Unusable, which calls it by its number.
    """
    turn = _message(entry, number)
    if turn is not None and turn.role in ROLES and isinstance(turn.content, str):
        return Message(turn.role, turn.content)
    fault = None if turn is None else turn_fault([turn])
    if fault is not None:
        raise fault
    return None


def _message(entry: Any, number: int) -> _Turn | None:
    """A turn, spelt role/content or from/value; None for one of a tool or that calls one."""
    if isinstance(entry, dict) and len(entry) == 2:  # as nearly all are
        plain, text = entry.get("role"), entry.get("content")
        if plain in ROLES and isinstance(text, str):
            return _Turn(plain, text)
    if not isinstance(entry, dict):
        raise Unusable(
            "message {n} is {found}, expected an object",
            code="type",
            n=number,
            found=kind_of(entry),
        )
    calls = entry.get("tool_calls") or entry.get("function_call")
    if _SPEAKERS.isdisjoint(entry) or (_SPOKEN.isdisjoint(entry) and not calls):
        raise Unusable(
            "message {n} has {what}, expected 'role' and 'content' (or 'from' and 'value')",
            code="form",
            n=number,
            what=keys_of(entry),
        )
    given: Any = entry.get("role", entry.get("from"))
    role: Any = given.strip().lower() if isinstance(given, str) else given
    if isinstance(role, str):
        if role in _TOOL_ROLES:
            return None
        role = _ROLE_NAMES.get(role, role)
    content = _content(entry.get("content", entry.get("value")), number)
    if calls and role == "assistant" and (content is None or content == ""):
        return None
    return _Turn(role if role in ROLES else given, content)


def _content(content: Any, number: int) -> Any:
    """What a turn says: its text, that of its parts, or whatever else was found there."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if isinstance(part, dict) and part.get("type") not in _TEXT_PARTS:
            raise Unusable(
                "message {n} holds a part of the type {name}, expected text",
                code="part",
                n=number,
                name=shown(part["type"]),
            )
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise Unusable(
                "message {n} holds {found} among its parts, expected text",
                code="part",
                n=number,
                found=kind_of(text),
            )
        texts.append(text)
    return "\n".join(texts)


def _turns_of_messages(value: dict[str, Any]) -> list[Any]:
    """The turns of {"messages": [...]} or ShareGPT; either may spell role/content or from/value."""
    name = "messages" if "messages" in value else "conversations"
    entries = value[name]
    if not isinstance(entries, list):
        raise Unusable(
            "found {found} under '{key}', expected a list of turns",
            code="type",
            found=kind_of(entries),
            key=name,
        )
    return [*_system(value, "system"), *entries]


def _turns_of_pair(value: dict[str, Any]) -> list[Any]:
    """A question and its answer; an addition is the user's too; history and system optional.

    Either may also be a list of turns.
    """
    entries = _system(value, *_SYSTEMS)
    history = value.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(turn, list) and len(turn) == 2 for turn in history
    ):
        raise Unusable("'history' must be a list of [question, answer] pairs", code="type")
    for asked, said in history:
        entries += [_turn("user", asked), _turn("assistant", said)]
    key = _question_key(value) or _QUESTIONS[0]
    question, answer = value[key], _answer_key(value) or _ANSWERS[0]
    if isinstance(question, list):
        entries += question
    else:
        question = _string(value, key)
        added = next((name for name in _ADDITIONS if name != key and value.get(name)), "")
        addition = _string(value, added) if added else ""
        entries.append(_turn("user", f"{question}\n{addition}" if addition.strip() else question))
    said = value.get(answer)
    return entries + (
        said if isinstance(said, list) else [_turn("assistant", _string(value, answer))]
    )


def _question_key(keys: Collection[str]) -> str | None:
    return next((key for key in _QUESTIONS if key in keys), None)


def _answer_key(keys: Collection[str]) -> str | None:
    return next((key for key in _ANSWERS if key in keys), None)


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _system(value: dict[str, Any], *names: str) -> list[Any]:
    """The turn of the system, where one of these keys holds one."""
    return next(([_turn("system", value[name])] for name in names if value.get(name)), [])


def _string(value: dict[str, Any], key: str) -> str:
    entry = value.get(key)
    if not isinstance(entry, str):
        raise Unusable(
            "found {found} under '{key}', expected a string",
            code="type",
            found=kind_of(entry),
            key=key,
        )
    return entry


def _listing(entry: Any) -> str:
    return "、".join(map(str, entry)) if isinstance(entry, list) else str(entry)


def _from_string(text: str, as_text: bool = False) -> str | Dialogue | None:
    text = _strip_markers(text)
    if not text.strip():
        return None
    for labels in () if as_text else _LABELS:
        messages = _turns(text.strip(), labels)
        if messages:
            fault = turn_fault(messages)
            if fault:
                raise fault
            return tuple(messages)
    return text


def _turns(text: str, labels: re.Pattern[str]) -> list[Message]:
    """The turns of an older string; [] where it does not start with a label or has no answer.

    A label counts only where its turn is due, and a further question only where an answer
    follows, so that "用户：" inside a text stays text.
    """
    if not labels.match(text):  # as most texts; the search below would read all of it
        return []
    found = [
        (match.start(), match.end(), role)
        for match in labels.finditer(text)
        for role, label in zip(ROLES, match.groups(), strict=True)
        if label
    ]
    answers = [start for start, _, role in found if role == "assistant"]
    if not answers or found[0][2] == "assistant":
        return []
    turns = [found[0]]
    for start, end, role in found[1:]:
        due = "assistant" if turns[-1][2] == "user" else "user"
        if role == due and start <= answers[-1]:
            turns.append((start, end, role))
    ends = [start for start, _, _ in turns[1:]] + [len(text)]
    return [
        Message(role, _strip_markers(text[begin:end]).strip())
        for (_, begin, role), end in zip(turns, ends, strict=True)
    ]


def _strip_markers(text: str) -> str:
    """Without start and end markers and the blanks next to them; otherwise unchanged."""
    while (bare := text.lstrip()).startswith(_START_MARKERS):
        text = bare[bare.index(">") + 1 :].lstrip()
    while (bare := text.rstrip()).endswith(_END_MARKERS):
        text = bare[: bare.rindex("<")].rstrip()
    return text


def keys_of(value: dict[str, Any]) -> Phrase:
    """The keys of an object, for an error message."""
    keys = [shown(key, 50) for key in [*value][:6]]
    return Phrase("the keys {keys}", keys=keys) if value else Phrase("no keys")


def kind_of(value: Any) -> Phrase:
    """What a JSON value is, for an error message."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Phrase("the number {value}", value=shown(value, 30))
    found = _KINDS.get(type(value))
    return found or Phrase("a value of the type {type}", type=type(value).__name__)


_KINDS = {
    dict: Phrase("an object"),
    list: Phrase("a list"),
    str: Phrase("a string"),
    bool: Phrase("true or false"),
    type(None): Phrase("nothing"),
}
