"""The turns of a dialogue, and which of them a context has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cgpt.corpus.encoding import check_turns
from cgpt.corpus.inputs import as_messages
from cgpt.corpus.records import Message
from cgpt.errors import ConfigError, Phrase
from cgpt.generation.results import Dropped, Generation
from cgpt.generation.streaming import text_of
from cgpt.tokenizers.chat_template import template_of
from cgpt.tokenizers.tokenizer import Tokenizer

_ANSWER_SHARE = 4  # at least a quarter of the context is kept free for an answer


@dataclass
class Turn:
    """A question and its answer.

    ids      both in the template, while they are in the context
    asked    tokens of the question in the template; size: of both (0 where not counted yet)
    said     the tokens of the answer where a model is known to have said it with these
    """

    question: str
    answer: str
    ids: list[int] | None = None
    asked: int = 0
    size: int = 0
    said: tuple[int, ...] = ()

    def messages(self) -> tuple[Message, Message]:
        """The same as messages."""
        return Message("user", self.question), Message("assistant", self.answer)


class History:
    """The system message and the finished turns, and those of them that are in the context.

    turns     all, the oldest first
    first     the oldest one that is in the context; left_out: tokens of those before it
    capacity  tokens of the context
    The rule: the system message is never left out. Where it, the turns and a new question have
    more than `budget` tokens, the oldest turns are left out until they have three quarters of
    that. A question that is too long by itself loses its beginning.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        capacity: int,
        system: str | None = None,
        turns: Sequence[Turn] = (),
    ) -> None:
        self.tokenizer, self.capacity = tokenizer, capacity
        self.system = system if system and system.strip() else None
        self.turns = list(turns)
        self.first = self.left_out = 0
        self._template = template_of(tokenizer)
        self._head = list(self._template.start)
        if self.system is not None:
            self._head += self._template.message("system", self.system)

    def budget(self, max_new_tokens: int) -> int:
        """Tokens for all but the answer: at least a quarter of the context is left for that, or
        max_new_tokens. Raises ConfigError where the system message leaves too little room."""
        budget = self.capacity - min(max_new_tokens, self.capacity // _ANSWER_SHARE)
        fixed = len(self._head) + len(self.question("?"))
        if 2 * fixed > budget:
            raise ConfigError(
                "chat: the system message and the marks of a turn take {n} of the "
                "{capacity} tokens of context, at most {most} may be; {advice}",
                n=fixed,
                capacity=self.capacity,
                most=budget // 2,
                advice=Phrase(
                    "shorten the message" if self.system else "the context is too short to chat"
                ),
            )
        return budget

    def question(self, text: str) -> list[int]:
        """The tokens of a question, up to the answer that is due."""
        return [*self._template.message("user", text), *self._template.generation_prompt]

    def prompt(self, question: list[int], budget: int) -> tuple[list[int], Dropped]:
        """The tokens of the dialogue up to a new question's, and what was left out of them.

        Where turns have to go, a quarter of the budget is freed at once, so that not every turn
        from then on has to be inferred again.
        """
        if self._size() + len(question) > budget:
            self._drop(budget * 3 // 4 - len(question))
        ids = [*self._known(), *question]
        shortened = self._shorten(ids, question, budget)
        return shortened, Dropped(self.left_out + len(ids) - len(shortened), self.first)

    def make_room(self, question: list[int], answer: list[int], budget: int) -> list[int]:
        """Tokens of a context that was full, with room again, ending in the answer so far."""
        room = budget - len(answer)
        self._drop(room - len(question))
        ids = [*self._known(), *question]
        # What is left of a long answer follows at least half a budget of its question's end.
        ids = self._shorten(ids, question, max(room, min(len(ids), budget // 2)))
        return [*ids, *answer[-(budget - len(ids)) :]]

    def add(self, question: str, answer: str, said: list[int]) -> None:
        """A finished turn. `said`: the tokens of the answer as the model said them, which the
        cache knows; another way to write the same text would have to be inferred."""
        turn = Turn(question, answer)
        self._count(turn, said)
        self.turns.append(turn)

    def look_back(self, budget: int) -> None:
        """Take into the context what a dialogue that came to these turns one by one has there."""
        self.first, size = 0, len(self._head)
        for i, turn in enumerate(self.turns):
            if not turn.size:
                self._count(turn)
            if size + turn.asked > budget:
                while self.first < i and size > budget * 3 // 4 - turn.asked:
                    size -= self.turns[self.first].size
                    self.first += 1
            size += turn.size
        for turn in self.turns[: self.first]:
            turn.ids = None
        self.left_out = sum(turn.size for turn in self.turns[: self.first])

    def _count(self, turn: Turn, said: Sequence[int] = ()) -> None:
        """Make the tokens of a turn, and count them."""
        template = self._template
        said, ids = said or turn.said, template.message("user", turn.question)
        turn.asked = len(ids) + len(template.generation_prompt)
        if said and text_of(said, self.tokenizer) == turn.answer:
            ids = [*ids, *template.generation_prompt, *said, self.tokenizer.eos_id]
        else:
            ids += template.message("assistant", turn.answer)
        turn.ids, turn.size = ids, len(ids)

    def _ids(self, turn: Turn) -> list[int]:
        if turn.ids is None:
            self._count(turn)
        assert turn.ids is not None
        return turn.ids

    def _size(self) -> int:
        return len(self._head) + sum(len(self._ids(turn)) for turn in self.turns[self.first :])

    def _known(self) -> list[int]:
        """System message and turns of the context."""
        return [
            *self._head,
            *(token for turn in self.turns[self.first :] for token in self._ids(turn)),
        ]

    def _drop(self, most: int) -> None:
        """Leave out the oldest turns until system message and turns have at most `most` tokens."""
        size = self._size()
        while self.first < len(self.turns) and size > most:
            turn = self.turns[self.first]
            n = len(self._ids(turn))
            turn.ids = None
            size, self.left_out, self.first = size - n, self.left_out + n, self.first + 1

    def _shorten(self, ids: list[int], question: list[int], most: int) -> list[int]:
        """ids, which end in `question`, without the first tokens of its text, `most` long."""
        excess = len(ids) - most
        if excess <= 0:
            return ids
        mark = len(self._template.message("user", ""))
        n_prompt_tokens = len(self._template.generation_prompt)
        start = len(ids) - len(question) + mark
        excess = min(excess, len(ids) - n_prompt_tokens - start)
        return ids[:start] + ids[start + excess :]

    def copied_turns(self) -> list[Turn]:
        """All turns, each a copy."""
        return list(map(replace, self.turns))


def read_turns(owner: str, messages: Any, asked: bool) -> tuple[str | None, list[Turn], str | None]:
    """(system message, turns, last question) of a dialogue, each message a Message or {"role",
    "content"}; there is a last question where `asked`, else none.

    An answer that is a Generation is taken with the tokens that the model said. Raises DataError
    naming the message that is wrong.
    """
    found = as_messages(owner, messages)
    if asked or any(one.role != "system" for one in found):
        check_turns(found, "user" if asked else "assistant")
    system = found[0].content if found and found[0].role == "system" else None
    first, end = int(system is not None), len(found) - asked
    turns = [
        Turn(found[i].content, found[i + 1].content, said=_said(messages[i + 1]))
        for i in range(first, end, 2)
    ]
    return system, turns, found[-1].content if asked else None


def _said(message: Any) -> tuple[int, ...]:
    """The tokens of a message whose content is what a model said; () of other messages."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return content.ids if isinstance(content, Generation) else ()
