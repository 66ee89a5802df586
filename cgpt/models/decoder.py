"""Inference: tokens appended to a cache, and what is generated from there."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.errors import DataError
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import Ints, int32
from cgpt.nn.kv_cache import KVCache
from cgpt.nn.quantized import StoredTensor
from cgpt.runtime.forking import cached_property
from cgpt.validation import expect

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cgpt.generation.options import TokenOptions
    from cgpt.generation.sampling import Picks

_RUN = 1 << 24  # multiply-adds of a call that picks several tokens
_PREFILL = 1 << 30  # multiply-adds of a call for a part of a prompt
_PASS = 64  # rows that the decoder takes through the layers at once


class Inference:
    """What a model does without learning. Any number of Python threads may use it at once.

    config  shape of the graph
    """

    config: GPTConfig

    def stored(self) -> Mapping[str, StoredTensor]:
        """Every parameter by name, as it lies in memory."""
        raise NotImplementedError

    @cached_property
    def decoder(self) -> K.Decoder | None:
        """All layers in one call, over the weights as they are at that time; None for a graph
        that it does not know, which goes layer by layer."""
        return bind(self.config, self.stored())

    def new_cache(self) -> KVCache:
        """An empty cache for one sequence of up to block_size tokens."""
        return KVCache(self.config)

    def infer(self, ids: ArrayLike, cache: KVCache, picks: Picks | None = None) -> Floats:
        """Logits (V,) after the last of ids (n,), which are appended to the cache.

        picks  a token that is picked from them in the same call
        The array is the cache's and used again by the next call with it. Raises DataError where
        the cache is too full.
        """
        self._append(self._fresh(ids, cache), cache, cache.logits, picks)
        return cache.last

    def infer_all(self, ids: ArrayLike, cache: KVCache, picks: Picks | None = None) -> Floats:
        """Logits (n, V) after each of ids (n,), which are appended; the rest as infer."""
        flat = self._fresh(ids, cache)
        logits = np.empty((len(flat), self.config.vocab_size), np.float32)
        self._append(flat, cache, logits, picks)
        return logits

    def prefill(self, ids: ArrayLike, cache: KVCache) -> None:
        """Append ids (n,) to the cache without any logits; DataError as infer."""
        self._append(self._fresh(ids, cache), cache, cache.logits[:0], None)

    @cached_property
    def run_length(self) -> int:
        """Tokens that are picked in one call: a few milliseconds' work; 1 for an unknown graph."""
        return 1 if self.decoder is None else max(1, _RUN // self._stored_size)

    @cached_property
    def prefill_length(self) -> int:
        """Tokens of a prompt that one call takes where a caller may end it in between: some ten
        milliseconds' work, a multiple of what passes through the layers at once. All of them for
        a graph whose bits depend on how many there are."""
        if self.decoder is None:
            return self.config.block_size
        return _PASS * max(1, _PREFILL // (_PASS * self._stored_size))

    @cached_property
    def _stored_size(self) -> int:
        return sum(one.data.size for one in self.stored().values())

    def go_on(self, ids: Ints, cache: KVCache, picks: Picks) -> Floats:
        """Append ids[0], pick what follows, append that, and so on; logits (V,) behind the last.

        ids  (n + 1,) int32, filled behind the first; -1 behind the last that could be picked
        The decoder's graphs only. The array is the cache's, as of infer. Raises DataError as that.
        """
        assert self.decoder is not None
        places = cache.places[cache.length : cache.length + len(ids) - 1]
        if len(places) < len(ids) - 1:
            raise _too_full(len(ids) - 1, cache)
        cache.length += self.decoder.go_on(
            ids, places, cache.all_keys, cache.all_values, cache.logits, picks.picking, picks.u
        )
        return cache.last

    def _append(self, ids: Ints, cache: KVCache, logits: Floats, picks: Picks | None) -> None:
        """Append ids (n,); the logits (m, V) behind the last m of them are written."""
        places, end = cache.places, cache.length + len(ids)
        if self.decoder is None:
            self._append_by_layers(ids, places[cache.length : end], cache, logits)
            if picks is not None:
                picks.picking.pick(logits, picks.u, picks.tokens)
        else:
            picking, u, tokens = picks or (None, None, None)
            self.decoder.run(
                ids,
                places[cache.length : end],
                cache.slots[: len(ids)],
                cache.all_keys,
                cache.all_values,
                logits,
                None,
                picking,
                u,
                tokens,
            )
        cache.length = end

    def _append_by_layers(self, ids: Ints, places: Ints, cache: KVCache, logits: Floats) -> None:
        """The same for a graph of which `decoder` is None."""
        raise NotImplementedError

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

    def generate(
        self,
        ids: ArrayLike,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = 0,
        **options: Unpack[TokenOptions],
    ) -> Ints:
        """The new tokens that follow ids: (n,) int32 for ids (T,), (B, n) for ids (B, T).

        temperature 0 is greedy; row i of a batch is drawn with seed + i, all afresh with None.
        options  cancel and timeout, which end it early with the tokens so far, and
                 logits_processors (see TokenOptions)
        Raises ConfigError or DataError for options or ids out of range.
        """
        tokens = list(self.stream(ids, max_new_tokens, temperature, top_k, top_p, seed, **options))
        found = np.array(tokens, np.int32).reshape(len(tokens), *np.shape(ids)[:-1])
        return np.ascontiguousarray(found.T)

    def stream(
        self,
        ids: ArrayLike,
        max_new_tokens: int = 100,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = 0,
        **options: Unpack[TokenOptions],
    ) -> Generator[int | Ints, None, None]:
        """The same tokens one by one, as they are made; for ids (B, T) each is an array (B,)."""
        from cgpt.generation.generate import stream_rows, token_options
        from cgpt.generation.sampling import SamplingConfig

        return stream_rows(
            self,
            self._tokens("ids", ids, 0),
            SamplingConfig(temperature, top_k, top_p, max_new_tokens=max_new_tokens, seed=seed),
            *token_options("GPT.generate", options),
        )


def _too_full(n: int, cache: KVCache) -> DataError:
    return DataError(
        f"infer: {n} tokens do not fit a cache that holds {cache.length} of {cache.capacity}"
    )


def bind(config: GPTConfig, weights: Mapping[str, StoredTensor], module: Any = K) -> K.Decoder:
    """A decoder of the GPT-2 graph over these weights, which it does not copy.

    module  the compiled kernels that it is to run on
    """

    def matrix(name: str) -> Any:
        one = weights[f"{name}.weight"]
        return one.data if one.scales is None else (one.data, one.scales, one.group)

    def vector(name: str) -> Floats:
        return weights[name].floats()

    def norm(name: str) -> tuple[Floats, Floats]:
        return vector(f"{name}.weight"), vector(f"{name}.bias")

    def linear(name: str) -> tuple[Any, Floats]:
        return matrix(name), vector(f"{name}.bias")

    def layer(name: str) -> tuple[Any, ...]:
        return (
            norm(f"{name}.attn.ln"),
            linear(f"{name}.attn.c_attn"),
            linear(f"{name}.attn.c_proj"),
            norm(f"{name}.mlp.ln"),
            linear(f"{name}.mlp.c_fc"),
            linear(f"{name}.mlp.c_proj"),
        )

    decoder: K.Decoder = module.Decoder(
        config.n_head,
        matrix("wte"),
        vector("wpe.weight"),
        norm("ln_f"),
        [layer(f"h.{i}") for i in range(config.n_layer)],
    )
    return decoder
