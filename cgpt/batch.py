"""Several prompts at once: one pass through the layers gives each its next token.

Prompts of unequal lengths lie side by side without padding, each with a cache of its own; a row
that has ended takes no more time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from cgpt.arena import Floats
from cgpt.kvcache import new_caches
from cgpt.sampling import Ints, Picks, Sampler, pick_changed, picks_of

if TYPE_CHECKING:
    from cgpt.inference import Inference


class Rows:
    """The sequences and their caches; row i of the arrays is prompt i.

    tokens   (N, capacity) int32: what is in the caches, `lengths` (N,) of each
    """

    def __init__(self, gpt: Inference, n: int, capacity: int) -> None:
        assert gpt.decoder is not None
        self.decoder, self.capacity = gpt.decoder, capacity
        self.keys, self.values = new_caches(gpt.config, n, capacity)
        self.logits: Floats = np.empty((n, gpt.config.vocab_size), np.float32)
        self.tokens: Ints = np.empty((n, capacity), np.int32)
        self.lengths: Ints = np.zeros(n, np.int32)

    def seen(self, rows: Iterable[int]) -> list[Ints]:
        """What is in the cache of each of these rows."""
        return [self.tokens[row, :self.lengths[row]] for row in rows]

    def append(self, rows: Ints, tokens: Ints, picks: Picks | None = None) -> Floats:
        """One token for each of these rows; logits (n, V) behind them, until the next call.

        picks  n tokens that are picked from them in the same call
        A full row first keeps its last half.
        """
        full = self.lengths[rows] == self.capacity
        if full.any():
            half = self.capacity - self.capacity // 2
            return self.feed(rows, [
                [*self.tokens[row, half:].tolist(), token] if over else [token]
                for row, token, over in zip(rows, tokens.tolist(), full, strict=True)], full, picks)
        places = self.lengths[rows]
        self.tokens[rows, places] = tokens
        self.lengths[rows] += 1
        return self._run(tokens, places, rows, len(rows), picks)

    def feed(self, rows: Ints, fresh: Sequence[Sequence[int]], anew: np.ndarray,
             picks: Picks | None = None) -> Floats:
        """Several tokens for each of these rows, from the start where `anew`; as append."""
        self.lengths[rows[anew]] = 0
        sizes = np.array([len(ids) for ids in fresh])
        ids = np.fromiter(chain.from_iterable(fresh), np.int32)
        slots = np.repeat(rows, sizes)
        first = np.repeat(np.cumsum(sizes) - sizes, sizes)
        places = np.repeat(self.lengths[rows], sizes) + np.arange(len(ids), dtype=np.int32) - first
        self.tokens[slots, places] = ids
        self.lengths[rows] += sizes.astype(np.int32)
        # The last tokens of all rows come last, for those are the ones that have logits.
        last = np.cumsum(sizes) - 1
        order = np.concatenate([np.delete(np.arange(len(ids)), last), last])
        return self._run(ids[order], places[order].astype(np.int32), slots[order], len(rows), picks)

    def _run(self, ids: Ints, places: Ints, slots: Ints, n: int, picks: Picks | None) -> Floats:
        logits = self.logits[:n]
        picking, u, tokens = picks or (None, None, None)
        self.decoder.run(ids, places, slots, self.keys, self.values, logits, None, picking, u,
                         tokens)
        return logits


def steps(gpt: Inference, prompts: Sequence[Sequence[int]], samplers: Sequence[Sampler],
          ends: frozenset[int], ended: set[int]) -> Iterator[list[tuple[int, int]]]:
    """At every step the tokens that follow, as pairs (number of the prompt, token).

    The samplers differ in their seed alone. A row ends with a token of `ends`, which is not given,
    after max_new_tokens, and where the caller has added its number to `ended`.
    """
    left = samplers[0].sampling.max_new_tokens if samplers else 0
    if not left:
        return
    T = gpt.config.block_size
    capacity = min(T, max(map(len, prompts)) + left)
    rows = Rows(gpt, len(prompts), capacity)
    live: Ints = np.arange(len(prompts), dtype=np.int32)
    tokens: Ints | None = None
    while True:
        own = [samplers[row] for row in live]
        picks = picks_of(own)
        inside = None if own[0].changes else picks
        if tokens is None:
            logits = rows.feed(live, [prompt[-capacity:] for prompt in prompts], live >= 0, inside)
        else:
            logits = rows.append(live, tokens, inside)
        if inside is None:
            pick_changed(own, logits, rows.seen(live), picks)
        tokens = picks.tokens
        found = tokens.tolist()
        if min(found) < 0:
            row = int(tokens.argmin())
            raise own[row].nothing_left(logits[row])
        if not ends.isdisjoint(found):
            going = np.array([token not in ends for token in found])
            live, tokens = live[going], tokens[going]
        yield list(zip(live.tolist(), tokens.tolist(), strict=True))
        left -= 1
        if ended:
            going = np.array([row not in ended for row in live.tolist()], np.bool_)
            live, tokens = live[going], tokens[going]
        if not left or not len(live):
            return
