"""What a call that generates takes by keyword: fields of SamplingConfig, and what goes beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from cgpt.config import SamplingConfig
from cgpt.config.declaration import options_of
from cgpt.errors import ConfigError, shown
from cgpt.generation.results import Noted, Recorder
from cgpt.generation.sampling import LogitsProcessor
from cgpt.runtime.cancellation import CancelToken, Limit
from cgpt.validation import check_int, expect, plain, unknown_name

MOST_ALTERNATIVES = 1000


class LimitOptions(TypedDict, total=False):
    """What ends a call early.

    cancel   whatever has is_set(), such as a threading.Event: once it is set, the call ends within
             one decode call
    timeout  seconds after which it ends likewise
    """

    cancel: CancelToken | None
    timeout: float | None


class TokenOptions(LimitOptions, total=False):
    """What everything that generates takes, tokens alone included.

    logits_processors  functions f(ids, logits) that are called one after the other before each
                       token is picked, before all other options act: ids (n,) int32 are the tokens
                       in the context, logits (V,) float32 a copy of those behind them. f changes it
                       and returns None, or returns another. The tokens are then picked one by one
    """

    logits_processors: Sequence[LogitsProcessor] | None


class FurtherOptions(TokenOptions, total=False):
    """SamplingOptions without max_new_tokens and temperature."""

    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    beam: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram: int
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]]
    stop: str | Sequence[str] | None
    length_penalty: float
    speculate: int
    logprobs: bool
    top_logprobs: int


class SamplingOptions(FurtherOptions, total=False):
    """What everything that generates text takes by keyword.

    The fields of SamplingConfig, whose defaults they have, and
    cancel, timeout    as of LimitOptions
    logits_processors  as of TokenOptions
    logprobs           whether the result has the log-probability of each token, under the model
                       alone
    top_logprobs       how many of the likeliest tokens it has at each place; implies logprobs
    """

    max_new_tokens: int
    temperature: float


LIMITS = ("cancel", "timeout")
TOKENS = (*LIMITS, "logits_processors")
# What other libraries call the options that no SamplingConfig has.
_ALIASES = {
    **dict.fromkeys(("deadline", "time_limit"), "timeout"),
    **dict.fromkeys(("n_probs", "num_logprobs"), "top_logprobs"),
}


@dataclass(frozen=True)
class Request:
    """The options of one call, checked.

    sampling  of the text
    of_tokens the same without stop strings
    limit     what ends the call early
    noted     what is noted of each token
    processors  of logits
    """

    sampling: SamplingConfig
    limit: Limit
    noted: Noted
    processors: tuple[LogitsProcessor, ...] = ()

    @property
    def of_tokens(self) -> SamplingConfig:
        """See above."""
        return tokens_only(self.sampling)

    def recorder(self) -> Recorder:
        """A new one, of one text."""
        return Recorder(self.limit, self.noted)


def tokens_only(sampling: SamplingConfig) -> SamplingConfig:
    """The same without stop strings, which tokens alone do not have."""
    return replace(sampling, stop=()) if sampling.stop else sampling


def read_options(owner: str, options: Mapping[str, Any], base: SamplingConfig) -> Request:
    """The options that a caller gave by keyword; `base` has what he did not.

    Raises ConfigError where one is unknown, naming the nearest, or out of range.
    """
    expect(owner, base, SamplingConfig, "a SamplingConfig")
    declared = options_of(type(base))
    check_option_names(owner, options, (*declared, *TOKENS, "logprobs", "top_logprobs"))
    changes = {name: value for name, value in options.items() if name in declared}
    sampling = replace(base, **changes) if changes else base
    logprobs = plain(options.get("logprobs", False))
    if not isinstance(logprobs, bool):
        raise ConfigError(
            "{owner}: logprobs must be true or false, found {value}; give the number of "
            "alternatives by top_logprobs",
            owner=owner,
            value=shown(logprobs),
        )
    top = check_int(owner, "top_logprobs", options.get("top_logprobs", 0), 0, MOST_ALTERNATIVES)
    if top and sampling.beam > 1:
        raise ConfigError(
            "{owner}: a beam search has no top_logprobs, found top_logprobs={n} and "
            "beam={beam}; set one of them to its default",
            owner=owner,
            n=top,
            beam=sampling.beam,
        )
    limit = Limit(owner, options.get("cancel"), options.get("timeout"))
    return Request(sampling, limit, Noted(logprobs, top), read_processors(owner, options))


def read_processors(owner: str, options: Mapping[str, Any]) -> tuple[LogitsProcessor, ...]:
    """The logits_processors among the options. Raises ConfigError where they are no functions."""
    found = options.get("logits_processors")
    found = () if found is None else found
    if not isinstance(found, (list, tuple)) or not all(map(callable, found)):
        raise ConfigError(
            "{owner}: logits_processors must be a list of functions, found {value}",
            owner=owner,
            value=shown(found),
        )
    return tuple(found)


def check_option_names(owner: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises ConfigError for the first name that is not known, with the one that was meant."""
    for name in options:
        if name not in known:
            if name == "stream":
                raise ConfigError(
                    "{owner}: there is no option 'stream'; the methods stream and "
                    "chat_stream give a text as it is generated",
                    owner=owner,
                )
            aliases = {
                alias: one.name
                for one in options_of(SamplingConfig).values()
                for alias in one.aliases
            }
            meant = {**aliases, **_ALIASES}.get(name)
            raise unknown_name(owner, "option", name, known, meant if meant in known else None)


def limit_of(owner: str, options: Mapping[str, Any], known: Sequence[str] = LIMITS) -> Limit | None:
    """What ends a call with these options early; None where nothing does.

    Raises ConfigError for other options than the known ones and for what cannot be one.
    """
    check_option_names(owner, options, known)
    cancel, timeout = options.get("cancel"), options.get("timeout")
    return None if cancel is None and timeout is None else Limit(owner, cancel, timeout)
