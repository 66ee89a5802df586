"""What a generation gives: its text, and how that came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cgpt.runtime.cancellation import Limit

if TYPE_CHECKING:
    from typing_extensions import Self

FinishReason = Literal["stop", "length", "cancelled"]


class TopLogprob(NamedTuple):
    """One of the likeliest tokens at some place, and its log-probability (nats)."""

    id: int
    logprob: float


class Token(NamedTuple):
    """A token as it is generated.

    logprob  log-probability (nats) under the model alone, None where it was not asked for
    top      the likeliest tokens at its place, likeliest first; () where they were not asked for
    """

    id: int
    logprob: float | None = None
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens that one generation took.

    prompt_tokens      of the prompt, as the model saw it
    completion_tokens  that were generated; one that ends the text (eos) is not counted
    cached_tokens      of the prompt, that were in a cache and did not have to be computed
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """prompt_tokens + completion_tokens."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Dropped:
    """What of a prompt or a dialogue the model did not see, for the context was too short.

    tokens  of the text's beginning, or of the turns that were left out and of a cut question
    turns   finished turns of a dialogue, the oldest, that were left out
    later   tokens that left the context while the answer was made, since that outgrew it
    True where there is anything.
    """

    tokens: int = 0
    turns: int = 0
    later: int = 0

    def __bool__(self) -> bool:
        return bool(self.tokens or self.turns or self.later)


class Generation(str):
    """A generated text: a str with how it came about.

    text           the same as a plain str
    ids            tokens that were generated, those of a stop string and of half a character at
                   the end included, eos not
    finish_reason  "stop" (eos or a stop string), "length" (max_new_tokens) or "cancelled" (a cancel
                   token, a timeout, a stream that was closed)
    stop           the stop string that ended it, None where none did
    usage          Usage
    time_to_first_token  seconds from the beginning to the first token, None where there is none
    seconds        from the beginning to the end
    logprobs       log-probability (nats) of each of `ids`, None where it was not asked for
    top_logprobs   for each of `ids` the likeliest tokens there, None where they were not asked for
    dropped        Dropped: what of the prompt did not fit the context
    """

    ids: tuple[int, ...]
    finish_reason: FinishReason
    stop: str | None
    usage: Usage
    time_to_first_token: float | None
    seconds: float
    logprobs: tuple[float, ...] | None
    top_logprobs: tuple[tuple[TopLogprob, ...], ...] | None
    dropped: Dropped

    def __new__(
        cls,
        text: str = "",
        *,
        ids: Sequence[int] = (),
        finish_reason: FinishReason = "stop",
        stop: str | None = None,
        usage: Usage | None = None,
        time_to_first_token: float | None = None,
        seconds: float = 0.0,
        logprobs: Sequence[float] | None = None,
        top_logprobs: Sequence[tuple[TopLogprob, ...]] | None = None,
        dropped: Dropped | None = None,
    ) -> Self:
        self = super().__new__(cls, text)
        self.ids = tuple(ids)
        self.finish_reason = finish_reason
        self.stop = stop
        self.usage = Usage() if usage is None else usage
        self.time_to_first_token = time_to_first_token
        self.seconds = seconds
        self.logprobs = None if logprobs is None else tuple(logprobs)
        self.top_logprobs = None if top_logprobs is None else tuple(top_logprobs)
        self.dropped = Dropped() if dropped is None else dropped
        return self

    @property
    def text(self) -> str:
        """The text as a plain str."""
        return str(self)

    def __repr__(self) -> str:
        shown = repr(self.text if len(self) <= 60 else self.text[:57] + "...")
        stop = f", stop={self.stop!r}" if self.stop is not None else ""
        dropped = f", dropped={self.dropped}" if self.dropped else ""
        return (
            f"{type(self).__name__}({shown}, finish_reason={self.finish_reason!r}{stop}, "
            f"{self.usage.completion_tokens} tokens{dropped})"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready; log-probabilities only where they were asked for."""
        found: dict[str, Any] = {
            "text": self.text,
            "ids": list(self.ids),
            "finish_reason": self.finish_reason,
            "stop": self.stop,
            "usage": {**vars(self.usage), "total_tokens": self.usage.total_tokens},
            "time_to_first_token": self.time_to_first_token,
            "seconds": self.seconds,
            "dropped": dict(vars(self.dropped)),
        }
        if self.logprobs is not None:
            found["logprobs"] = list(self.logprobs)
        if self.top_logprobs is not None:
            found["top_logprobs"] = [[one._asdict() for one in top] for top in self.top_logprobs]
        return found


@dataclass(frozen=True)
class Noted:
    """What is to be noted of each token: its log-probability, and the `top` likeliest there."""

    logprobs: bool = False
    top: int = 0

    def __bool__(self) -> bool:
        return self.logprobs or self.top > 0


NOTHING = Noted()


class Recorder:
    """One generation under way: what it gave so far, to be made a result when it ends.

    limit  what ends it early, None for nothing
    noted  what is noted of each token
    prompt_tokens, cached_tokens, dropped, later  as of Usage and Dropped; what generates sets them
    ids    the tokens so far
    """

    def __init__(self, limit: Limit | None = None, noted: Noted = NOTHING) -> None:
        self.limit, self.noted = limit, noted
        self.prompt_tokens = self.cached_tokens = 0
        self.dropped, self.later = Dropped(), 0
        self.finish_reason: FinishReason = "cancelled"
        self.stop: str | None = None
        self.ids: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[tuple[TopLogprob, ...]] = []
        self._begun: float | None = None
        self._first: float | None = None
        self._ended: float | None = None

    def begin(self) -> None:
        """Time runs from now on; the first call counts."""
        if self._begun is None:
            self._begun = perf_counter()
            if self.limit is not None:
                self.limit.begin()

    def begin_prompt(self, tokens: int, cached: int) -> None:
        """As begin; of the prompt's tokens so many need not be computed."""
        self.begin()
        self.prompt_tokens, self.cached_tokens = tokens, cached

    def end(self, reason: FinishReason, stop: str | None = None) -> None:
        """It has ended, now; the last call counts."""
        self.finish_reason, self.stop = reason, stop
        self._ended = perf_counter()

    def reached(self) -> bool:
        """Whether it is to end now."""
        return self.limit is not None and self.limit.reached()

    def add_id(self, token: int) -> None:
        """Note a token of which nothing else is wanted."""
        if self._first is None:
            self._first = perf_counter()
        self.ids.append(token)

    def add(self, token: Token) -> None:
        """Note a token."""
        self.add_id(token.id)
        if token.logprob is not None:
            self._logprobs.append(token.logprob)
        if self.noted.top:
            self._top.append(token.top)

    def result(self, text: str) -> Generation:
        """The generation with this text; it ends now where it has not before."""
        noted, now = self.noted, perf_counter()
        begun = now if self._begun is None else self._begun
        return Generation(
            text,
            ids=self.ids,
            finish_reason=self.finish_reason,
            stop=self.stop,
            usage=Usage(self.prompt_tokens, len(self.ids), self.cached_tokens),
            time_to_first_token=None if self._first is None else self._first - begun,
            seconds=(now if self._ended is None else self._ended) - begun,
            logprobs=self._logprobs if noted else None,
            top_logprobs=self._top if noted.top else None,
            dropped=Dropped(self.dropped.tokens, self.dropped.turns, self.later),
        )
