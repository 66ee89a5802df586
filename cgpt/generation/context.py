"""Context: the tokens that a key-value cache holds, so that only new ones are inferred."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decoder import SampleRequest
from cgpt.nn.inference import Inference
from cgpt.nn.kv_cache import KVCache
from cgpt.runtime.cancellation import Limit


class Context:
    """The tokens that a cache holds, at most `capacity`.

    cache  KVCache
    """

    def __init__(
        self, gpt: Inference, cache: KVCache | None = None, ids: Sequence[int] | Ints = ()
    ) -> None:
        """ids: the tokens already in `cache` (its first cache.length are taken)."""
        self.gpt = gpt
        self.cache = gpt.new_cache() if cache is None else cache
        self.capacity: int = self.cache.capacity
        self._ids: Ints = np.empty(self.capacity, np.int32)
        self._length = min(len(ids), self.cache.length)
        self._ids[: self._length] = ids[: self._length]

    def __len__(self) -> int:
        return self._length

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        found: list[int] = self._ids[: self._length].tolist()
        return found

    def seen(self, length: int) -> Ints:
        """(length,) int32: the first tokens, a view until the next change."""
        return self._ids[:length]

    def truncate(self, length: int) -> None:
        """Forget what is behind the first `length` tokens, if anything is."""
        self._length = min(self._length, length)
        self.cache.truncate(min(self.cache.length, self._length))

    def common(self, ids: Sequence[int] | Ints) -> int:
        """How many tokens of `ids`, all but the last at the most, need not be inferred."""
        wanted = np.asarray(ids, np.int32)
        most = min(self._length, self.cache.length, len(wanted) - 1)
        unlike = np.flatnonzero(self._ids[:most] != wanted[:most])
        return int(unlike[0]) if unlike.size else most

    def feed(
        self,
        ids: Sequence[int] | Ints,
        request: SampleRequest | None = None,
        limit: Limit | None = None,
    ) -> Floats:
        """Make the context hold exactly `ids` (1 to capacity); (V,) logits after the last one.

        request  one token that is picked from these logits in the same call
        limit  is looked at between parts of a long prompt; Cancelled is raised where it is reached,
               and the context keeps what it has
        Only what is new behind the same beginning is inferred. The logits are used again by the
        next call.
        """
        wanted = np.asarray(ids, np.int32)
        self.truncate(self.common(wanted))
        if limit is not None:
            limit.check("prompt")
            length = self.gpt.decoder.prefill_length
            while len(wanted) - self._length > length:
                self._append(wanted[self._length : self._length + length])
                limit.check("prompt")
        return self._run(self.gpt.infer, wanted[self._length :], request)

    def _append(self, ids: Ints) -> None:
        end = self._length + len(ids)
        self._ids[self._length : end] = ids
        self.gpt.prefill(ids, self.cache)
        self._length = end

    def extend(self, ids: Sequence[int], request: SampleRequest | None = None) -> Floats:
        """Append 1 to capacity - len(self) tokens; (n, V) logits after each.

        request  n tokens that are picked from them in the same call
        The logits are used again by the next call.
        """
        if len(ids) == 1:
            return self._run(self.gpt.infer, ids, request)[None]
        return self._run(self.gpt.infer_all, ids, request)

    def decode_n(self, token: int, request: SampleRequest) -> Floats:
        """Append `token`, and all but the last of the tokens that are picked one behind the other:
        request.tokens (n,), which is filled, -1 where nothing can be picked; n <= capacity -
        len(self). (V,) logits behind the last that was appended, used again by the next call.
        """
        ids = np.empty(len(request.tokens) + 1, np.int32)
        ids[0], ids[1:] = token, -1
        logits = self.gpt.decode_n(ids, self.cache, request)
        request.tokens[...] = ids[1:]
        end = self.cache.length
        self._ids[self._length : end] = ids[: end - self._length]
        self._length = end
        return logits

    def push(self, token: int) -> Floats:
        """Append one token; (V,) logits after it. A full context first keeps its last half."""
        if self._length == self.capacity:
            return self.feed(self.last_half(token))
        logits: Floats = self.extend([token])[0]
        return logits

    def last_half(self, token: int) -> list[int]:
        """The last capacity // 2 tokens and `token`."""
        return [*self._ids[self._length - self.capacity // 2 : self._length].tolist(), token]

    def _run(
        self,
        infer: Callable[[Ints, KVCache, SampleRequest | None], Floats],
        ids: Sequence[int] | Ints,
        request: SampleRequest | None,
    ) -> Floats:
        """Broken off inside, it leaves at most a cache that has grown, which truncate() mends."""
        end = self._length + len(ids)
        fresh = self._ids[self._length : end]
        fresh[...] = ids
        logits = infer(fresh, self.cache, request)
        self._length = end
        return logits

    def copy(self, length: int | None = None) -> Context:
        """A context with a cache of its own that holds the same tokens, or the first `length`."""
        n = self._length if length is None else min(length, self._length)
        return Context(self.gpt, self.cache.copy(n), self._ids[:n])
