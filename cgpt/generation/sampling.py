"""How the next token is chosen from logits: the options, their order, the random stream.

The order in which the options act:
 0. logits_processors of the call, one after the other
 1. repetition_penalty, then presence_penalty and frequency_penalty, on tokens of the context
 2. logit_bias is added
 3. banned tokens and those that no_repeat_ngram rules out become impossible
 4. temperature 0: the likeliest token, the lowest id at a tie. Otherwise temperature divides
 5. top_k, then top_p of what top_k left, then min_p; one of what remains is drawn
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cgpt import kernels as K
from cgpt.config import SamplingConfig
from cgpt.errors import CgptError, ConfigError, Phrase
from cgpt.generation.results import Noted, Token, TopLogprob
from cgpt.locale import N_
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decoder import SampleRequest

# Called with the tokens of the context (n,) and a copy of the logits (V,) behind them, which it may
# change; it may return others instead.
LogitsProcessor = Callable[[NDArray[np.int32], NDArray[np.float32]], NDArray[np.float32] | None]

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd


DEFAULTS = SamplingConfig()
GREEDY = SamplingConfig(temperature=0.0)  # of a plain continuation


class Uniforms:
    """Numbers spread evenly over [0, 1); the n-th is made of the seed and n alone.

    drawn  how many were drawn; set it to go on from there
    Source: Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators",
    section 4 (SplitMix64).
    """

    def __init__(self, seed: int | None) -> None:
        """seed None takes one from the system."""
        seed = int.from_bytes(os.urandom(8), "little") if seed is None else seed
        self.drawn = 0
        self._key = 0
        while True:
            self._key = _mix((self._key + _STEP) ^ (seed & _MASK))
            seed >>= 64
            if not seed:
                break

    def draw(self) -> float:
        """The next number, in steps of 2 ** -53."""
        self.drawn += 1
        return self.ahead(0)

    def ahead(self, n: int) -> float:
        """What the n-th draw from here on will give; 0 for what the last one gave."""
        return (_mix(self._key + (self.drawn + n) * _STEP) >> 11) * 2.0**-53


def _mix(z: int) -> int:
    """Every bit of z (its low 64) reaches every bit of the result."""
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


class Sampler:
    """Picks tokens from logits as a SamplingConfig says.

    uniforms  the random stream; a pick with a temperature draws one number
    banned    ids that are never picked, rising
    has_logit_processors  whether other options change scores before temperature does
    """

    def __init__(
        self,
        sampling: SamplingConfig,
        vocab_size: int,
        banned: Iterable[int] = (),
        stop: Iterable[int] = (),
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        """banned: ids that are never picked; stop: ids that end, which are never penalised;
        processors: what changes the logits before all else.

        Raises ConfigError where all are banned or one is out of range.
        """
        self.sampling = sampling
        self.uniforms = Uniforms(sampling.seed)
        self.banned = _check_named(N_("banned"), banned, vocab_size)
        self._stop = _check_named(N_("stop"), stop, vocab_size)
        biased = dict(sampling.logit_bias)
        _check_named("logit_bias", biased, vocab_size)
        self._biased = np.fromiter(biased, np.int64, len(biased))
        self._bias = np.fromiter(biased.values(), np.float32, len(biased))
        if self.banned.size >= vocab_size:
            raise ConfigError("all {n} tokens are banned; leave at least one", n=vocab_size)
        penalties = (
            sampling.repetition_penalty,
            sampling.presence_penalty,
            sampling.frequency_penalty,
        )
        self._penalties = penalties if penalties != (1.0, 0.0, 0.0) else None
        self._processors = tuple(processors)
        self.has_logit_processors = bool(
            self._penalties or self._biased.size or sampling.no_repeat_ngram or self._processors
        )
        self._scores = np.empty(vocab_size, np.float32)
        self._counts = np.zeros(vocab_size, np.int32)
        self.token_sampler = K.TokenSampler(
            vocab_size,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.min_p,
            self.banned.astype(np.int32),
        )

    def scores(self, logits: Floats, seen: Sequence[int] | Ints) -> Floats:
        """(V,) what the options before temperature make of logits (V,) behind the tokens `seen`.

        The array is used again by the next call, or is `logits` where nothing changes.
        """
        sampling, scores = self.sampling, self._scores
        seen = np.asarray(seen, np.int32)
        if not (self.has_logit_processors or self.banned.size):
            return logits
        np.copyto(scores, logits)
        for processor in self._processors:
            _process(processor, seen.copy(), scores)
        if self._penalties and seen.size:
            ending = scores[self._stop]
            K.apply_penalties(scores, seen, self._counts, *self._penalties)
            scores[self._stop] = ending
        if self._biased.size:
            scores[self._biased] += self._bias
        if sampling.no_repeat_ngram:
            ending = scores[self._stop]
            scores[_completions(seen, sampling.no_repeat_ngram)] = -np.inf
            scores[self._stop] = ending
        scores[self.banned] = -np.inf
        return scores

    def request(self, n: int) -> SampleRequest | None:
        """For a decoder: the next n tokens, should they follow each other. None where other
        options look at the tokens in between."""
        if self.has_logit_processors:
            return None
        u = None
        if self.sampling.temperature:
            u = np.array([self.uniforms.ahead(i) for i in range(1, n + 1)])
        return SampleRequest(self.token_sampler, u, np.empty(n, np.int32))

    def pick(
        self,
        logits: Floats,
        seen: Sequence[int] | Ints,
        request: SampleRequest | None = None,
        row: int = 0,
    ) -> int:
        """The next token for (V,) logits after the context `seen`.

        request  from `request`, where a decoder has made these logits with it as its row `row`,
                 all rows before that having been picked
        Raises CgptError where the logits are not finite or every token is ruled out.
        """
        sampling = self.sampling
        if request is not None:
            token = int(request.tokens[row])
            self.uniforms.drawn += request.u is not None
            if token < 0:
                raise self.nothing_left(logits)
            return token
        scores = self.scores(logits, seen)
        if sampling.temperature == 0:
            token = K.argmax(scores)
        else:
            token = K.sample(
                scores,
                sampling.temperature,
                sampling.top_k,
                sampling.top_p,
                sampling.min_p,
                self.uniforms.draw(),
            )
        if token < 0:
            raise self.nothing_left(logits)
        return token

    def nothing_left(self, logits: Floats) -> CgptError:
        """Why none of (V,) logits could be picked."""
        if self._processors and np.isfinite(logits).all():
            return CgptError(
                "the logits_processors leave no token that could follow, or make NaN "
                "or infinity; leave a finite logit for at least one token"
            )
        if np.isfinite(logits).all():
            return CgptError(
                "no_repeat_ngram={n} leaves no token that could follow; set it higher or to 0",
                n=self.sampling.no_repeat_ngram,
            )
        return CgptError(
            "the model's logits are not finite: its weights hold NaN or infinity; "
            "load or train another model"
        )


def _process(processor: LogitsProcessor, seen: Ints, scores: Floats) -> None:
    """scores (V,) become what the processor makes of them behind the tokens `seen`."""
    found = processor(seen, scores)
    if found is None or found is scores:
        return
    try:
        values = np.asarray(found)
    except ValueError:  # rows of unlike length
        values = np.empty(0, object)
    if values.shape != scores.shape or values.dtype.kind not in "biuf":
        kind = f"{values.dtype} ndarray" if isinstance(found, np.ndarray) else type(found).__name__
        raise ConfigError(
            "logits_processors: {name} returned {kind} of shape {shape}, expected {wanted} "
            "numbers, or None where it changes them in place",
            name=getattr(processor, "__name__", "one"),
            kind=kind,
            shape=values.shape,
            wanted=scores.shape,
        )
    with np.errstate(over="ignore"):  # infinity is refused where it is picked from
        np.copyto(scores, values, casting="unsafe")


def batch_request(samplers: Sequence[Sampler]) -> SampleRequest:
    """The next token of each; the samplers have the same options but for the seed."""
    first = samplers[0]
    u = np.array([one.uniforms.draw() for one in samplers]) if first.sampling.temperature else None
    return SampleRequest(first.token_sampler, u, np.empty(len(samplers), np.int32))


def sample_processed(
    samplers: Sequence[Sampler], logits: Floats, seen: Sequence[Ints], request: SampleRequest
) -> None:
    """Tokens (R,) from logits (R, V) behind the contexts `seen`, which change the scores."""
    scores = np.stack(
        [one.scores(row, context) for one, row, context in zip(samplers, logits, seen, strict=True)]
    )
    request.sampler.sample(scores, request.u, request.tokens)


def _completions(seen: Ints, n: int) -> Ints:
    """The tokens that would complete n tokens in a row that `seen` holds already."""
    places = len(seen) - n + 1
    if places < 1:
        return seen[:0]
    same = np.ones(places, np.bool_)
    for i in range(n - 1):
        same &= seen[i : i + places] == seen[places + i]
    return seen[n - 1 :][same]


def logprob(logits: Floats, token: int) -> float:
    """log softmax(logits)[token], natural, of float32 logits (V,)."""
    loss = np.empty(1, np.float32)
    K.cross_entropy(logits.reshape(1, -1), np.array([token], np.int32), loss, 1.0, False)
    return -float(loss[0])


def likeliest(logits: Floats, n: int) -> tuple[TopLogprob, ...]:
    """The n likeliest tokens by float32 logits (V,), likeliest first, the lower id at a tie."""
    n = min(n, len(logits))
    ids, logprobs = np.empty(n, np.int32), np.empty(n, np.float32)
    found = K.top_logprobs(logits, ids, logprobs)
    return tuple(map(TopLogprob, ids[:found].tolist(), logprobs[:found].tolist()))


def noted_token(token: int, logits: Floats, noted: Noted) -> Token:
    """A token picked from float32 logits (V,), with what is to be noted of it."""
    if not noted:
        return Token(token)
    return Token(token, logprob(logits, token), likeliest(logits, noted.top) if noted.top else ())


def _check_named(what: str, ids: Iterable[int], vocab_size: int) -> NDArray[np.int64]:
    """Distinct ids in rising order. Raises ConfigError where one is out of range."""
    found = np.array(sorted(set(ids)), np.int64)  # np.unique would import all of numpy.ma
    if found.size and not 0 <= found[0] <= found[-1] < vocab_size:
        raise ConfigError(
            "{what} token ids must be between 0 and {most}, found {low} to {high}",
            what=Phrase(what),
            most=vocab_size - 1,
            low=found[0],
            high=found[-1],
        )
    return found
