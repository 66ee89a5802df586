"""Where dialogues longer than the context are cut, and what that leaves out.

A part of a dialogue is whole rounds (a question and its answer), as many as fit, after the
beginning of the dialogue, <bos> and the system message, which every part has. So no part begins
inside a question. A round that is too long by itself is split:

- where its question leaves room for an answer, the first part has the question and as much of the
  answer as fits; what is left of the answer follows in further parts, each after the beginning of
  the dialogue and <assistant>
- else its answer is left out, and with it the question; where every token is trained, the question
  as far as it fits stays
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class TooLong:
    """What is longer than the context, and what becomes of it.

    rule       "cut", "drop", "error" or "windows", see `TrainConfig`
    longest    tokens of the context
    documents  texts that are longer;  dialogues  that are longer;  of  texts and dialogues in all
    parts      what they were cut into
    without_loss  tokens that would carry loss in a longer context and carry none in this one
    """

    rule: str
    longest: int
    documents: int = 0
    dialogues: int = 0
    of: int = 0
    parts: int = 0
    without_loss: int = 0

    def __bool__(self) -> bool:
        return bool(self.documents or self.dialogues)

    def __add__(self, other: TooLong) -> TooLong:
        """The sums of two parts of the same data."""
        names = ("documents", "dialogues", "of", "parts", "without_loss")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


class Part(NamedTuple):
    """Tokens first .. first + size - 1 of a dialogue after its first `prefix` ones.

    cued  whether the generation prompt (<assistant>) stands between them
    """

    first: int
    size: int
    prefix: int
    prompted: bool


def parts_of(
    tokens: np.ndarray, question: int, longest: int, n_prompt_tokens: int, all_tokens: bool
) -> tuple[list[Part], int]:
    """(parts of a dialogue, tokens that would carry loss in a longer context and carry none).

    tokens      (n,) as a shard has them: ~id where the token carries no loss
    question    where the first question begins: what stands before it begins every part
    longest     most ids of a part, so that it has at most longest + 1 tokens
    cue         tokens of the generation prompt: 1, or 0 where a template has none
    all_tokens  whether every token carries loss and not only the answers
    """
    loss_mask = tokens >= 0
    turns = np.flatnonzero(loss_mask[1:] != loss_mask[:-1]) + 1  # answer, question, answer, ...
    answers, starts = turns[0::2].tolist(), [question, *turns[1::2].tolist()]
    ends = [*starts[1:], len(tokens)]
    room = longest + 1 - question
    found: list[Part] = []
    without_loss = at = 0
    while at < len(answers):
        start = starts[at]
        last = at
        while last < len(answers) and ends[last] - start <= room:
            last += 1
        if last > at:
            found.append(_part(start, ends[last - 1] - start, question))
            at = last
            continue
        end, answer = ends[at], answers[at]
        if answer - start < room:
            first = start + room
            # So that the last part is more than <eos>, an answer that is nearly empty.
            first -= max(room - (answer - start) - (end - first), 0) // 2
            found.append(_part(start, first - start, question))
            found += _rest(first, end, question, longest, n_prompt_tokens)
        elif all_tokens and room > 0:
            found.append(_part(start, room, question))
            without_loss += end - start - room
        else:
            without_loss += end - (start if all_tokens else answer)
        at += 1
    if all_tokens and not found:
        without_loss += question - 1  # the system message is in no part
    return found, without_loss


def _part(start: int, size: int, question: int) -> Part:
    """A part of whole rounds from `start` on; the first needs no repetition of the beginning."""
    if start == question:
        return Part(0, question + size, 0, False)
    return Part(start, size, question, False)


def _rest(at: int, end: int, question: int, longest: int, n_prompt_tokens: int) -> list[Part]:
    """The parts of an answer from token `at` on, alike in size."""
    # Behind nothing the first token cannot be predicted; it is the one before it then.
    behind = 0 if question + n_prompt_tokens else 1
    room = longest + 1 - question - n_prompt_tokens - behind
    size = -(-(end - at) // -(-(end - at) // room))
    found = []
    while at < end:
        size = min(size, end - at)
        found.append(Part(at - behind, size + behind, question, bool(n_prompt_tokens)))
        at += size
    return found
