"""KVCache: the keys and values of the tokens that a model has already seen."""

from __future__ import annotations

import numpy as np

from cgpt.arena import Floats
from cgpt.arrays import Ints
from cgpt.config import GPTConfig
from cgpt.errors import ConfigError


class KVCache:
    """Keys and values of one sequence, for every block, up to the model's context.

    keys, values  (L, H, T, D) float32; the first `length` places of each head are filled
    logits        (1, V) float32 of the token inferred last
    all_keys, all_values, places, slots  the same (1, L, H, T, D), the places 0 to T - 1 and the
                  number of the one sequence for each, as a decoder wants them
    """

    def __init__(self, config: GPTConfig) -> None:
        self._hold(*new_caches(config, 1, config.block_size))
        self.logits: Floats = np.empty((1, config.vocab_size), np.float32)
        self.length = 0

    def _hold(self, keys: Floats, values: Floats) -> None:
        """Take over (1, L, H, T, D) each, and make what every call of the decoder needs."""
        self.all_keys, self.all_values = keys, values
        self.keys, self.values = keys[0], values[0]
        self.places: Ints = np.arange(self.capacity, dtype=np.int32)
        self.slots: Ints = np.zeros(self.capacity, np.int32)

    @property
    def capacity(self) -> int:
        """Most tokens that fit."""
        return self.keys.shape[2]

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on; what is before it is used again."""
        if not 0 <= length <= self.length:
            raise ConfigError(f"KVCache: cannot truncate to {length}, it holds {self.length}")
        self.length = length

    def copy(self) -> KVCache:
        """An independent cache with the same tokens; only the filled places are copied."""
        other = object.__new__(KVCache)
        other._hold(np.empty_like(self.all_keys), np.empty_like(self.all_values))
        other.logits = self.logits.copy()
        other.length = self.length
        other.keys[:, :, :self.length] = self.keys[:, :, :self.length]
        other.values[:, :, :self.length] = self.values[:, :, :self.length]
        return other


def new_caches(config: GPTConfig, sequences: int, capacity: int) -> Floats:
    """Keys and values (2, S, L, H, T, D) of S sequences of up to `capacity` = T tokens, unfilled.

    The system gives memory to those places only that are written.
    """
    H = config.n_head
    return np.empty((2, sequences, config.n_layer, H, capacity, config.n_embd // H), np.float32)
