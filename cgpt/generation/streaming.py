"""Tokens into text: whole characters only, nothing of a stop string; the streams that give it."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from cgpt.errors import CgptError
from cgpt.generation.results import Generation, Recorder, Token, TopLogprob
from cgpt.runtime.cancellation import Limit
from cgpt.runtime.forking import ForkLock
from cgpt.tokenizers.tokenizer import StreamDecoder, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_Shown = TypeVar("_Shown")


@dataclass(frozen=True)
class Piece:
    """Some text as it is generated.

    text          whole characters; "" where the tokens give nothing to show
    ids           the tokens that were picked since the piece before
    logprobs      their log-probabilities (nats); () where they were not asked for
    top_logprobs  for each the likeliest tokens at its place; () where they were not asked for
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[TopLogprob, ...], ...] = ()


class StopFilter:
    """Lets text through up to where a stop string begins; holds back what may become one.

    The stop string that is completed first in the text counts, of several that end there the
    longest: so the cut does not depend on how the text comes in parts.
    stop  the one that was completed, None so far; nothing comes after it
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self._most = max(map(len, stop), default=1) - 1
        self.stop: str | None = None

    def push(self, text: str) -> str:
        """What of the text so far can be shown and was not yet."""
        held = self._held + text
        found = min(
            ((place + len(one), place) for one in self._stop if (place := held.find(one)) >= 0),
            default=None,
        )
        if found is None:
            keep = len(held) - self._beginning(held)
        else:
            keep, self.stop = found[1], held[found[1] : found[0]]
        self._held = held[keep:]
        return held[:keep]

    def end(self) -> str:
        """What was held back, when no more text comes and it did not become a stop string."""
        held, self._held = self._held, ""
        return "" if self.stop is not None else held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        return next(
            (
                n
                for n in range(min(self._most, len(text)), 0, -1)
                if any(one.startswith(text[-n:]) for one in self._stop)
            ),
            0,
        )


def completed(decoder: StreamDecoder, token: int) -> str:
    """The text that a generated token completes, U+FFFD for lone surrogates.

    A text from outside may hold those, and keeps them; what a model says can always be encoded.
    """
    return _LONE_SURROGATE.sub("\ufffd", decoder.push(token))


class Assembler:
    """Text from tokens, one by one; whoever generates stops where a stop string is completed.

    stop  as of StopFilter
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = tokenizer.decoder()
        self._texts = StopFilter(stop)

    @property
    def stop(self) -> str | None:
        """The stop string that was completed, if one was."""
        return self._texts.stop

    def push(self, token: int) -> str:
        """What can be shown with this token and could not before."""
        return self._texts.push(completed(self._decoder, token))

    def end(self, half: bool = True) -> str:
        """What can be shown when no more tokens come; `half` a character as U+FFFD."""
        if self.stop is not None:
            return ""
        last = self._texts.push(self._decoder.flush()) if half else ""
        return last + self._texts.end()


def text_of(ids: Iterable[int], tokenizer: Tokenizer, stop: Sequence[str] = ()) -> str:
    """The text of tokens up to the first stop string that is completed."""
    text, parts = Assembler(tokenizer, stop), list[str]()
    for token in ids:
        parts.append(text.push(token))
        if text.stop is not None:
            break
    return "".join(parts) + text.end()


def stop_of(ids: Iterable[int], tokenizer: Tokenizer, stop: Sequence[str]) -> str | None:
    """The stop string that is completed first in the text of tokens, None for none."""
    text = Assembler(tokenizer, stop)
    for token in ids:
        text.push(token)
        if text.stop is not None:
            return text.stop
    text.end()
    return text.stop


def pieces(
    tokens: Generator[Token, None, None],
    tokenizer: Tokenizer,
    stop: Sequence[str] = (),
    recorder: Recorder | None = None,
    *,
    half: bool = True,
) -> Generator[Piece, None, None]:
    """Pieces of the tokens' text, up to a stop string; all ids of `tokens` are in a piece.

    recorder  notes the tokens, and the stop string where one ends them
    half      whether half a character at the very end is shown, as U+FFFD
    The tokens that made a stop string are in the last piece, whose text ends before it.
    """
    recorder = Recorder() if recorder is None else recorder
    text, waiting = Assembler(tokenizer, stop), list[Token]()
    try:
        for token in tokens:
            recorder.add(token)
            waiting.append(token)
            if shown := text.push(token.id):
                yield _piece(shown, waiting)
            if text.stop is not None:
                break
        else:
            if last := text.end(half):
                yield _piece(last, waiting)
    finally:
        tokens.close()
    if text.stop is not None:
        recorder.end("stop", text.stop)
    if waiting:
        yield _piece("", waiting)


def _piece(text: str, waiting: list[Token]) -> Piece:
    """The tokens that wait for their text, with it; none waits any more."""
    ids, logprobs, top = zip(*waiting, strict=True) if waiting else ((), (), ())
    waiting.clear()
    return Piece(text, ids, logprobs if None not in logprobs else (), top if any(top) else ())


class Unfinished(CgptError, AttributeError):
    """The result of a stream that has not ended yet. code: unfinished."""

    code = "unfinished"


class Stream(Generator[_Shown, None, None]):
    """What TextStream and PieceStream are."""

    def __init__(
        self, found: Generator[Piece, None, None], recorder: Recorder, limit: Limit
    ) -> None:
        """limit: the recorder's."""
        self._found, self._recorder, self._limit = found, recorder, limit
        self._texts: list[str] = []
        self._result: Generation | None = None
        self._reading = ForkLock()
        self.thread = threading.current_thread()  # that reads it, as far as is known

    def _show(self, piece: Piece) -> _Shown | None:
        """What is given of a piece, None for nothing."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether no more comes."""
        return self._result is not None

    @property
    def result(self) -> Generation:
        """All of it, once it has ended. Raises CgptError (code "unfinished") before."""
        if self._result is None:
            raise Unfinished(
                "result: the answer has not ended yet; read it to its end, or close it first"
            )
        return self._result

    def read(self) -> Generation:
        """Read what is left; the result."""
        for _ in self:
            pass
        return self.result

    def __next__(self) -> _Shown:
        if not self._reading.acquire(blocking=False):
            raise CgptError(
                "stream: another thread is reading it; read each stream in one thread at a time",
                code="busy",
            )
        try:
            self.thread = threading.current_thread()
            self._recorder.begin()
            for piece in self._found:
                self._texts.append(piece.text)
                shown = self._show(piece)
                if shown is not None:
                    return shown
            self._end()
        finally:
            self._reading.release()
        raise StopIteration

    def send(self, value: None, /) -> _Shown:
        """The next piece."""
        return next(self)

    def throw(
        self, typ: Any, value: Any = None, traceback: TracebackType | None = None, /
    ) -> _Shown:
        """Close it and raise the exception."""
        self.close()
        error = value if isinstance(value, BaseException) else typ
        raise error if traceback is None else error.with_traceback(traceback)

    def close(self) -> None:
        """End it here. While another thread reads it, that one ends it within one decode call."""
        self._limit.end()
        if not self._reading.acquire(blocking=False):
            return
        try:
            self._found.close()
            self._end()
        finally:
            self._reading.release()

    def _end(self) -> None:
        if self._result is None:
            self._result = self._recorder.result("".join(self._texts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = (
            f"ended, {self._result!r}"
            if self._result is not None
            else f"under way, {len(self._recorder.ids)} tokens so far"
        )
        return f"<{type(self).__name__}: {state}>"


class TextStream(Stream[str]):
    """A text as it is generated, in pieces of whole characters: an iterator that can be closed.

    Nothing is done before the first piece is asked for. Closed before its end, also by leaving a
    `with`, it ends within one decode call, with finish_reason "cancelled"; any thread may close it.
    Threads may take turns in reading it: a second one at the same time gets a CgptError (code
    "busy"). `result` is the Generation once it has ended, `read()` reads what is left.
    """

    def _show(self, piece: Piece) -> str | None:
        return piece.text or None


class PieceStream(Stream[Piece]):
    """As TextStream, in pieces with their tokens and, where asked for, log-probabilities."""

    def _show(self, piece: Piece) -> Piece | None:
        return piece
