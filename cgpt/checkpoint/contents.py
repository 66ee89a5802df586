"""The parts of a model that both file formats hold, and the checks that both need.

Configuration, layers, training state, optimizer settings and metadata are JSON objects; the
vocabulary is a list of words and scores. `build_*` turn checked parts into objects of cgpt and
turn whatever those refuse into a CheckpointError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from cgpt.config import GPTConfig
from cgpt.errors import ConfigError, DataError, Phrase, as_reason, shown
from cgpt.fileio.file_errors import damaged, other_version
from cgpt.fileio.strict_json import check_object
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.locale import N_
from cgpt.models.base import Model
from cgpt.models.graph import LayerRecord
from cgpt.models.inference import InferenceModel
from cgpt.models.quantized import weight_dtype_of, with_weights
from cgpt.models.registry import FAMILIES, family_named, family_of
from cgpt.nn.arena import Entry
from cgpt.nn.arrays import Floats
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.moving_average import with_average
from cgpt.validation import is_int

_RUN_ID = re.compile("([0-9a-f]{16})?")
_HALVES = re.compile("[\ud800-\udfff]")

LayerProgress = Callable[[int, int, LayerRecord], None]
Optimizer = TypeVar("Optimizer", bound=AdamW)


def with_floats(llm: LanguageModel) -> LanguageModel:
    """The same model with float32 weights: those that rounded ones stand for."""
    if weight_dtype_of(llm.gpt) == "float32":
        return llm
    return LanguageModel(
        llm.tokenizer,
        with_weights(llm.gpt, "float32"),
        training_state=llm.training_state,
        metadata=llm.metadata,
    )


def weights_to_save(llm: LanguageModel) -> Floats:
    """What a whole model's file holds as the weights: their average where training keeps one."""
    data = llm.trainable.arena.data
    if llm.average is None:
        return data
    if not isinstance(llm.optimizer, Lora):
        return llm.average
    return with_average(llm.average, llm.optimizer, data.copy)  # which is that of A and B


# Building


def build_config(path: object, graph: Any, values: Any) -> GPTConfig:
    """The configuration of a graph that this version knows."""
    family = family_named(graph)
    if family is None:
        known = " or ".join(f"'{one.name}'" for one in FAMILIES)
        raise other_version(path, Phrase("the graph {name}", name=shown(graph)), known)
    if not isinstance(values, dict):
        raise damaged(path, "a configuration that is no object", "an object")
    try:
        return family.config.from_dict(values)
    except (ConfigError, TypeError) as error:
        raise damaged(
            path,
            Phrase("a configuration that cannot be ({reason})", reason=as_reason(error)),
            "a valid one",
        ) from None


def build_training_state(path: object, values: Any, run: Any = None) -> TrainingState:
    """The training state of a JSON object, and of one that names the run; None for none."""
    run_id = "" if run is None else check_object(path, N_("run", "record"), run).get("id")
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise damaged(path, Phrase("the run {run}", run=shown(run_id)), "16 hexadecimal digits")
    try:
        state = TrainingState.from_dict(values)
    except (DataError, TypeError) as error:
        raise damaged(
            path,
            Phrase("a training state that cannot be ({reason})", reason=as_reason(error)),
            "a valid one",
        ) from None
    state.run_id = run_id
    return state


def build_optimizer(
    path: object, gpt: Model, values: Any, restore: Callable[[Model, dict[str, Any]], Optimizer]
) -> Optimizer:
    """The optimizer that `restore` makes of its settings; its moments are still to be read."""
    try:
        betas = [float(beta) for beta in values["betas"]]
        numbers = [*betas, float(values["eps"]), float(values["weight_decay"])]
        steps = values["step_count"]
        if len(betas) != 2 or not all(map(math.isfinite, numbers)):
            raise ValueError(Phrase("numbers {numbers}", numbers=str(numbers)))
        if not is_int(steps) or steps < 0:
            raise ValueError(f"step_count {steps!r:.60}")
        return restore(gpt, values)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise damaged(
            path,
            Phrase("optimizer settings that cannot be ({reason})", reason=as_reason(error)),
            "betas, eps, weight_decay and step_count",
        ) from None


def check_layers(path: object, found: list[Any], gpt: InferenceModel) -> None:
    """Check that the layers of the file are those of the model, in order."""
    expected = gpt.layer_records()
    for number, layer in enumerate(expected, 1):
        one = found[number - 1] if number <= len(found) else None
        plain = {"name": layer.name, "type": layer.type, "parameters": list(layer.parameters)}
        if one != plain:
            raise damaged(
                path, Phrase("layer {n} as {value}", n=number, value=shown(one, 200)), shown(plain)
            )
    if len(found) != len(expected):
        raise damaged(path, Phrase("{n} layers", n=len(found)), str(len(expected)))


def check_fits(path: object, config: GPTConfig, available: int) -> list[Entry]:
    """The layout of the configuration, once its weights can be in `available` bytes at all."""
    entries = family_of(config).model.layout(config)
    least = sum(entry.size for entry in entries if entry.role.decays)
    if least > available:
        raise damaged(
            path,
            Phrase("a configuration of at least {n} parameters", n=least),
            Phrase("at most {n}, which is all that the file can hold", n=available),
        )
    return entries
