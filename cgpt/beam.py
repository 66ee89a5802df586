"""Beam search: the continuations that a model finds likeliest as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cgpt import kernels as K
from cgpt.arena import Floats
from cgpt.context import Context
from cgpt.sampling import Sampler, SamplingConfig

if TYPE_CHECKING:
    from cgpt.kvcache import KVCache
    from cgpt.model import GPT


class Hypothesis(NamedTuple):
    """A continuation: its new tokens without the stop token, its score, and their
    log-probabilities (nats) under the penalties and bans of the search."""

    ids: list[int]
    score: float
    logprobs: list[float]


@dataclass
class _Beam:
    """A live hypothesis and what it has inferred."""

    ids: list[int]
    logprobs: list[float]
    total: float
    context: Context
    logits: Floats


class _Child(NamedTuple):
    """A token that would extend a beam: summed log-probability, beam, token, its own share."""

    total: float
    parent: int
    token: int
    logprob: float


def search(gpt: GPT, prompt: list[int], sampling: SamplingConfig, stop: Iterable[int] = (),
           banned: Iterable[int] = (), *, cache: KVCache | None = None) -> list[Hypothesis]:
    """The best `sampling.beam` continuations of `prompt`, best first; each beam has its cache.

    A score is the summed log-probability (nats) of the new tokens, the stop token included, over
    their number ** length_penalty. The search ends when as many hypotheses as beams are finished
    and the likeliest live one, scored at its length, is no better than the worst of them.
    Source: Wu et al. 2016, arXiv:1609.08144, section 7, for dividing by a power of the length.
    """
    if not sampling.max_new_tokens:
        return [Hypothesis([], 0.0, [])]
    ends = frozenset(stop)
    sampler = Sampler(sampling, gpt.config.vocab_size, banned, ends)
    context = Context(gpt, cache, prompt)
    beams = [_Beam([], [], 0.0, context, np.array(context.feed(prompt[-context.capacity:])))]
    done: list[Hypothesis] = []
    for length in range(1, sampling.max_new_tokens + 1):
        norm = length ** sampling.length_penalty
        last = length == sampling.max_new_tokens
        live = []
        for rank, child in enumerate(_expand(beams, sampler)):
            if child.token not in ends:
                live.append(child)
            elif rank < sampling.beam:
                done.append(_finished(beams[child.parent], child, norm, keep=False))
        live = live[:sampling.beam]
        if last:
            done += [_finished(beams[child.parent], child, norm, keep=True) for child in live]
        done.sort(key=lambda one: -one.score)
        del done[sampling.beam:]
        if last or not live or (len(done) == sampling.beam
                                and live[0].total / norm <= done[-1].score):
            break
        beams = _grow(beams, live)
    return done


def _finished(beam: _Beam, child: _Child, norm: float, keep: bool) -> Hypothesis:
    """The beam's tokens, and the child's where it is to be kept, with the score of both."""
    return Hypothesis(beam.ids + [child.token] * keep, child.total / norm,
                      beam.logprobs + [child.logprob] * keep)


def _expand(beams: list[_Beam], sampler: Sampler) -> list[_Child]:
    """The 2 * beam likeliest that extend the beams; equal ones by beam, then by token."""
    found = []
    for i, beam in enumerate(beams):
        scores = sampler.scores(beam.logits, beam.context.seen(len(beam.context)))
        width = min(2 * sampler.sampling.beam, len(scores))
        ids, logprobs = np.empty(width, np.int32), np.empty(width, np.float32)
        n = K.largest(scores, ids, logprobs)
        if n < 0:
            raise sampler.nothing_left(beam.logits)
        found += [_Child(beam.total + logprob, i, token, logprob)
                  for token, logprob in zip(ids[:n].tolist(), logprobs[:n].tolist(), strict=True)]
    found.sort(key=lambda one: (-one.total, one.parent, one.token))
    return found[:2 * sampler.sampling.beam]


def _grow(beams: list[_Beam], chosen: Sequence[_Child]) -> list[_Beam]:
    """The chosen extensions as beams; the last child of a beam takes over its context."""
    last = {child.parent: i for i, child in enumerate(chosen)}
    contexts = [beams[child.parent].context if last[child.parent] == i
                else beams[child.parent].context.copy() for i, child in enumerate(chosen)]
    return [_Beam([*beams[child.parent].ids, child.token],
                  [*beams[child.parent].logprobs, child.logprob], child.total, context,
                  np.array(context.push(child.token)))
            for child, context in zip(chosen, contexts, strict=True)]
