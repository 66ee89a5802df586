"""Decoding: tokens appended to the caches of sequences, by one of two implementations.

`FusedDecoder` takes all rows through all layers in one call of a kernel; `LayerDecoder` takes one
sequence after another through the layers, for a graph that the kernel does not know. A model
chooses once; who decodes need not know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cgpt import kernels as K
from cgpt.nn.arena import Parameter
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decode_operations import (
    Activate,
    AddToStream,
    Attend,
    Embed,
    Multiply,
    Normalize,
    StartBranch,
)
from cgpt.nn.kv_cache import CacheView
from cgpt.nn.layer import Layer, Step, operations_of
from cgpt.nn.quantized import StoredTensor

_RUN = 1 << 24  # multiply-adds of a call that samples several tokens
_PREFILL = 1 << 30  # multiply-adds of a call for a part of a prompt
_PASS = 64  # rows that the kernel takes through the layers at once


class SampleRequest(NamedTuple):
    """Tokens that a decoder samples in the call that makes their logits.

    sampler  how
    u        (n,) float64: the random numbers, or None for the most likely tokens
    tokens   (n,) int32: what is sampled, once the call is over; -1 where there is nothing
    """

    sampler: K.TokenSampler
    u: NDArray[np.float64] | None
    tokens: Ints


class Product(NamedTuple):
    """x W^T + bias of a (normalized) x, then an activation, or added to the stream."""

    weight: str
    bias: str | None
    norm: tuple[str, str, float] | None = None  # weight, bias, eps
    activation: str = ""
    adds: bool = False


class DecodePlan(NamedTuple):
    """A graph as the fused decoder takes it, with the names of its parameters.

    operations  products, and for attention the index of its layer in the cache
    norm, head  before the logits
    """

    n_head: int
    embedding: str
    positions: str
    operations: tuple[Product | int, ...]
    norm: tuple[str, str, float] | None
    head: Product


def decode_plan(layers: Iterable[Layer], names: Mapping[Parameter, str]) -> DecodePlan | None:
    """The plan of layers in a row, from what they say of themselves.

    None where one of them, or their order, is not what the fused decoder can do.
    """
    found = operations_of(layers)
    if (
        found is None
        or len(found) < 2
        or not isinstance(found[0], Embed)
        or not isinstance(found[-1], Multiply)
    ):
        return None
    steps, norm, heads = list[Product | int](), None, set[int]()
    branch: list[Product | int] | None = None
    for one in found[1:-1]:
        last = branch[-1] if branch else None
        if isinstance(one, Normalize) and norm is None:
            norm = names[one.weight], names[one.bias], one.eps
        elif isinstance(one, StartBranch) and branch is None and norm is None:
            branch = []
        elif branch is None:
            return None
        elif isinstance(one, Multiply):
            branch.append(_product(one, names, norm))
            norm = None
        elif norm is not None or not isinstance(last, Product):
            return None
        elif isinstance(one, Attend) and one.width == found[0].table.shape[1]:
            branch.append(one.layer)
            heads.add(one.n_head)
        elif isinstance(one, Activate) and not last.activation:
            branch[-1] = last._replace(activation=one.function)
        elif isinstance(one, AddToStream) and len(branch) > 1 and not last.activation:
            steps += [*branch[:-1], last._replace(adds=True)]
            branch = None
        else:
            return None
    if branch is not None or len(heads) > 1:
        return None
    tables = names[found[0].table], names[found[0].positions]
    head = _product(found[-1], names)
    return DecodePlan(heads.pop() if heads else 1, *tables, tuple(steps), norm, head)


def _product(
    one: Multiply, names: Mapping[Parameter, str], norm: tuple[str, str, float] | None = None
) -> Product:
    return Product(names[one.weight], None if one.bias is None else names[one.bias], norm)


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

    def __init__(self, plan: DecodePlan, weights: Mapping[str, StoredTensor]) -> None:
        self._kernel = bind(plan, weights)
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
        sampler, u, tokens = request or (None, None, None)
        self._kernel.run(
            ids, positions, sequences, keys, values, logits, position_ids, sampler, u, tokens
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
        return self._kernel.decode_n(ids, positions, keys, values, logits, *request[:2])


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
            request.sampler.sample(logits, request.u, request.tokens)

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
            part = SampleRequest(request.sampler, None if u is None else u[one], ids[i + 1 : i + 2])
            self.run(ids[one], positions[one], sequence, keys, values, logits, part)
            if ids[i + 1] < 0:
                return i + 1
        return len(positions)


def bind(plan: DecodePlan, weights: Mapping[str, StoredTensor], module: Any = K) -> K.Decoder:
    """The kernel's decoder of a plan over these weights, which it does not copy.

    module  the compiled kernels that it is to run on
    """

    def matrix(name: str) -> Any:
        one = weights[name]
        return one.data if one.scales is None else (one.data, one.scales, one.group)

    def vector(name: str | None) -> Floats | None:
        return None if name is None else weights[name].floats()

    def norm(names: tuple[str, str, float] | None) -> Any:
        return None if names is None else (vector(names[0]), vector(names[1]), names[2])

    decoder: K.Decoder = module.Decoder(
        plan.n_head,
        matrix(plan.embedding),
        vector(plan.positions),
        [
            one
            if isinstance(one, int)
            else (norm(one.norm), matrix(one.weight), vector(one.bias), one.activation, one.adds)
            for one in plan.operations
        ],
        norm(plan.norm),
        (matrix(plan.head.weight), vector(plan.head.bias)),
    )
    return decoder
