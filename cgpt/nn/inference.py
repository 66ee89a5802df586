"""Inference: tokens appended to a cache, and their logits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import GPTConfig
from cgpt.errors import DataError
from cgpt.nn.arrays import Floats, Ints, int32
from cgpt.nn.decoder import Decoder, SampleRequest
from cgpt.nn.kv_cache import KVCache
from cgpt.nn.quantized import StoredTensor
from cgpt.runtime.forking import cached_property
from cgpt.validation import expect


class Inference:
    """What a model does without learning. Any number of Python threads may use it at once.

    config  shape of the graph
    """

    config: GPTConfig

    def stored(self) -> Mapping[str, StoredTensor]:
        """Every parameter by name, as it lies in memory."""
        raise NotImplementedError

    @cached_property
    def decoder(self) -> Decoder:
        """What appends tokens to caches, with the weights as they are at that time."""
        raise NotImplementedError

    def new_cache(self) -> KVCache:
        """An empty cache for one sequence of up to block_size tokens."""
        return KVCache(self.config)

    def infer(self, ids: ArrayLike, cache: KVCache, request: SampleRequest | None = None) -> Floats:
        """Logits (V,) after the last of ids (n,), which are appended to the cache.

        request  a token that is sampled from them in the same call
        The array is the cache's and used again by the next call with it. Raises DataError where
        the cache is too full.
        """
        self._append(self._fresh(ids, cache), cache, cache.logits, request)
        return cache.last

    def infer_all(
        self, ids: ArrayLike, cache: KVCache, request: SampleRequest | None = None
    ) -> Floats:
        """Logits (n, V) after each of ids (n,), which are appended; the rest as infer."""
        flat = self._fresh(ids, cache)
        logits = np.empty((len(flat), self.config.vocab_size), np.float32)
        self._append(flat, cache, logits, request)
        return logits

    def prefill(self, ids: ArrayLike, cache: KVCache) -> None:
        """Append ids (n,) to the cache without any logits; DataError as infer."""
        self._append(self._fresh(ids, cache), cache, cache.logits[:0], None)

    def decode_n(self, ids: Ints, cache: KVCache, request: SampleRequest) -> Floats:
        """Append ids[0], sample what follows, append that, and so on; logits (V,) behind the last.

        ids  (n + 1,) int32, filled behind the first; -1 behind the last that could be sampled
        The array is the cache's, as of infer. Raises DataError as that.
        """
        positions = cache.positions[cache.length : cache.length + len(ids) - 1]
        if len(positions) < len(ids) - 1:
            raise _too_full(len(ids) - 1, cache)
        cache.length += self.decoder.decode_n(
            ids, positions, cache.all_keys, cache.all_values, cache.logits, request
        )
        return cache.last

    def _append(
        self, ids: Ints, cache: KVCache, logits: Floats, request: SampleRequest | None
    ) -> None:
        """Append ids (n,); the logits (m, V) behind the last m of them are written."""
        end = cache.length + len(ids)
        self.decoder.run(
            ids,
            cache.positions[cache.length : end],
            cache.sequences[: len(ids)],
            cache.all_keys,
            cache.all_values,
            logits,
            request,
        )
        cache.length = end

    def _fresh(self, ids: ArrayLike, cache: KVCache) -> Ints:
        """ids (n,) as int32; checks their range and that the cache has room."""
        expect("infer", cache, KVCache, "a KVCache")
        flat = self._tokens("ids", ids, 0).reshape(-1)
        n = len(flat)
        if n == 0 or cache.length + n > cache.capacity:
            raise _too_full(n, cache)
        return flat

    def _tokens(self, what: str, values: ArrayLike, least: int) -> Ints:
        return int32(what, values, least, self.config.vocab_size)

    def weights_mark(self) -> bytes:
        """What is another one when the weights are others; b"" where they cannot change."""
        return b""


def _too_full(n: int, cache: KVCache) -> DataError:
    return DataError(
        "infer: {n} tokens do not fit a cache that holds {held} of {capacity}",
        n=n,
        held=cache.length,
        capacity=cache.capacity,
    )
