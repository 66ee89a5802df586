"""QuantizedModel: weights that stay float16 or int8, for chat and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cgpt.config import WEIGHT_DTYPES, GPTConfig
from cgpt.errors import ConfigError, shown
from cgpt.models.base import Model
from cgpt.models.inference import InferenceModel
from cgpt.models.inspection import Inspection
from cgpt.nn.arena import aligned, arena_size, read_only
from cgpt.nn.arrays import Floats, Ints
from cgpt.nn.decoder import Decoder, FusedDecoder
from cgpt.nn.kv_cache import new_caches
from cgpt.nn.layer import Step
from cgpt.nn.planning import Mode, make_plan
from cgpt.nn.quantized import GROUPS, StoredTensor, own_copy, rounded, weight_dtype
from cgpt.nn.workspace import Workspace
from cgpt.runtime.forking import cached_property
from cgpt.validation import expect, plain

_ROWS = 256  # whose logits are held at once
_TOGETHER = 16  # documents whose caches are held at once


class QuantizedModel(InferenceModel):
    """A graph over weights that are not float32; it infers and measures, it does not learn.

    family   whose graph it is: the model that has these weights in float32
    weights  every parameter by name, see Model.layout; matrices are multiplied as they are stored,
             rows of activations being rounded to int8 beside int8 weights
    form     "float16" or "int8"
    """

    def __init__(
        self, family: type[Model], config: GPTConfig, weights: Mapping[str, StoredTensor], form: str
    ) -> None:
        self.family, self.config, self.form = family, config, form
        self.graph = family.graph_class(config)
        self._weights = dict(weights)
        self._plan = self.graph.decode_plan()
        if self._plan is None:
            raise _only_float32(form)

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: a model with arrays of its own."""
        return _restored, (type(self), self.family, self.config, self._weights, self.form)

    def _repr_more(self) -> str:
        return f", {self.form} weights"

    def stored(self) -> dict[str, StoredTensor]:
        """Every parameter by name, as it lies in memory."""
        return self._weights

    @cached_property
    def decoder(self) -> Decoder:
        """What appends tokens to caches."""
        assert self._plan is not None
        return FusedDecoder(self._plan, self._weights)

    def inspect(self, ids: ArrayLike) -> Inspection:
        """As of the model with these weights in float32."""
        return as_model(self).inspect(ids)

    def _hidden(self, step: Step) -> Floats:
        """In float32, with the weights of one layer at a time."""
        parts = self.graph.layers()[:-1]
        run = Workspace(
            make_plan(parts, self.graph.head, Mode(False), len(step.ids), self.block_names()[:-1])
        ).bind(len(step.ids), len(step.rows))
        for part, layer in parts:
            own = dict(layer.named_parameters(part))
            for name, parameter in own.items():
                parameter.data = self._weights[name].floats()
            run.run_part(part, step)
            for parameter in own.values():
                del parameter.data
        return run.x.copy()

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


def as_model(gpt: InferenceModel) -> Model:
    """The same model with float32 weights, which cannot be changed; `gpt` where it is one."""
    if isinstance(gpt, Model):
        return gpt
    expect("weights", gpt, QuantizedModel, "a GPT")
    assert isinstance(gpt, QuantizedModel)
    entries = gpt.graph.layout()
    weights = aligned(arena_size(entries), zero=True)
    for entry in entries:
        weights[entry.offset : entry.offset + entry.size] = (
            gpt.stored()[entry.name].floats().reshape(-1)
        )
    return gpt.family(gpt.config, weights=read_only(weights))


def require_trainable(gpt: InferenceModel, owner: str = "arena") -> Model:
    """The model, where its weights are float32. Raises ConfigError for others."""
    if isinstance(gpt, QuantizedModel):
        raise ConfigError(
            "arena: this model's weights are {form}, which cannot be changed; load it with "
            'weights="float32"',
            form=gpt.form,
        )
    expect(owner, gpt, Model, "a GPT")
    assert isinstance(gpt, Model)
    return gpt


def with_weights(gpt: InferenceModel, form: str, group: int = 64) -> InferenceModel:
    """The same model with its matrices in another form, for inference; `gpt` where it has it.

    form   "float32", "float16" or "int8"; group (32 or 64) int8 weights share a scale
    Raises ConfigError for another form or group, or where the weights do not fit the form.
    """
    expect("weights", gpt, InferenceModel, "a GPT")
    form, group = plain(form), plain(group)
    if (
        not isinstance(form, str)
        or form not in WEIGHT_DTYPES
        or type(group) is not int
        or group not in GROUPS
    ):
        raise ConfigError(
            "weights: found form {form} in groups of {group}; known: {known}, int8 in "
            "groups of 32 or 64",
            form=shown(form),
            group=shown(group),
            known=list(WEIGHT_DTYPES),
        )
    if form == weight_dtype_of(gpt):
        return gpt
    if form == "float32":
        return as_model(gpt)
    if gpt.graph.decode_plan() is None:
        raise _only_float32(form)
    entries = gpt.graph.layout()
    stored = {
        entry.name: rounded(
            entry, gpt.stored()[entry.name].floats(), weight_dtype(entry, form), group
        )
        for entry in entries
    }
    family = gpt.family if isinstance(gpt, QuantizedModel) else type(as_model(gpt))
    return QuantizedModel(family, gpt.config, stored, form)


def weight_dtype_of(gpt: InferenceModel) -> str:
    """The form of a model's matrices."""
    return gpt.form if isinstance(gpt, QuantizedModel) else "float32"


def _only_float32(form: str) -> ConfigError:
    return ConfigError(
        "weights: this model's graph computes with float32 weights only, found form "
        "{form}; leave the form out",
        form=shown(form),
    )


def _restored(
    kind: type[QuantizedModel],
    family: type[Model],
    config: GPTConfig,
    weights: dict[str, StoredTensor],
    form: str,
) -> QuantizedModel:
    """The model that QuantizedModel.__reduce__ took apart, in memory of its own."""
    return kind(
        family,
        config,
        {
            name: StoredTensor(
                own_copy(one.data), None if one.scales is None else own_copy(one.scales), one.group
            )
            for name, one in weights.items()
        },
        form,
    )
