"""Decoding: tokens appended to the caches of sequences, by one of two implementations.

`FusedDecoder` takes all rows through all layers in one call of a kernel; `LayerDecoder` takes one
sequence after another through the layers, for a graph that the kernel does not know. A model
chooses once; who decodes need not know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import Ints
from cgpt.nn.kv_cache import CacheView
from cgpt.nn.layer import Step
from cgpt.nn.quantized import StoredTensor

_RUN = 1 << 24  # multiply-adds of a call that samples several tokens
_PREFILL = 1 << 30  # multiply-adds of a call for a part of a prompt
_PASS = 64  # rows that the kernel takes through the layers at once


class SampleRequest(NamedTuple):
    """Tokens that a decoder samples in the call that makes their logits.

    picking  how
    u        (n,) float64: the random numbers, or None for the likeliest tokens
    tokens   (n,) int32: what is sampled, once the call is over; -1 where there is nothing
    """

    picking: K.Picking
    u: NDArray[np.float64] | None
    tokens: Ints


class Decoder(Protocol):
    """Appends tokens to S sequences, whose caches are keys and values (S, L, H, T, D).

    run_length      most tokens that one decode_n is to sample: a few milliseconds' work
    prefill_length  most tokens of a prompt in one call of a caller that may stop between two:
                    some ten milliseconds' work
    """

    run_length: int
    prefill_length: int

    def run(
        self,
        ids: Ints,
        positions: Ints,
        sequences: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest | None = None,
        position_ids: Ints | None = None,
    ) -> None:
        """Append ids (R,) at positions (R,) of sequences (R,); the last n rows have logits.

        Rows of one sequence stand in rising order of position; its cache holds what is before.
        logits        (n, V), written;  request: n tokens that are sampled from them
        position_ids  (R,) rows of the table of positions, by default `positions`
        """

    def decode_n(
        self,
        ids: Ints,
        positions: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest,
    ) -> int:
        """Append ids[0] to the one sequence, sample the next, append that; how many were appended.

        ids     (n + 1,): filled behind the first. Fewer than n where nothing can be sampled (-1)
        logits  (1, V): behind the token appended last
        """


class FusedDecoder:
    """The kernel's decoder over weights that stay where they are."""

    def __init__(
        self, config: GPTConfig, weights: Mapping[str, StoredTensor], module: Any = K
    ) -> None:
        self._kernel: K.Decoder = bind(config, weights, module)
        size = sum(one.data.size for one in weights.values())
        self.run_length = max(1, _RUN // size)
        self.prefill_length = _PASS * max(1, _PREFILL // (_PASS * size))

    def run(
        self,
        ids: Ints,
        positions: Ints,
        sequences: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest | None = None,
        position_ids: Ints | None = None,
    ) -> None:
        picking, u, tokens = request or (None, None, None)
        self._kernel.run(
            ids, positions, sequences, keys, values, logits, position_ids, picking, u, tokens
        )

    def decode_n(
        self,
        ids: Ints,
        positions: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest,
    ) -> int:
        return self._kernel.go_on(ids, positions, keys, values, logits, request.picking, request.u)


class LayerDecoder:
    """The layers' own forward pass, for one sequence at a time.

    write_logits  called as write_logits(step, logits): logits (n, V) of the step's rows (n,)
    Its bits depend on how many tokens of a sequence come in one call, so a prompt stays whole.
    """

    run_length = 1
    prefill_length = 1 << 31

    def __init__(self, write_logits: Callable[[Step, Floats], object]) -> None:
        self._write_logits = write_logits

    def run(
        self,
        ids: Ints,
        positions: Ints,
        sequences: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest | None = None,
        position_ids: Ints | None = None,
    ) -> None:
        first = len(ids) - len(logits)  # of the rows that have logits
        table = positions if position_ids is None else position_ids
        for sequence in dict.fromkeys(sequences.tolist()):
            rows = np.flatnonzero(sequences == sequence)
            wanted = np.flatnonzero(rows >= first).astype(np.int32)
            cache = CacheView(keys[sequence], values[sequence], int(positions[rows[0]]))
            offsets = np.array([0, len(rows)], np.int32)
            step = Step(ids[rows], offsets, table[rows], wanted, cache=cache)
            whole = len(wanted) == len(logits)  # then no other sequence has any
            found = logits if whole else np.empty((len(wanted), logits.shape[1]), np.float32)
            self._write_logits(step, found)
            if not whole:
                logits[rows[wanted] - first] = found
        if request is not None:
            request.picking.pick(logits, request.u, request.tokens)

    def decode_n(
        self,
        ids: Ints,
        positions: Ints,
        keys: Floats,
        values: Floats,
        logits: Floats,
        request: SampleRequest,
    ) -> int:
        sequence = np.zeros(1, np.int32)
        for i in range(len(positions)):
            one, u = slice(i, i + 1), request.u
            part = SampleRequest(request.picking, None if u is None else u[one], ids[i + 1 : i + 2])
            self.run(ids[one], positions[one], sequence, keys, values, logits, part)
            if ids[i + 1] < 0:
                return i + 1
        return len(positions)


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
