"""StoredGPT: a model whose weights stay float16 or int8, for chat and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import WEIGHT_DTYPES, GPTConfig
from cgpt.errors import ConfigError, shown
from cgpt.models.base import Model
from cgpt.models.gpt2 import GPT
from cgpt.models.inspection import Inspection
from cgpt.nn.arena import ParameterArena, aligned, arena_size, read_only
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.kv_cache import new_caches
from cgpt.nn.layer import Step
from cgpt.nn.quantized import GROUPS, StoredTensor, own_copy, rounded, weight_dtype
from cgpt.validation import expect, plain

_ROWS = 256  # whose logits are held at once
_TOGETHER = 16  # documents whose caches are held at once


class NoArena(ConfigError, AttributeError):
    """What a model with rounded weights answers to whoever wants to change them."""


class StoredGPT(GPT):
    """A GPT-2 graph over weights that are not float32; it infers and measures, it does not learn.

    weights  every parameter by name, see GPT.layout; matrices are multiplied as they are stored,
             rows of activations being rounded to int8 beside int8 weights
    form     "float16" or "int8"
    """

    def __init__(self, config: GPTConfig, weights: Mapping[str, StoredTensor], form: str) -> None:
        self.config, self.form = config, form
        self._declare()
        self._parameters = dict(self._named_parameters())
        self._weights = dict(weights)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: a model with arrays of its own."""
        return _restored, (type(self), self.config, self._weights, self.form)

    def stored(self) -> dict[str, StoredTensor]:
        """Every parameter by name, as it lies in memory."""
        return self._weights

    @property
    def arena(self) -> ParameterArena:
        """Raises a ConfigError that is an AttributeError too: there is none."""
        raise self._unchangeable()

    def _unchangeable(self) -> NoArena:
        return NoArena(
            f"arena: this model's weights are {self.form}, which cannot be "
            'changed; load it with weights="float32"'
        )

    def inspect(self, ids: ArrayLike) -> Inspection:
        """As of the model with these weights in float32."""
        return with_weights(self, "float32").inspect(ids)

    def _repr_more(self) -> str:
        return f", {self.form} weights"

    def weights_mark(self) -> bytes:
        """b"": what is stored does not change."""
        return b""

    @property
    def n_parameters(self) -> int:
        """Number of learned values."""
        return sum(one.data.size for one in self._weights.values())

    def parameters(self) -> dict[str, Floats]:
        """Every parameter by name, as float32 copies of what is stored."""
        return {name: one.floats() for name, one in self._weights.items()}

    def forward(
        self,
        ids: ArrayLike,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        backward: bool = True,
        **more: Any,
    ) -> float:
        """As GPT.forward with backward=False. Raises ConfigError with backward=True."""
        if backward:
            raise self._unchangeable()
        return super().forward(ids, targets, weights, backward=False, **more)

    def reserve(self, rows: int, *, training: bool = True) -> None:
        """Nothing: inference has no buffers of its own here. Raises ConfigError for training."""
        if training:
            raise self._unchangeable()

    def _hidden(self, step: Step) -> Floats:
        """In float32, with the weights of one block at a time."""
        shape = replace(self.config, n_layer=1, vocab_size=1)
        one = GPT(shape, weights=aligned(arena_size(GPT.layout(shape)), zero=True))
        run = one._pass_for(step)
        x = self._rows_of("wte.weight", step.ids) + self._rows_of("wpe.weight", step.positions)
        for i in range(self.config.n_layer):
            for name, array in one.parameters().items():
                if name.startswith("h.0."):
                    array[...] = self._weights[f"h.{i}.{name.removeprefix('h.0.')}"].floats()
            x = run.part("h.0", step, x)
        for name in ("ln_f.weight", "ln_f.bias"):
            one.parameters()[name][...] = self._weights[name].floats()
        return run.part("ln_f", step, x).copy()

    def _rows_of(self, name: str, rows: Ints) -> Floats:
        """Some rows of a table as float32."""
        table = self._weights[name]
        scales = None if table.scales is None else table.scales[rows]
        return StoredTensor(table.data[rows], scales, table.group).floats()

    def _logits_of(self, step: Step) -> Iterator[tuple[Ints, Floats]]:
        borders = step.offsets
        for first in range(0, len(borders) - 1, _TOGETHER):
            yield from self._logits_of_some(step, borders[first : first + _TOGETHER + 1])

    def _logits_of_some(self, step: Step, borders: Ints) -> Iterator[tuple[Ints, Floats]]:
        """Those of a few documents, whose borders are given."""
        decoder, lengths, ids, rows = self.decoder, np.diff(borders), step.ids, step.rows
        keys, values = new_caches(self.config, len(lengths), int(lengths.max()))
        sequences = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        positions = np.arange(borders[0], borders[-1], dtype=np.int32) - np.repeat(
            borders[:-1], lengths
        )
        logits = np.empty((min(_ROWS, len(sequences)), self.config.vocab_size), np.float32)
        for start in range(borders[0], borders[-1], _ROWS):
            part = slice(start, min(start + _ROWS, borders[-1]))
            own = slice(part.start - borders[0], part.stop - borders[0])
            wanted = rows[np.searchsorted(rows, part.start) : np.searchsorted(rows, part.stop)]
            block = logits[: part.stop - part.start if len(wanted) else 0]
            decoder.run(
                ids[part],
                positions[own],
                sequences[own],
                keys,
                values,
                block,
                None,
                step.positions[part],
            )
            if len(wanted):
                yield wanted, block[wanted - start]


def with_weights(gpt: Model, form: str, group: int = 64) -> Model:
    """The same model with its matrices in another form, for inference; `gpt` where it has it.

    form   "float32", "float16" or "int8"; group (32 or 64) int8 weights share a scale
    Raises ConfigError for another form or group, or where the weights do not fit the form.
    """
    expect("weights", gpt, Model, "a GPT")
    form, group = plain(form), plain(group)
    if (
        not isinstance(form, str)
        or form not in WEIGHT_DTYPES
        or type(group) is not int
        or group not in GROUPS
    ):
        raise ConfigError(
            f"weights: found form {shown(form)} in groups of {shown(group)}; known: "
            f"{', '.join(WEIGHT_DTYPES)}, int8 in groups of 32 or 64"
        )
    if form == weight_dtype_of(gpt):
        return gpt
    if not gpt.supports_quantized(gpt.config):
        raise ConfigError(
            f"weights: this model's graph computes with float32 weights only, found "
            f"form {form!r}; leave the form out"
        )
    entries = GPT.layout(gpt.config)
    if form == "float32":
        weights = aligned(arena_size(entries), zero=True)
        for entry in entries:
            weights[entry.offset : entry.offset + entry.size] = (
                gpt.stored()[entry.name].floats().reshape(-1)
            )
        return GPT(gpt.config, weights=read_only(weights))
    stored = {
        entry.name: rounded(
            entry, gpt.stored()[entry.name].floats(), weight_dtype(entry, form), group
        )
        for entry in entries
    }
    return StoredGPT(gpt.config, stored, form)


def weight_dtype_of(gpt: Model) -> str:
    """The form of a model's matrices."""
    return gpt.form if isinstance(gpt, StoredGPT) else "float32"


def _restored(
    kind: type[StoredGPT], config: GPTConfig, weights: dict[str, StoredTensor], form: str
) -> StoredGPT:
    """The model that StoredGPT.__reduce__ took apart, in memory of its own."""
    return kind(
        config,
        {
            name: StoredTensor(
                own_copy(one.data), None if one.scales is None else own_copy(one.scales), one.group
            )
            for name, one in weights.items()
        },
        form,
    )
