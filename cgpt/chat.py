"""ChatSession: a dialogue with a model, kept inside its context."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cgpt.context import Context
from cgpt.data import Message, encode_prompt
from cgpt.errors import ConfigError
from cgpt.generate import Token, decode, follow
from cgpt.llm import LLM
from cgpt.sampling import Sampler, SamplingConfig
from cgpt.session_file import Saved, read_session, write_session
from cgpt.streaming import Piece, pieces, text_of
from cgpt.template import template_of

_ANSWER_SHARE = 4       # at least a quarter of the context is kept free for an answer


@dataclass
class _Turn:
    """A question and its answer; ids: both in the template, while they are in the context."""

    question: str
    answer: str
    ids: list[int] | None = None


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment: its turns and what the model has seen of them."""

    turns: tuple[_Turn, ...]
    first: int
    drawn: int
    context: Context


class ChatSession:
    """Turns of user and assistant, answered one after the other.

    sampling  how tokens are chosen; a seed makes the whole conversation repeatable
    system    a message that stands before all turns and is never dropped
    When the context is full the oldest turns are dropped from it (never from `history`), and a
    single message that is too long keeps its last part. Keys and values are reused between turns:
    only tokens that the model has not seen behind the same beginning are inferred.
    Raises ConfigError where the system message leaves too little room.
    """

    def __init__(self, llm: LLM, sampling: SamplingConfig | None = None,
                 system: str | None = None) -> None:
        self._llm = llm
        self._sampling = SamplingConfig() if sampling is None else sampling
        self._system = [Message("system", system)] if system and system.strip() else []
        self._template = template_of(llm.tokenizer)
        self._head = [*self._template.start, *(
            token for message in self._system
            for token in self._template.message("system", message.content))]
        self._context = Context(llm.gpt)
        self._turns: list[_Turn] = []
        self._first = 0             # the oldest turn that is in the context
        self._answering: Generator[Piece, None, None] | None = None
        self._sampler = self._new_sampler()
        capacity = self._context.capacity
        self._budget = capacity - min(self._sampling.max_new_tokens, capacity // _ANSWER_SHARE)
        fixed = len(encode_prompt(llm.tokenizer, [*self._system, Message("user", "?")]))
        if 2 * fixed > self._budget:
            raise ConfigError(
                f"chat: the system message and the marks of a turn take {fixed} of the {capacity} "
                f"tokens of context, at most {self._budget // 2} may be; "
                f"{'shorten the message' if self._system else 'the context is too short to chat'}")

    # What was said

    @property
    def history(self) -> list[Message]:
        """All finished turns, user and assistant alternating; the system message is not in it."""
        return [message for turn in self._turns for message in _messages(turn)]

    @property
    def turns(self) -> int:
        """Number of finished turns; they are numbered from 0."""
        return len(self._turns)

    @property
    def system(self) -> str | None:
        """The message before all turns, if there is one."""
        return self._system[0].content if self._system else None

    @property
    def sampling(self) -> SamplingConfig:
        """How tokens are chosen."""
        return self._sampling

    @property
    def context_tokens(self) -> int:
        """Tokens that the model has seen and remembers."""
        return len(self._context)

    # Talking

    def reply(self, text: str) -> Iterator[str]:
        """Answer `text` in pieces of whole characters; blank text gives none and changes nothing.

        The turn enters the history when the answer ends. An answer that is broken off (the
        iterator is closed, Ctrl-C) enters with the pieces given so far; a blank one leaves no turn.
        """
        return _texts(self._begin(text, None, logprobs=False))

    def stream(self, text: str) -> Iterator[Piece]:
        """The same answer as pieces with their token ids and log-probabilities.

        The tokens of a stop string, or of half a character at the end, are in a piece without
        text.
        """
        return self._begin(text, None, logprobs=True)

    def edit(self, turn: int, text: str) -> Iterator[str]:
        """Ask `text` in place of the question of `turn` (negative from the end) and answer it.

        That turn and those behind it leave the history; a blank answer brings them back.
        Raises ConfigError where there is no such turn.
        """
        return _texts(self._begin(text, self._number(turn), logprobs=False))

    def regenerate(self) -> Iterator[str]:
        """Answer the last question anew, with the next random numbers.

        Raises ConfigError where there is none.
        """
        last = self._number(-1)
        return self.edit(last, self._turns[last].question)

    def clear(self) -> None:
        """Forget all turns; the system message stays."""
        self._end_answer()
        self._turns.clear()
        self._first = 0
        self._sampler = self._new_sampler()

    # Keeping

    def snapshot(self) -> Snapshot:
        """The session as it is, with a copy of keys and values, for `restore`."""
        self._end_answer()
        return Snapshot(tuple(map(replace, self._turns)), self._first,
                        self._sampler.uniforms.drawn, self._context.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, as often as wanted; nothing is inferred again.

        Raises ConfigError for a snapshot of another model.
        """
        if snapshot.context.gpt is not self._llm.gpt:
            raise ConfigError("ChatSession.restore: the snapshot is of another model; take one of "
                              "this session")
        self._end_answer()
        self._turns = list(map(replace, snapshot.turns))
        self._first = snapshot.first
        self._sampler.uniforms.drawn = snapshot.drawn
        self._context = snapshot.context.copy()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write system message, turns and sampling as JSON; the path holds the old or the new file.

        Returns the path. Raises CheckpointError (code "write") with the reason.
        """
        self._end_answer()
        return write_session(path, Saved(self.system, self._sampling,
                                         self._sampler.uniforms.drawn, self.history))

    @classmethod
    def load(cls, llm: LLM, path: str | os.PathLike[str],
             sampling: SamplingConfig | None = None) -> ChatSession:
        """The session that `save` wrote, ready to go on; with a seed it goes on to the token.

        sampling  instead of the one in the file
        Raises DataError for a file that is no session, ConfigError as the class does.
        """
        saved = read_session(path)
        session = cls(llm, saved.sampling if sampling is None else sampling, saved.system)
        session._turns = [_Turn(question.content, answer.content) for question, answer
                          in zip(saved.messages[::2], saved.messages[1::2], strict=True)]
        session._sampler.uniforms.drawn = saved.drawn
        session._first = len(session._turns)
        session._look_back()
        return session

    # An answer

    def _begin(self, text: str, turn: int | None,
               logprobs: bool) -> Generator[Piece, None, None]:
        """The answer to `text` as `turn`, a new one where it is None; nothing is done yet."""
        self._end_answer()
        if not text.strip():
            return (piece for piece in tuple[Piece, ...]())
        self._answering = self._answer(text, len(self._turns) if turn is None else turn, logprobs)
        return self._answering

    def _answer(self, text: str, turn: int, logprobs: bool) -> Generator[Piece, None, None]:
        removed = self._turns[turn:]
        del self._turns[turn:]
        if removed:
            self._first = min(self._first, turn)
            self._look_back()
        given: list[str] = []
        ids: list[int] = []
        found = pieces(self._tokens(text, logprobs), self._llm.tokenizer, self._sampling.stop,
                       half=False)
        try:
            for piece in found:
                given.append(piece.text)
                ids += piece.ids
                yield piece
        finally:
            found.close()
            answer = "".join(given)
            if answer.strip():
                self._turns.append(_Turn(text, answer, self._turn_ids(text, answer, ids)))
            else:
                self._turns += removed

    def _tokens(self, text: str, logprobs: bool) -> Generator[Token, None, None]:
        """The answer's tokens up to eos; an answer that fills the context goes on."""
        tokenizer = self._llm.tokenizer
        question = [*self._template.message("user", text), *self._template.cue]
        prompt = self._prompt(question)
        if self._sampling.beam > 1:
            self._context.feed(prompt)
            return decode(self._llm.gpt, prompt, self._token_sampling(),
                          banned=self._llm.banned_ids, stop=[tokenizer.eos_id],
                          cache=self._context.copy().cache)
        return follow(self._context, prompt, self._sampler, frozenset([tokenizer.eos_id]),
                      make_room=lambda answer: self._make_room(question, answer),
                      logprobs=logprobs)

    def _token_sampling(self) -> SamplingConfig:
        return replace(self._sampling, stop=())

    def _new_sampler(self) -> Sampler:
        return Sampler(self._token_sampling(), self._llm.config.vocab_size, self._llm.banned_ids,
                       [self._llm.tokenizer.eos_id])

    def _end_answer(self) -> None:
        """Close an answer that was not read to its end, so that its turn is in the history."""
        if self._answering is not None:
            self._answering.close()
            self._answering = None

    def _number(self, turn: int) -> int:
        """The number of a turn from 0. Raises ConfigError where there is no such turn."""
        self._end_answer()
        n = len(self._turns)
        if not -n <= turn < n:
            raise ConfigError(f"ChatSession: there is no turn {turn}, the session has {n}")
        return turn % n

    # The context

    def _prompt(self, question: list[int]) -> list[int]:
        """Template of the turns in the context and the question, within the budget.

        Where turns have to go, a quarter of the budget is freed at once, so that not every turn
        from then on has to be inferred anew.
        """
        if self._size() + len(question) > self._budget:
            self._drop(self._budget * 3 // 4 - len(question))
        return self._shorten([*self._known(), *question], question, self._budget)

    def _make_room(self, question: list[int], answer: list[int]) -> list[int]:
        """Tokens of a context that was full, with room again, ending in the answer so far."""
        room = self._budget - len(answer)
        self._drop(room - len(question))
        ids = [*self._known(), *question]
        # What is left of a long answer follows at least half a budget of its question's end.
        ids = self._shorten(ids, question, max(room, min(len(ids), self._budget // 2)))
        return [*ids, *answer[-(self._budget - len(ids)):]]

    def _size(self) -> int:
        return len(self._head) + sum(len(self._ids(turn)) for turn in self._turns[self._first:])

    def _known(self) -> list[int]:
        """Head and turns of the context."""
        return [*self._head, *(token for turn in self._turns[self._first:]
                               for token in self._ids(turn))]

    def _drop(self, most: int) -> None:
        """Leave out the oldest turns until head and turns have at most `most` tokens."""
        size = self._size()
        while self._first < len(self._turns) and size > most:
            turn = self._turns[self._first]
            size -= len(self._ids(turn))
            turn.ids = None
            self._first += 1

    def _look_back(self) -> None:
        """Take older turns into the context, as far as three quarters of the budget go."""
        size = self._size()
        while self._first > 0:
            size += len(self._ids(self._turns[self._first - 1]))
            if size > self._budget * 3 // 4:
                self._turns[self._first - 1].ids = None
                return
            self._first -= 1

    def _ids(self, turn: _Turn) -> list[int]:
        if turn.ids is None:
            turn.ids = self._turn_ids(turn.question, turn.answer, [])
        return turn.ids

    def _turn_ids(self, question: str, answer: str, said: list[int]) -> list[int]:
        """A turn's tokens. `said`: those of the answer as the model said them, which the cache
        knows; another way to write the same text would have to be inferred."""
        tokenizer, template = self._llm.tokenizer, self._template
        ids = template.message("user", question)
        if said and text_of(said, tokenizer, ()) == answer:
            return [*ids, *template.cue, *said, tokenizer.eos_id]
        return ids + template.message("assistant", answer)

    def _shorten(self, ids: list[int], question: list[int], most: int) -> list[int]:
        """ids, which end in `question`, without the first tokens of its text, `most` long."""
        excess = len(ids) - most
        if excess <= 0:
            return ids
        mark, cue = len(self._template.message("user", "")), len(self._template.cue)
        start = len(ids) - len(question) + mark
        excess = min(excess, len(ids) - cue - start)
        return ids[:start] + ids[start + excess:]


def _messages(turn: _Turn) -> tuple[Message, Message]:
    return Message("user", turn.question), Message("assistant", turn.answer)


def _texts(found: Generator[Piece, None, None]) -> Iterator[str]:
    """What the pieces show. Closed, it closes them."""
    try:
        for piece in found:
            if piece.text:
                yield piece.text
    finally:
        found.close()
