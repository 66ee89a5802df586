"""Beam search: the continuations that a model finds likeliest as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cgpt import kernels as K
from cgpt.generation.batch import Rows
from cgpt.generation.context import Context
from cgpt.generation.results import Dropped, FinishReason, Recorder
from cgpt.generation.sampling import Sampler
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.inference import Inference
from cgpt.nn.kv_cache import KVCache
from cgpt.runtime.cancellation import Cancelled


class Hypothesis(NamedTuple):
    """A continuation: its new tokens without the stop token, its score, their log-probabilities
    (nats) under the penalties and bans of the search, and why it ended."""

    ids: list[int]
    score: float
    logprobs: list[float]
    finish_reason: FinishReason


@dataclass
class _Beam:
    """A live hypothesis: its new tokens and their log-probabilities."""

    ids: list[int]
    logprobs: list[float]
    total: float


class BatchedBeams:
    """What is in `context`, to be followed by up to `left` tokens in up to `most` ways.

    All sequences go through the layers in one call; at first there is one.
    Where several have the same parent, one goes on in its cache and the others in caches that are
    no longer needed: those hold the same beginning, and only what differs is copied.
    """

    def __init__(self, context: Context, most: int, left: int) -> None:
        n, cache = len(context), context.cache
        self._rows = Rows(context.gpt, most, min(context.capacity, n + left))
        self._rows.keys[0, :, :, :n] = cache.keys[:, :, :n]
        self._rows.values[0, :, :, :n] = cache.values[:, :, :n]
        self._rows.tokens[0, :n], self._rows.lengths[0] = context.ids, n
        self._most, self._live = most, [0]

    def seen(self, i: int) -> Ints:
        """What is in the cache of sequence i, until the next call of `grow`."""
        return self._rows.seen([self._live[i]])[0]

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Floats:
        """The sequences become those of `parents`, each with a token behind it; logits (n, V)."""
        going = {self._live[parent] for parent in parents}
        free = [one for one in range(self._most) if one not in going]
        sequences = list[int]()
        for parent in parents:
            one = self._live[parent]
            if one in sequences:
                self._copy(one, free[-1])
                one = free.pop()
            sequences.append(one)
        self._live = sequences
        return self._rows.append(np.array(sequences, np.int32), np.array(tokens, np.int32))

    def _copy(self, source: int, target: int) -> None:
        rows, n = self._rows, int(self._rows.lengths[source])
        most = min(n, int(rows.lengths[target]))
        unlike = np.flatnonzero(rows.tokens[source, :most] != rows.tokens[target, :most])
        part = slice(int(unlike[0]) if unlike.size else most, n)
        rows.tokens[target, part] = rows.tokens[source, part]
        rows.keys[target, :, :, part] = rows.keys[source, :, :, part]
        rows.values[target, :, :, part] = rows.values[source, :, :, part]
        rows.lengths[target] = n


class _Child(NamedTuple):
    """A token that would extend a beam: summed log-probability, beam, token, its own share."""

    total: float
    parent: int
    token: int
    logprob: float


def search(
    gpt: Inference,
    prompt: list[int],
    sampler: Sampler,
    ends: frozenset[int],
    recorder: Recorder | None = None,
    *,
    cache: KVCache | None = None,
) -> list[Hypothesis]:
    """The best `sampling.beam` continuations of `prompt`, best first; a token is one pass for all
    beams.

    A score is the summed log-probability (nats) of the new tokens, the stop token included, over
    their number ** length_penalty. The search ends when as many hypotheses as beams are finished
    and the likeliest live one, scored at its length, is no better than the worst of them.
    Where the recorder's limit is reached it ends with what there is.
    Source: Wu et al. 2016, arXiv:1609.08144, section 7, for dividing by a power of the length.
    """
    recorder = Recorder() if recorder is None else recorder
    sampling, context = sampler.sampling, Context(gpt, cache, prompt)
    if not sampling.max_new_tokens:
        return [Hypothesis([], 0.0, [], "length")]
    try:
        logits = _feed(context, prompt, recorder)[None]
    except Cancelled:
        return [Hypothesis([], 0.0, [], "cancelled")]
    beams = [_Beam([], [], 0.0)]
    grown = BatchedBeams(context, sampling.beam, sampling.max_new_tokens)
    done: list[Hypothesis] = []
    for length in range(1, sampling.max_new_tokens + 1):
        norm, cancelled = length**sampling.length_penalty, recorder.reached()
        last = cancelled or length == sampling.max_new_tokens
        live = []
        for rank, child in enumerate(_expand(beams, logits, grown, sampler)):
            if child.token not in ends:
                live.append(child)
            elif rank < sampling.beam:
                done.append(_finished(beams[child.parent], child, norm, "stop"))
        live = live[: sampling.beam]
        if last:
            done += [_finished(beams[child.parent], child, norm, "length") for child in live]
        done.sort(key=lambda one: -one.score)
        del done[sampling.beam :]
        if (
            last
            or not live
            or (len(done) == sampling.beam and live[0].total / norm <= done[-1].score)
        ):
            break
        logits = grown.grow([child.parent for child in live], [child.token for child in live])
        beams = [
            _Beam(
                [*beams[child.parent].ids, child.token],
                [*beams[child.parent].logprobs, child.logprob],
                child.total,
            )
            for child in live
        ]
    recorder.later = _left_behind(context, length - 1)
    return [one._replace(finish_reason="cancelled") for one in done] if cancelled else done


def _feed(context: Context, prompt: list[int], recorder: Recorder) -> Floats:
    """Logits (V,) behind as much of the prompt's end as fits, which is noted."""
    kept = prompt[-context.capacity :]
    if len(kept) < len(prompt):
        recorder.dropped = Dropped(len(prompt) - len(kept))
    recorder.begin_prompt(len(kept), context.common(kept))
    return context.feed(kept, limit=recorder.limit)


def _left_behind(context: Context, steps: int) -> int:
    """Tokens that leave a context in so many steps, each of which finds it full or adds one."""
    room, half = context.capacity - len(context), context.capacity - context.capacity // 2
    return 0 if steps <= room else half * (1 + (steps - room - 1) // half)


def _finished(beam: _Beam, child: _Child, norm: float, reason: FinishReason) -> Hypothesis:
    """The beam's tokens, and the child's where it is no stop token, with the score of both."""
    keep = reason != "stop"
    return Hypothesis(
        beam.ids + [child.token] * keep,
        child.total / norm,
        beam.logprobs + [child.logprob] * keep,
        reason,
    )


def _expand(
    beams: list[_Beam], logits: Floats, grown: BatchedBeams, sampler: Sampler
) -> list[_Child]:
    """The 2 * beam likeliest that extend the beams, by logits (n, V) behind them; equal ones by
    beam, then by token."""
    found, width = [], min(2 * sampler.sampling.beam, logits.shape[1])
    ids, logprobs = np.empty(width, np.int32), np.empty(width, np.float32)
    for i, (beam, row) in enumerate(zip(beams, logits, strict=True)):
        n = K.top_logprobs(sampler.scores(row, grown.seen(i)), ids, logprobs)
        if n < 0:
            raise sampler.nothing_left(row)
        found += [
            _Child(beam.total + logprob, i, token, logprob)
            for token, logprob in zip(ids[:n].tolist(), logprobs[:n].tolist(), strict=True)
        ]
    found.sort(key=lambda one: (-one.total, one.parent, one.token))
    return found[: 2 * sampler.sampling.beam]
