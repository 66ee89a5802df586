"""Documents and dialogues -> samples of tokens.

A document is <bos> text <eos>, every token of which carries loss. A dialogue is
    <bos> [<system> text] <user> text <assistant> text <eos> <user> text <assistant> text <eos>
and only the assistant's text and its <eos> carry loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cgpt.corpus.records import Message, turn_fault
from cgpt.errors import DataError, shown
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer

IGNORED = -1  # the target of a token that carries no loss


@dataclass(frozen=True)
class Sample:
    """ids (n,) int32; targets (n,) int32: the token that follows ids[i], -1 for no loss."""

    ids: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def encode_document(tokenizer: Tokenizer, text: str) -> Sample:
    """ids = <bos> text, targets = text <eos>."""
    tokens = np.array(
        [*template_of(tokenizer).opening, *tokenizer.encode(text), tokenizer.eos_id], dtype=np.int32
    )
    return Sample(tokens[:-1], tokens[1:])


def encode_dialogue(tokenizer: Tokenizer, dialogue: Sequence[Message]) -> Sample:
    """The dialogue by the template above. Raises DataError where the turns do not alternate."""
    check_turns(dialogue, "assistant")
    template = template_of(tokenizer)
    tokens, loss_mask = list(template.start), [False] * len(template.start)
    for message in dialogue:
        found = template.message(message.role, message.content)
        n_masked = len(template.generation_prompt) if message.role == "assistant" else len(found)
        tokens += found
        loss_mask += [False] * n_masked + [True] * (len(found) - n_masked)
    ids = np.array(tokens, dtype=np.int32)
    return Sample(ids[:-1], np.where(loss_mask[1:], ids[1:], np.int32(IGNORED)))


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The template up to the answer that is due: messages end with the user's, ids with
    <assistant>. Raises DataError where the turns do not alternate."""
    check_turns(messages, "user")
    template = template_of(tokenizer)
    return [
        *template.start,
        *(
            token
            for message in messages
            for token in template.message(message.role, message.content)
        ),
        *template.generation_prompt,
    ]


def check_turns(messages: Sequence[Message], last: str) -> None:
    """Raises DataError where the turns do not alternate or the last is not from `last`."""
    if not isinstance(messages, (list, tuple)) or not all(
        isinstance(message, Message) for message in messages
    ):
        raise DataError(
            "dialogue: expected Message(role, content) one after the other, found {value}",
            value=shown(messages, 100),
        )
    fault = turn_fault(messages, last)
    if fault:
        raise DataError("dialogue: {reason}", reason=fault)
