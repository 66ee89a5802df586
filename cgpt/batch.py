"""Several prompts at once: one pass through the layers gives each its next token.

Prompts of unequal lengths lie side by side without padding, each with a cache of its own; a row
that has ended takes no more time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from cgpt.arena import Floats
from cgpt.kvcache import new_caches
from cgpt.sampling import Ints, Sampler, pick_rows

if TYPE_CHECKING:
    from cgpt.inference import Inference


class _Row:
    """A sequence: its number, the tokens in its cache, and those that are still to go there."""

    def __init__(self, number: int, prompt: Sequence[int], sampler: Sampler,
                 capacity: int) -> None:
        self.number, self.sampler = number, sampler
        self.tokens: Ints = np.empty(capacity, np.int32)
        self.length = 0
        self.fresh = list(prompt[-capacity:])
        self.left = sampler.sampling.max_new_tokens

    @property
    def seen(self) -> Ints:
        """(length,) int32: what is in the cache."""
        return self.tokens[:self.length]

    def places(self) -> range:
        """Where the fresh tokens go."""
        return range(self.length, self.length + len(self.fresh))

    def settle(self) -> None:
        """The fresh tokens are in the cache now."""
        end = self.length + len(self.fresh)
        self.tokens[self.length:end] = self.fresh
        self.length, self.fresh = end, []

    def follow(self, token: int) -> None:
        """Let `token` be appended next; a full context first keeps its last half."""
        capacity = len(self.tokens)
        self.fresh = [token]
        if self.length == capacity:
            self.fresh = [*self.tokens[capacity - capacity // 2:].tolist(), token]
            self.length = 0


def steps(gpt: Inference, prompts: Sequence[Sequence[int]], samplers: Sequence[Sampler],
          ends: frozenset[int], ended: set[int]) -> Iterator[list[tuple[int, int]]]:
    """At every step the tokens that follow, as pairs (number of the prompt, token).

    A row ends with a token of `ends`, which is not given, after its sampler's max_new_tokens, and
    where the caller has added its number to `ended`.
    """
    longest = max((len(prompt) + sampler.sampling.max_new_tokens
                   for prompt, sampler in zip(prompts, samplers, strict=True)), default=1)
    capacity = min(gpt.config.block_size, longest)
    rows = [_Row(i, prompt, sampler, capacity)
            for i, (prompt, sampler) in enumerate(zip(prompts, samplers, strict=True))]
    keys, values = new_caches(gpt.config, len(rows), capacity)
    logits = np.empty((len(rows), gpt.config.vocab_size), np.float32)
    while rows := [row for row in rows if row.left and row.number not in ended]:
        _append(gpt, rows, keys, values, logits[:len(rows)])
        tokens = pick_rows([row.sampler for row in rows], logits[:len(rows)],
                           [row.seen for row in rows])
        rows = [row for row, token in zip(rows, tokens, strict=True) if token not in ends]
        found = [(row.number, token) for row, token in
                 zip(rows, (token for token in tokens if token not in ends), strict=True)]
        for row, (_, token) in zip(rows, found, strict=True):
            row.follow(token)
            row.left -= 1
        yield found


def _append(gpt: Inference, rows: list[_Row], keys: Floats, values: Floats,
            logits: Floats) -> None:
    """All fresh tokens into the caches; logits (len(rows), V) behind the last one of each row."""
    # The last tokens of all rows come last, for those are the ones that have logits.
    parts = [slice(0, -1), slice(-1, None)] if any(len(row.fresh) > 1 for row in rows) else [
        slice(None)]
    ids = _flat(row.fresh[part] for part in parts for row in rows)
    places = _flat(row.places()[part] for part in parts for row in rows)
    slots = _flat([row.number] * len(row.fresh[part]) for part in parts for row in rows)
    assert gpt.decoder is not None
    gpt.decoder.run(ids, places, slots, keys, values, logits)
    for row in rows:
        row.settle()


def _flat(parts: Iterator[Sequence[int]]) -> Ints:
    return np.fromiter(chain.from_iterable(parts), np.int32)
