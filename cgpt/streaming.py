"""Tokens into pieces of text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from cgpt.tokenizer import StreamDecoder, Tokenizer

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Piece:
    """Some text as it is generated.

    text      whole characters; "" where the tokens give nothing to show
    ids       the tokens that were picked since the piece before
    logprobs  their log-probabilities (nats); () where they were not asked for
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()


class StopFilter:
    """Lets text through up to where a stop string begins; holds back what may become one.

    stopped  a stop string was completed; nothing comes after it
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self._most = max(map(len, stop), default=1) - 1
        self.stopped = False

    def push(self, text: str) -> str:
        """What of the text so far can be shown and was not yet."""
        held = self._held + text
        places = [place for one in self._stop if (place := held.find(one)) >= 0]
        self.stopped = bool(places)
        keep = min(places) if places else len(held) - self._beginning(held)
        self._held = held[keep:]
        return held[:keep]

    def end(self) -> str:
        """What was held back, when no more text comes and it did not become a stop string."""
        held, self._held = self._held, ""
        return "" if self.stopped else held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        return next((n for n in range(min(self._most, len(text)), 0, -1)
                     if any(one.startswith(text[-n:]) for one in self._stop)), 0)


def completed(decoder: StreamDecoder, token: int) -> str:
    """The text that a generated token completes, U+FFFD for lone surrogates.

    A text from outside may hold those, and keeps them; what a model says can always be encoded.
    """
    return _LONE_SURROGATE.sub("\ufffd", decoder.push(token))


class Watch:
    """Sees from tokens, one by one, where a stop string is completed."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._decoder = tokenizer.decoder()
        self._texts = StopFilter(stop)

    def stopped_by(self, token: int) -> bool:
        """Whether `token` completes a stop string."""
        self._texts.push(completed(self._decoder, token))
        return self._texts.stopped


def text_of(ids: Sequence[int], tokenizer: Tokenizer, stop: Sequence[str]) -> str:
    """The text of tokens up to the first stop string that is completed."""
    found = pieces(((token, None) for token in ids), tokenizer, stop)
    return "".join(piece.text for piece in found)


def pieces(tokens: Generator[tuple[int, float | None], None, None], tokenizer: Tokenizer,
           stop: Sequence[str] = (), *, half: bool = True) -> Generator[Piece, None, None]:
    """Pieces of the tokens' text, up to a stop string; all ids of `tokens` are in a piece.

    half  whether half a character at the very end is shown, as U+FFFD
    The tokens that made a stop string are in the last piece, whose text ends before it.
    """
    decoder, texts = tokenizer.decoder(), StopFilter(stop)
    ids: list[int] = []
    logprobs: list[float] = []

    def piece(text: str) -> Piece:
        found = Piece(text, tuple(ids), tuple(logprobs))
        ids.clear()
        logprobs.clear()
        return found

    try:
        for token, value in tokens:
            ids.append(token)
            if value is not None:
                logprobs.append(value)
            if text := texts.push(completed(decoder, token)):
                yield piece(text)
            if texts.stopped:
                break
        else:
            last = texts.push(decoder.flush()) if half else ""
            if last := last + texts.end():
                yield piece(last)
    finally:
        tokens.close()
    if ids:
        yield piece("")
