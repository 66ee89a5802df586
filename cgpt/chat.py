"""ChatSession: a dialogue with a model, kept inside its context."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from cgpt.data import Message, encode_prompt
from cgpt.errors import ConfigError
from cgpt.generate import Context, Sampler, SamplingConfig, generate_tokens
from cgpt.llm import LLM

_ANSWER_SHARE = 4       # at least a quarter of the context is kept free for an answer


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
        self._context = Context(llm.gpt)
        self._history: list[Message] = []
        self._first = 0             # of the history: the oldest message that is in the context
        self._answering: Generator[str, None, None] | None = None
        self._sampler = self._new_sampler()
        capacity = self._context.capacity
        self._budget = capacity - min(self._sampling.max_new_tokens, capacity // _ANSWER_SHARE)
        fixed = len(encode_prompt(llm.tokenizer, [*self._system, Message("user", "?")]))
        if 2 * fixed > self._budget:
            raise ConfigError(
                f"chat: the system message and the marks of a turn take {fixed} of the {capacity} "
                f"tokens of context, at most {self._budget // 2} may be; "
                f"{'shorten the message' if self._system else 'the context is too short to chat'}")

    @property
    def history(self) -> list[Message]:
        """All finished turns, user and assistant alternating; the system message is not in it."""
        return list(self._history)

    @property
    def sampling(self) -> SamplingConfig:
        """How tokens are chosen."""
        return self._sampling

    @property
    def context_tokens(self) -> int:
        """Tokens that the model has seen and remembers."""
        return len(self._context.ids)

    def clear(self) -> None:
        """Forget all turns; the system message stays."""
        self._end_answer()
        self._history.clear()
        self._first = 0
        self._sampler = self._new_sampler()

    def reply(self, text: str) -> Iterator[str]:
        """Answer `text` in pieces of whole characters; blank text gives none and changes nothing.

        The turn enters the history when the answer ends. An answer that is broken off (the
        iterator is closed, Ctrl-C) enters with the pieces given so far; a blank one leaves no turn.
        """
        self._end_answer()
        if not text.strip():
            return iter(())
        self._answering = self._reply(text)
        return self._answering

    def _reply(self, text: str) -> Generator[str, None, None]:
        given: list[str] = []
        question = Message("user", text)
        try:
            for piece in self._pieces(question):
                given.append(piece)
                yield piece
        finally:
            answer = "".join(given)
            if answer.strip():
                self._history += [question, Message("assistant", answer)]

    def _pieces(self, question: Message) -> Iterator[str]:
        decoder = self._llm.tokenizer.decoder()
        for token in self._tokens(question):
            if piece := decoder.push(token):
                yield piece
        # What the decoder still holds is half a character, which is not shown.

    def _tokens(self, question: Message) -> Iterator[int]:
        """The answer's tokens up to eos; an answer that fills the context goes on."""
        eos, most = self._llm.tokenizer.eos_id, self._sampling.max_new_tokens
        prompt = self._prompt(question)
        if self._sampling.beam > 1:
            yield from self._beam(prompt)
            return
        answer: list[int] = []
        logits = self._context.feed(prompt) if most else None
        while len(answer) < most:
            token = self._sampler.pick(logits, self._context.ids)
            if token == eos:
                return
            answer.append(token)
            yield token
            if len(answer) == most:
                return
            if len(self._context.ids) < self._context.capacity:
                logits = self._context.push(token)
            else:
                logits = self._context.feed(self._make_room(question, answer))

    def _beam(self, prompt: list[int]) -> Iterator[int]:
        """The best hypothesis, which is known only as a whole."""
        self._context.feed(prompt)
        return generate_tokens(self._llm.gpt, prompt, self._sampling, banned=self._llm.banned_ids,
                               stop=[self._llm.tokenizer.eos_id],
                               cache=self._context.copy().cache)

    def _prompt(self, question: Message) -> list[int]:
        """Template of the turns in the context and the question, within the budget.

        Where turns have to go, a quarter of the budget is freed at once, so that not every turn
        from then on has to be inferred anew.
        """
        ids = self._encode(question)
        if len(ids) > self._budget:
            while self._first < len(self._history) and len(ids) > self._budget * 3 // 4:
                self._first += 2
                ids = self._encode(question)
        return self._shorten(ids, self._budget)

    def _make_room(self, question: Message, answer: list[int]) -> list[int]:
        """Tokens of a context that was full, with room again, ending in the answer so far."""
        room = self._budget - len(answer)
        ids = self._encode(question)
        while self._first < len(self._history) and len(ids) > room:
            self._first += 2
            ids = self._encode(question)
        # What is left of a long answer follows at least half a budget of its question's end.
        ids = self._shorten(ids, max(room, min(len(ids), self._budget // 2)))
        return [*ids, *answer[-(self._budget - len(ids)):]]

    def _encode(self, question: Message) -> list[int]:
        messages = [*self._system, *self._history[self._first:], question]
        return encode_prompt(self._llm.tokenizer, messages)

    def _shorten(self, ids: list[int], most: int) -> list[int]:
        """The prompt without the first tokens of its last user message, `most` tokens long."""
        excess = len(ids) - most
        if excess <= 0:
            return ids
        start = len(ids) - 1 - ids[::-1].index(self._llm.tokenizer.user_id) + 1
        excess = min(excess, len(ids) - 1 - start)
        return ids[:start] + ids[start + excess:]

    def _new_sampler(self) -> Sampler:
        return Sampler(self._sampling, self._llm.config.vocab_size, self._llm.banned_ids,
                       [self._llm.tokenizer.eos_id])

    def _end_answer(self) -> None:
        """Close an answer that was not read to its end, so that its turn is in the history."""
        if self._answering is not None:
            self._answering.close()
            self._answering = None
