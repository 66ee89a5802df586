"""KVCache: the keys and values of the tokens that a model has already seen."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cgpt.config import GPTConfig
from cgpt.nn.arrays import Floats, Ints
from cgpt.validation import check_int, expect


class CacheView(NamedTuple):
    """One sequence's keys and values (L, H, T, D), of which the first `length` are filled."""

    keys: Floats
    values: Floats
    length: int


class KVCache:
    """Keys and values of one sequence, for every block, up to the model's context.

    keys, values  (L, H, T, D) float32; the first `length` positions of each head are filled
    logits        (1, V) float32 of the token inferred last
    all_keys, all_values, positions, sequences  the same as (1, L, H, T, D), 0 to T - 1 and the
                  index of the one sequence for each, as a decoder wants them
    """

    def __init__(self, config: GPTConfig) -> None:
        expect("KVCache", config, GPTConfig, "a GPTConfig")
        self.all_keys, self.all_values = new_caches(config, 1, config.block_size)
        self.logits: Floats = np.empty((1, config.vocab_size), np.float32)
        self.positions, self.sequences = _positions(self.capacity)
        self.length = 0

    @property
    def keys(self) -> Floats:
        """(L, H, T, D) float32."""
        keys: Floats = self.all_keys[0]
        return keys

    @property
    def values(self) -> Floats:
        """(L, H, T, D) float32."""
        values: Floats = self.all_values[0]
        return values

    @property
    def last(self) -> Floats:
        """(V,) float32: the logits behind the last token, overwritten by the next call."""
        logits: Floats = self.logits[0]
        return logits

    @property
    def capacity(self) -> int:
        """Most tokens that fit."""
        return len(self.all_keys[0, 0, 0])

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on; what is before it is used again."""
        self.length = check_int("KVCache.truncate", "length", length, 0, self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return int(self.all_keys.nbytes + self.all_values.nbytes)

    def copy(self, length: int | None = None) -> KVCache:
        """An independent cache with the same tokens, or the first `length` of them.

        Only the positions that they fill are copied.
        """
        other = object.__new__(type(self))
        other.__setstate__(self._state(self.length if length is None else length))
        return other

    def __repr__(self) -> str:
        return f"KVCache({self.length} of {self.capacity} tokens, {self.nbytes} bytes)"

    def __getstate__(self) -> dict[str, Any]:
        """The filled positions, as views: what pickle and copy take."""
        return self._state(self.length)

    def _state(self, length: int) -> dict[str, Any]:
        """The first `length` positions likewise."""
        filled = np.s_[..., :length, :]
        return {
            "shape": self.all_keys.shape,
            "keys": self.keys[filled],
            "values": self.values[filled],
            "logits": self.logits,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.all_keys, self.all_values = (np.empty(state["shape"], np.float32) for _ in range(2))
        self.length = state["keys"].shape[2]
        filled = np.s_[..., : self.length, :]
        self.keys[filled], self.values[filled] = state["keys"], state["values"]
        self.logits = state["logits"].copy()
        self.positions, self.sequences = _positions(self.capacity)


def _positions(capacity: int) -> tuple[Ints, Ints]:
    """The positions of one sequence, and the index 0 for each."""
    return np.arange(capacity, dtype=np.int32), np.zeros(capacity, np.int32)


def new_caches(config: GPTConfig, sequences: int, capacity: int) -> Floats:
    """Keys and values (2, S, L, H, T, D) of S sequences of up to `capacity` = T tokens, unfilled.

    The system gives memory to those positions only that are written.
    """
    H = config.n_head
    return np.empty((2, sequences, config.n_layer, H, capacity, config.n_embd // H), np.float32)
