"""ChatSession: a dialogue with a model, kept inside its context; answers to plain messages."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cgpt.chat.history import History, Turn, read_turns
from cgpt.chat.session_file import Saved, read_session, saved_of, values_of, write_session
from cgpt.config import SamplingConfig
from cgpt.corpus.records import Message
from cgpt.errors import CgptError, ConfigError
from cgpt.generation.beam import search
from cgpt.generation.context import Context
from cgpt.generation.generate import decode_stream, tokens_of
from cgpt.generation.keywords import Request, SamplingOptions, read_options, tokens_only
from cgpt.generation.prefix_cache import PrefixCache
from cgpt.generation.results import Dropped, Recorder, Token
from cgpt.generation.sampling import DEFAULTS, LogitsProcessor, Sampler
from cgpt.generation.streaming import Piece, PieceStream, TextStream, pieces
from cgpt.language_model import LanguageModel
from cgpt.runtime.cancellation import Cancelled
from cgpt.runtime.forking import ForkLock
from cgpt.validation import check_int, expect, one_text, path_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Kind = TypeVar("_Kind", TextStream, PieceStream)


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment: its turns and what the model has seen of them."""

    turns: tuple[Turn, ...]
    first: int
    left_out: int
    drawn: int
    context: Context


class ChatSession:
    """Turns of user and assistant, answered one after the other.

    sampling  how tokens are chosen; a seed makes the whole conversation repeatable
    system    a message that stands before all turns and is never dropped
    When the context is full the oldest turns are dropped from it (never from `history`), and a
    single message that is too long keeps its last part; `dropped` of an answer says so. Keys and
    values are reused between turns: only tokens that the model has not seen after the same
    beginning are inferred.
    A session is for one caller at a time. What is called in the thread of an answer that was not
    read to its end ends that answer; in another thread it gets a CgptError (code "busy") while an
    answer is under way, from `reply` on until it has ended, was closed or is forgotten.
    Raises ConfigError where the system message leaves too little room.
    """

    def __init__(
        self, llm: LanguageModel, sampling: SamplingConfig | None = None, system: str | None = None
    ) -> None:
        expect("ChatSession", llm, LanguageModel, "an LLM")
        self._llm = llm
        self._sampling = DEFAULTS if sampling is None else sampling
        expect("ChatSession", self._sampling, SamplingConfig, "a SamplingConfig")
        system = None if system is None else one_text("ChatSession: system", system)
        self._context = Context(llm.gpt)
        self._history = History(llm.tokenizer, self._context.capacity, system)
        self._answering: weakref.ref[TextStream | PieceStream] | None = None
        self._guard = ForkLock()
        self._sampler = self._new_sampler()
        self._history.budget(self._sampling.max_new_tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are what `to_dict` says of it, with the model."""
        return type(self).from_dict, (self._llm, self.to_dict())

    def __repr__(self) -> str:
        return (
            f"ChatSession({self.turns} turns, {self.context_tokens} of "
            f"{self._context.capacity} tokens of context"
            f"{', with a system message' if self.system else ''})"
        )

    # What was said

    @property
    def history(self) -> list[Message]:
        """All finished turns, user and assistant alternating; the system message is not in it."""
        return [message for turn in tuple(self._history.turns) for message in turn.messages()]

    @property
    def turns(self) -> int:
        """Number of finished turns; they are numbered from 0."""
        return len(self._history.turns)

    @property
    def system(self) -> str | None:
        """The message before all turns, if there is one."""
        return self._history.system

    @property
    def sampling(self) -> SamplingConfig:
        """How tokens are chosen where a reply does not say it."""
        return self._sampling

    @property
    def dropped(self) -> Dropped:
        """What of the history is no longer in the context."""
        return Dropped(self._history.left_out, self._history.first)

    @property
    def context_tokens(self) -> int:
        """Tokens that the model has seen and remembers."""
        return len(self._context)

    # Talking

    def reply(self, text: str, **options: Unpack[SamplingOptions]) -> TextStream:
        """Answer `text` in pieces of whole characters; blank text gives none and changes nothing.

        options  change the session's sampling for this answer, and end it early (SamplingOptions)
        The stream's `read()` and `result` give the whole answer as a Generation. The turn enters
        the history when the answer ends. An answer that is broken off (closed, cancelled, Ctrl-C)
        enters with the pieces given so far; a blank one leaves no turn.
        Raises ConfigError for an option that is unknown or out of range, CgptError (code "busy")
        while another thread has an answer under way.
        """
        return self._begin(TextStream, "ChatSession.reply", text, None, options)

    def stream(self, text: str, **options: Unpack[SamplingOptions]) -> PieceStream:
        """The same answer as pieces with their token ids and log-probabilities.

        The tokens of a stop string, or of half a character at the end, are in a piece without
        text.
        """
        return self._begin(
            PieceStream, "ChatSession.stream", text, None, {"logprobs": True, **options}
        )

    def edit(self, turn: int, text: str, **options: Unpack[SamplingOptions]) -> TextStream:
        """Ask `text` in place of the question of `turn` (negative from the end) and answer it.

        That turn and those after it leave the history; a blank answer brings them back.
        Raises ConfigError where there is no such turn; the rest as `reply`.
        """
        return self._begin(TextStream, "ChatSession.edit", text, self._number(turn), options)

    def regenerate(self, **options: Unpack[SamplingOptions]) -> TextStream:
        """Answer the last question again, with the next random numbers.

        Raises ConfigError where there is none; the rest as `reply`.
        """
        last = self._number(-1)
        return self._begin(
            TextStream, "ChatSession.regenerate", self._history.turns[last].question, last, options
        )

    def clear(self) -> None:
        """Forget all turns; the system message stays."""
        self._end_answer()
        self._history = History(self._llm.tokenizer, self._context.capacity, self.system)
        self._sampler = self._new_sampler()

    # Keeping

    def snapshot(self) -> Snapshot:
        """The session as it is, with a copy of keys and values, for `restore`."""
        self._end_answer()
        history = self._history
        return Snapshot(
            tuple(history.copied_turns()),
            history.first,
            history.left_out,
            self._sampler.uniforms.drawn,
            self._context.copy(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, as often as wanted; nothing is inferred again.

        Raises ConfigError for a snapshot of another model.
        """
        expect("ChatSession.restore", snapshot, Snapshot, "a Snapshot")
        if snapshot.context.gpt is not self._llm.gpt:
            raise ConfigError(
                "ChatSession.restore: the snapshot is of another model; take one of this session"
            )
        self._end_answer()
        history = History(self._llm.tokenizer, self._context.capacity, self.system, snapshot.turns)
        history.turns = history.copied_turns()
        history.first, history.left_out = snapshot.first, snapshot.left_out
        self._history = history
        self._sampler.uniforms.drawn = snapshot.drawn
        self._context = snapshot.context.copy()

    def to_dict(self) -> dict[str, Any]:
        """System message, turns and sampling, JSON-ready: what `save` writes."""
        return values_of(self._saved())

    @classmethod
    def from_dict(
        cls, llm: LanguageModel, values: Mapping[str, Any], sampling: SamplingConfig | None = None
    ) -> ChatSession:
        """The session that `to_dict` described; arguments and errors as `load`."""
        return cls._of(llm, saved_of(values), sampling)

    @classmethod
    def from_messages(
        cls,
        llm: LanguageModel,
        messages: Sequence[Message | Mapping[str, Any]],
        sampling: SamplingConfig | None = None,
    ) -> ChatSession:
        """A session in which these messages were said, ready for the next `reply`.

        messages  [system] user assistant ... as {"role", "content"} or Message, ending with an
                  answer; none is fine too
        Raises DataError naming the message that is wrong, ConfigError as the class does.
        """
        system, turns, _ = read_turns("ChatSession.from_messages", messages, asked=False)
        session = cls(llm, sampling, system)
        session._set_turns(turns)
        return session

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write system message, turns and sampling as JSON; the path holds the old or the new file.

        Returns the path. Raises CheckpointError (code "write") with the reason.
        """
        return write_session(path_text("ChatSession.save", path), self._saved())

    @classmethod
    def load(
        cls,
        llm: LanguageModel,
        path: str | os.PathLike[str],
        sampling: SamplingConfig | None = None,
    ) -> ChatSession:
        """The session that `save` wrote, ready to continue; with a seed, with the same tokens.

        sampling  instead of the one in the file
        Raises DataError for a file that is no session, ConfigError as the class does.
        """
        return cls._of(llm, read_session(path_text("ChatSession.load", path)), sampling)

    def _saved(self) -> Saved:
        self._end_answer()
        return Saved(self.system, self._sampling, self._sampler.uniforms.drawn, self.history)

    @classmethod
    def _of(cls, llm: LanguageModel, saved: Saved, sampling: SamplingConfig | None) -> ChatSession:
        session = cls(llm, saved.sampling if sampling is None else sampling, saved.system)
        session._set_turns(read_turns("ChatSession.load", saved.messages, asked=False)[1])
        session._sampler.uniforms.drawn = saved.drawn
        return session

    def _set_turns(self, turns: Sequence[Turn]) -> None:
        self._history.turns = list(turns)
        self._history.look_back(self._history.budget(self._sampling.max_new_tokens))

    # An answer

    def _begin(
        self, kind: type[_Kind], owner: str, text: str, turn: int | None, options: Mapping[str, Any]
    ) -> _Kind:
        """The answer to `text` as `turn`, a new one where it is None; nothing is done yet."""
        text = one_text(owner, text)
        request = read_options(owner, options, self._sampling)
        recorder = request.recorder()
        self._history.budget(request.sampling.max_new_tokens)
        with self._guard:
            self._end_answer()
            if not text.strip():
                recorder.end("stop")
                return kind((piece for piece in tuple[Piece, ...]()), recorder, request.limit)
            found = self._answer(text, self.turns if turn is None else turn, request, recorder)
            stream = kind(found, recorder, request.limit)
            self._answering = weakref.ref(stream)
        return stream

    def _answer(
        self, text: str, turn: int, request: Request, recorder: Recorder
    ) -> Generator[Piece, None, None]:
        history = self._history
        removed = history.turns[turn:]
        del history.turns[turn:]
        budget = history.budget(request.sampling.max_new_tokens)
        if removed:
            history.look_back(budget)
        found = answer(
            self._llm,
            lambda _: self._context,
            history,
            text,
            self._sampler_for(request),
            request,
            recorder,
        )
        given, ids = list[str](), list[int]()
        try:
            for piece in found:
                given.append(piece.text)
                ids += piece.ids
                yield piece
        finally:
            found.close()
            said = "".join(given)
            if said.strip():
                history.add(text, said, ids)
            else:
                history.turns += removed

    def _sampler_for(self, request: Request) -> Sampler:
        """The session's own, or for other options one that draws the session's next numbers;
        another seed starts others."""
        sampling = request.of_tokens
        if sampling == self._sampler.sampling and not request.processors:
            return self._sampler
        sampler = sampler_of(self._llm, sampling, request.processors)
        if sampling.seed == self._sampling.seed:
            sampler.uniforms = self._sampler.uniforms
        return sampler

    def _new_sampler(self) -> Sampler:
        return sampler_of(self._llm, self._sampling)

    def _end_answer(self) -> None:
        """Close an answer that was not read to its end, so that its turn is in the history.

        Raises CgptError (code "busy") where another thread has it under way.
        """
        with self._guard:
            stream = None if self._answering is None else self._answering()
            if stream is not None and not stream.ended:
                thread = stream.thread
                if thread is not threading.current_thread() and thread.is_alive():
                    raise CgptError(
                        "ChatSession: an answer is under way in another thread; wait "
                        "for it, close it, or use a session for each conversation",
                        code="busy",
                    )
                stream.close()
            self._answering = None

    def _number(self, turn: int) -> int:
        """The number of a turn from 0. Raises ConfigError where there is no such turn."""
        turn = check_int("ChatSession", "turn", turn, -1 << 63, 1 << 63)
        self._end_answer()
        n = self.turns
        if not -n <= turn < n:
            raise ConfigError(
                "ChatSession: there is no turn {turn}, the session has {n}", turn=turn, n=n
            )
        return turn % n


def sampler_of(
    llm: LanguageModel, sampling: SamplingConfig, processors: Sequence[LogitsProcessor] = ()
) -> Sampler:
    """What picks the tokens of an answer."""
    return Sampler(
        tokens_only(sampling),
        llm.config.vocab_size,
        llm.banned_ids,
        [llm.tokenizer.eos_id],
        processors,
    )


def answer(
    llm: LanguageModel,
    take: Callable[[list[int]], Context],
    history: History,
    text: str,
    sampler: Sampler,
    request: Request,
    recorder: Recorder,
) -> Generator[Piece, None, None]:
    """The answer to `text` after a history; half a character at the end is not shown.

    take  gives the context in which it is made, for a prompt
    """
    recorder.begin()
    budget = history.budget(request.sampling.max_new_tokens)
    question = history.question(text)
    prompt, recorder.dropped = history.prompt(question, budget)
    context = take(prompt)
    if sampler.sampling.beam > 1:
        tokens = _best_of_beams(llm, context, prompt, sampler, recorder)
    else:
        tokens = decode_stream(
            context,
            prompt,
            sampler,
            frozenset([llm.tokenizer.eos_id]),
            recorder,
            make_room=lambda said: history.make_room(question, said, budget),
        )
    yield from pieces(tokens, llm.tokenizer, request.sampling.stop, recorder, half=False)


def _best_of_beams(
    llm: LanguageModel, context: Context, prompt: list[int], sampler: Sampler, recorder: Recorder
) -> Generator[Token, None, None]:
    """The tokens of the best hypothesis; the context then holds the prompt."""
    cached = context.common(prompt)
    try:
        context.feed(prompt, limit=recorder.limit)
    except Cancelled:
        return
    best = search(
        llm.gpt,
        prompt,
        sampler,
        frozenset([llm.tokenizer.eos_id]),
        recorder,
        cache=context.copy().cache,
    )[0]
    recorder.cached_tokens = cached
    yield from tokens_of(best, recorder)


def chat_stream(
    llm: LanguageModel,
    messages: Sequence[Message | Mapping[str, Any]],
    options: Mapping[str, Any],
    kept: PrefixCache,
) -> TextStream:
    """The answer to the last of `messages`: that of a ChatSession in which the others were said.

    kept  contexts of earlier calls, among which is left that of this one
    Errors as LLM.chat.
    """
    request = read_options("LLM.chat", options, DEFAULTS)
    system, turns, question = read_turns("LLM.chat", messages, asked=True)
    history = History(llm.tokenizer, llm.config.block_size, system, turns)
    budget, sampler = (
        history.budget(request.sampling.max_new_tokens),
        sampler_of(llm, request.sampling, request.processors),
    )
    recorder = request.recorder()

    def found() -> Generator[Piece, None, None]:
        taken: list[tuple[Context, bytes]] = []

        def take(prompt: list[int]) -> Context:
            taken.append(kept.take(llm.gpt, prompt))
            return taken[0][0]

        recorder.begin()
        history.look_back(budget)
        try:
            yield from answer(llm, take, history, question or "", sampler, request, recorder)
        finally:
            for one in taken:
                kept.give(one)

    return TextStream(found(), recorder, request.limit)
