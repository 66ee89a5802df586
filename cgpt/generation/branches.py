"""Sequences that branch: what the beams of a search have inferred, each with its tokens' cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cgpt.generation.batch import Rows
from cgpt.generation.context import Context
from cgpt.generation.sampling import Ints
from cgpt.nn.arena import Floats


class Branches(Protocol):
    """Some sequences, in order; at first one."""

    def seen(self, i: int) -> Ints:
        """What is in the cache of sequence i, until the next call of `grow`."""
        raise NotImplementedError

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Floats:
        """The sequences become those of `parents`, each with a token behind it; logits (n, V)."""
        raise NotImplementedError


def branches(context: Context, most: int, left: int) -> Branches:
    """What is in `context`, to be followed by up to `left` tokens in up to `most` ways."""
    if context.gpt.decoder is None:
        return ByThemselves(context)
    return SideBySide(context, most, left)


class SideBySide:
    """All sequences go through the layers in one call.

    Where several have the same parent, one goes on in its cache and the others in caches that are
    no longer needed: those hold the same beginning, and only what differs is copied.
    """

    def __init__(self, context: Context, most: int, left: int) -> None:
        n, cache = len(context), context.cache
        self._rows = Rows(context.gpt, most, min(context.capacity, n + left))
        self._rows.keys[0, :, :, :n] = cache.keys[:, :, :n]
        self._rows.values[0, :, :, :n] = cache.values[:, :, :n]
        self._rows.tokens[0, :n], self._rows.lengths[0] = context.ids, n
        self._most, self._slots = most, [0]

    def seen(self, i: int) -> Ints:
        return self._rows.seen([self._slots[i]])[0]

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Floats:
        going = {self._slots[parent] for parent in parents}
        free = [slot for slot in range(self._most) if slot not in going]
        slots = list[int]()
        for parent in parents:
            slot = self._slots[parent]
            if slot in slots:
                self._copy(slot, free[-1])
                slot = free.pop()
            slots.append(slot)
        self._slots = slots
        return self._rows.append(np.array(slots, np.int32), np.array(tokens, np.int32))

    def _copy(self, source: int, target: int) -> None:
        rows, n = self._rows, int(self._rows.lengths[source])
        most = min(n, int(rows.lengths[target]))
        unlike = np.flatnonzero(rows.tokens[source, :most] != rows.tokens[target, :most])
        part = slice(int(unlike[0]) if unlike.size else most, n)
        rows.tokens[target, part] = rows.tokens[source, part]
        rows.keys[target, :, :, part] = rows.keys[source, :, :, part]
        rows.values[target, :, :, part] = rows.values[source, :, :, part]
        rows.lengths[target] = n


class ByThemselves:
    """Each sequence has a context, for a graph that the decoder does not know."""

    def __init__(self, context: Context) -> None:
        self._contexts = [context]

    def seen(self, i: int) -> Ints:
        return self._contexts[i].seen(len(self._contexts[i]))

    def grow(self, parents: Sequence[int], tokens: Sequence[int]) -> Floats:
        last = {parent: i for i, parent in enumerate(parents)}
        self._contexts = [
            self._contexts[parent] if last[parent] == i else self._contexts[parent].copy()
            for i, parent in enumerate(parents)
        ]
        return np.stack(
            [context.push(token) for context, token in zip(self._contexts, tokens, strict=True)]
        )
