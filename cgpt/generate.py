"""From logits to tokens: greedy, sampling, beam search, streamed over a key-value cache.

A full context keeps its last half: the tail is inferred again and generation goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cgpt.config import _check_float, _check_int, _Config
from cgpt.errors import CgptError, ConfigError, DataError

if TYPE_CHECKING:
    from cgpt.kvcache import KVCache
    from cgpt.model import GPT

_NUCLEUS = 64           # candidates that are sorted first for top-p; four times as many if too few
_MOST_BEAMS = 256


@dataclass(frozen=True)
class SamplingConfig(_Config):
    """How the next token is chosen.

    temperature         divides the logits; 0 takes the likeliest token (greedy)
    top_k               only the k likeliest tokens; 0 for all
    top_p               only the likeliest tokens that together have this probability; 1 for all
    repetition_penalty  logits of tokens in the context are divided (positive) or multiplied
                        (negative) by this, but for those that stop; 1 for none.
                        Source: Keskar et al. 2019, arXiv:1909.05858
    max_new_tokens      at most so many
    seed                the same seed gives the same tokens; None for a fresh one
    beam                hypotheses of a beam search; 1 samples. A beam search ignores temperature,
                        top_k, top_p and seed
    Raises ConfigError naming the field, the value found and the range expected.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    seed: int | None = None
    beam: int = 1

    def __post_init__(self) -> None:
        owner = "SamplingConfig"
        _check_float(owner, "temperature", self.temperature, 0.0)
        _check_int(owner, "top_k", self.top_k, 0)
        _check_float(owner, "top_p", self.top_p, 0.0, 1.0, open_below=True)
        _check_float(owner, "repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        _check_int(owner, "max_new_tokens", self.max_new_tokens, 0)
        if self.seed is not None:
            _check_int(owner, "seed", self.seed, 0)
        _check_int(owner, "beam", self.beam, 1, _MOST_BEAMS)


class Context:
    """The tokens that a cache holds; only tokens that it has not seen are inferred.

    ids    list of int, what the cache holds, at most `capacity` tokens
    cache  KVCache
    """

    def __init__(self, gpt: GPT, cache: KVCache | None = None, ids: Sequence[int] = ()) -> None:
        """ids: the tokens already in `cache` (its first cache.length are taken)."""
        self._gpt = gpt
        self.cache = gpt.new_cache() if cache is None else cache
        self.ids = list(ids[:self.cache.length])
        self.capacity: int = self.cache.capacity

    def feed(self, ids: Sequence[int]) -> np.ndarray:
        """Make the context hold exactly `ids` (1 to capacity); (V,) logits after the last one."""
        common = 0
        most = min(len(self.ids), self.cache.length, len(ids) - 1)
        while common < most and self.ids[common] == ids[common]:
            common += 1
        del self.ids[common:]
        self.cache.truncate(common)
        fresh = list(ids[common:])
        logits = self._gpt.infer(np.array(fresh, dtype=np.int32), self.cache)
        self.ids += fresh
        return logits

    def push(self, token: int) -> np.ndarray:
        """Append one token; (V,) logits after it. A full context first keeps its last half."""
        if len(self.ids) >= self.capacity:
            return self.feed([*self.ids[len(self.ids) - self.capacity // 2:], token])
        logits = self._gpt.infer(np.array([token], dtype=np.int32), self.cache)
        self.ids.append(token)
        return logits

    def copy(self) -> Context:
        """A context with a cache of its own that holds the same tokens."""
        return Context(self._gpt, self.cache.copy(), self.ids)


class Sampler:
    """Picks tokens from logits as a SamplingConfig says; keeps the random stream."""

    def __init__(self, sampling: SamplingConfig, vocab_size: int,
                 banned: Iterable[int] = (), stop: Iterable[int] = ()) -> None:
        """banned: ids that are never picked; stop: ids that are never penalised.

        Raises ConfigError where all are banned or one is out of range.
        """
        self.sampling = sampling
        self._rng = np.random.default_rng(sampling.seed)
        self._banned = _check_named("banned", banned, vocab_size)
        self._stop = _check_named("stop", stop, vocab_size)
        self._scores = np.empty(vocab_size, dtype=np.float32)
        if self._banned.size >= vocab_size:
            raise ConfigError(f"all {vocab_size} tokens are banned; leave at least one")

    def scores(self, logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """(V,) logits with the penalty for `ids` and -inf where banned; reused by the next call.

        Raises CgptError where the model's logits are not finite.
        """
        scores = self._scores
        np.copyto(scores, logits)
        penalty = self.sampling.repetition_penalty
        if penalty != 1.0 and len(ids):
            seen = np.asarray(ids, dtype=np.int64)
            values = scores[seen]
            scores[seen] = np.where(values > 0, values / penalty, values * penalty)
            scores[self._stop] = logits[self._stop]
        scores[self._banned] = -np.inf
        if not np.isfinite(scores.max()):
            raise CgptError("the model's logits are not finite: its weights hold NaN or infinity; "
                            "load or train another model")
        return scores

    def pick(self, logits: np.ndarray, ids: Sequence[int]) -> int:
        """The next token for (V,) logits after the context `ids`."""
        scores = self.scores(logits, ids)
        sampling = self.sampling
        if sampling.temperature == 0:
            return int(scores.argmax())
        with np.errstate(over="ignore"):
            scaled = (scores - scores.max()).astype(np.float64) / sampling.temperature
        weights = np.exp(scaled)
        if 0 < sampling.top_k < len(weights):
            kept = np.argpartition(weights, -sampling.top_k)[-sampling.top_k:]
        else:
            kept = np.arange(len(weights))
        if sampling.top_p < 1.0:
            kept = kept[_nucleus(weights[kept], sampling.top_p)]
        mass = np.cumsum(weights[kept])
        place = int(np.searchsorted(mass, self._rng.random() * mass[-1], side="right"))
        return int(kept[place]) if place < len(kept) else int(scores.argmax())


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Indices of the fewest largest weights whose share of the sum reaches top_p, largest first.

    Only as many as are needed are sorted. Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    goal = top_p * weights.sum()
    size, width = len(weights), min(_NUCLEUS, len(weights))
    while True:
        part = np.argpartition(weights, size - width)[size - width:]
        part = part[np.argsort(-weights[part], kind="stable")]
        mass = np.cumsum(weights[part])
        if mass[-1] >= goal or width == size:
            return part[:int(np.searchsorted(mass, goal)) + 1]
        width = min(4 * width, size)


def generate_tokens(gpt: GPT, ids: Sequence[int] | np.ndarray,
                    sampling: SamplingConfig | None = None, *, cache: KVCache | None = None,
                    stop: Iterable[int] = (), banned: Iterable[int] = ()) -> Iterator[int]:
    """Stream the tokens that follow `ids`; a token of `stop` ends them and is not given.

    ids     (n,) at least one; of more than block_size the last block_size are used
    cache   holds the first cache.length of ids (a new one by default); only the rest is inferred
    banned  ids that are never chosen
    Raises ConfigError or DataError at once, not with the first token.
    """
    prompt = _check_ids(gpt, ids)
    sampling = SamplingConfig() if sampling is None else sampling
    ends = frozenset(stop)
    if sampling.beam > 1:
        return iter(beam_search(gpt, prompt, sampling, ends, banned, cache=cache)[0][0])
    sampler = Sampler(sampling, gpt.config.vocab_size, banned, ends)
    return _stream(Context(gpt, cache, prompt), prompt, sampler, ends)


def _stream(context: Context, prompt: list[int], sampler: Sampler,
            ends: frozenset[int]) -> Iterator[int]:
    left = sampler.sampling.max_new_tokens
    logits = context.feed(prompt[-context.capacity:]) if left else None
    while left:
        token = sampler.pick(logits, context.ids)
        if token in ends:
            return
        yield token
        left -= 1
        if left:
            logits = context.push(token)


@dataclass
class _Beam:
    """One live hypothesis: its tokens, summed log-probability (nats), and what it has inferred."""

    tokens: list[int]
    total: float
    context: Context
    logits: np.ndarray


def beam_search(gpt: GPT, ids: Sequence[int] | np.ndarray, sampling: SamplingConfig,
                stop: Iterable[int] = (), banned: Iterable[int] = (), *,
                cache: KVCache | None = None) -> list[tuple[list[int], float]]:
    """The best `sampling.beam` continuations of `ids` with their scores, best first.

    A score is the mean log-probability (nats) of the new tokens, the stop token included; the
    prompt and the stop token are not part of the tokens given. Each beam has its own cache.
    """
    prompt = _check_ids(gpt, ids)
    if not sampling.max_new_tokens:
        return [([], 0.0)]
    ends = frozenset(stop)
    sampler = Sampler(sampling, gpt.config.vocab_size, banned, ends)
    context = Context(gpt, cache, prompt)
    logits = context.feed(prompt[-context.capacity:])
    beams = [_Beam([], 0.0, context, np.array(logits))]
    done: list[tuple[list[int], float]] = []
    for length in range(1, sampling.max_new_tokens + 1):
        chosen = []
        for rank, (total, parent, token) in enumerate(_expand(beams, sampler)):
            if token not in ends:
                chosen.append((total, parent, token))
            elif rank < sampling.beam:
                done.append((beams[parent].tokens, total / length))
        chosen = chosen[:sampling.beam]
        done.sort(key=lambda one: -one[1])
        del done[sampling.beam:]
        if length == sampling.max_new_tokens:
            done += [([*beams[parent].tokens, token], total / length)
                     for total, parent, token in chosen]
        if not chosen or (len(done) >= sampling.beam and chosen[0][0] / length <= done[-1][1]):
            break
        if length < sampling.max_new_tokens:
            beams = _grow(beams, chosen)
    done.sort(key=lambda one: -one[1])
    return done[:sampling.beam]


def _expand(beams: list[_Beam], sampler: Sampler) -> list[tuple[float, int, int]]:
    """The 2 * beam best (summed log-probability, beam, token) that extend the beams."""
    found = []
    for i, beam in enumerate(beams):
        scores = sampler.scores(beam.logits, beam.context.ids)
        most = float(scores.max())
        logsum = most + float(np.log(np.exp(scores - most).sum(dtype=np.float64)))
        width = min(2 * sampler.sampling.beam, len(scores))
        best = np.argpartition(scores, -width)[-width:]
        found += [(beam.total + float(scores[token]) - logsum, i, int(token))
                  for token in best if scores[token] > -np.inf]
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    return found[:2 * sampler.sampling.beam]


def _grow(beams: list[_Beam], chosen: list[tuple[float, int, int]]) -> list[_Beam]:
    """The chosen extensions as beams; the last child of a beam takes over its context."""
    last = {parent: child for child, (_, parent, _) in enumerate(chosen)}
    contexts = [beams[parent].context if last[parent] == child else beams[parent].context.copy()
                for child, (_, parent, _) in enumerate(chosen)]
    return [_Beam([*beams[parent].tokens, token], total, context, np.array(context.push(token)))
            for (total, parent, token), context in zip(chosen, contexts, strict=True)]


def _check_named(what: str, ids: Iterable[int], vocab_size: int) -> np.ndarray:
    """Distinct ids in rising order. Raises ConfigError where one is out of range."""
    found = np.unique(np.fromiter(ids, dtype=np.int64))
    if found.size and not 0 <= found[0] <= found[-1] < vocab_size:
        raise ConfigError(f"{what} token ids must be between 0 and {vocab_size - 1}, found "
                          f"{found[0]} to {found[-1]}")
    return found


def _check_ids(gpt: GPT, ids: Sequence[int] | np.ndarray) -> list[int]:
    """ids as a list of int. Raises DataError where empty, of a wrong shape or out of range."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise DataError(f"ids must be a list of at least one whole number, found "
                        f"{array.dtype} of shape {array.shape}; start a text with bos")
    vocab_size = gpt.config.vocab_size
    if array.min() < 0 or array.max() >= vocab_size:
        raise DataError(f"ids must be between 0 and {vocab_size - 1}, "
                        f"found {array.min()} to {array.max()}")
    return array.tolist()
