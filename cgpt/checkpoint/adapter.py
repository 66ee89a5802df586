"""A LoRA adapter as a small file of format v1, and its way back onto the model it belongs to.

A path to the model is noted in it, from the adapter's folder on, and a fingerprint of its weights.
Where no file holds the model, the adapter's carries it along.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from cgpt.checkpoint.contents import build_config, build_optimizer, build_training_state
from cgpt.config import GPTConfig
from cgpt.errors import CheckpointError, ConfigError, Phrase, shown
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_errors import damaged, not_saved, other_base
from cgpt.fileio.format_v1 import ADAPTED, DType, Kind
from cgpt.fileio.open_file import Job, folder_of, in_parallel
from cgpt.fileio.strict_json import check_object
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.locale import N_
from cgpt.nn.arena import ParameterArena
from cgpt.nn.arrays import Floats
from cgpt.optim.lora import Lora


def adapter_of(llm: LanguageModel) -> Lora | None:
    """The adapter that a model is being trained by."""
    return llm.optimizer if isinstance(llm.optimizer, Lora) else None


def trained_arena(llm: LanguageModel) -> ParameterArena:
    """What a training changes and a checkpoint holds: the weights, or an adapter's A and B."""
    lora = adapter_of(llm)
    return llm.trainable.arena if lora is None else lora.arena


def check_optimizer(llm: LanguageModel, path: object, optimizer: bool) -> None:
    """Raises CheckpointError (code "write") for an optimizer to be saved that lost its moments."""
    if optimizer and llm.optimizer is not None:
        try:
            llm.optimizer.require_owner()
        except ConfigError:
            raise not_saved(
                path,
                "an optimizer whose moments belong to one that was made for the model later",
                "the one that trains the model",
                "set llm.optimizer to that one, or leave it out: optimizer=False",
            ) from None


def settings_to_save(lora: Lora, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings, as a file at `path` has them, of an adapter whose model is in a file.

    Raises CheckpointError (code "write") where that is this file.
    """
    if os.path.realpath(path) == os.path.realpath(lora.base):
        raise not_saved(
            path,
            "the model that the adapter needs at this path",
            "another path",
            "name another file",
        )
    try:
        noted = os.path.relpath(lora.base, os.path.dirname(os.path.abspath(path)))
    except ValueError:  # another drive of Windows
        noted = os.path.abspath(lora.base)
    return {**lora.to_dict(), "base": Path(noted).as_posix()}


def require_adapter(file: BinaryFile) -> None:
    """Raises CheckpointError where an open file holds a whole model."""
    if not file.is_adapter:
        raise other_base(
            file.path,
            "a whole model where an adapter is wanted",
            "name the model first, the adapter second",
        )


def model_config(file: BinaryFile) -> GPTConfig:
    """The configuration of the model in an open file, or of that which its adapter belongs to."""
    values = file.config_values()
    graph = values["graph"].removesuffix(ADAPTED) if file.is_adapter else values.get("graph")
    return build_config(file.path, graph, values.get("config"))


def read_settings(file: BinaryFile) -> dict[str, Any]:
    """The adapter's settings in an open file."""
    return check_object(
        file.path, N_("the optimizer settings"), file.json(file.one(Kind.OPTIMIZER))
    )


def base_of(file: BinaryFile) -> Path:
    """Where the model of an adapter's file lies: at the path noted, else next to the adapter.

    Raises CheckpointError (code "missing") where it is at neither.
    """
    noted = read_settings(file).get("base")
    if not isinstance(noted, str) or not noted:
        raise damaged(
            file.path, Phrase("the path of its model {value}", value=shown(noted)), "a path"
        )
    folder = folder_of(file.path)
    for path in (folder / noted, folder / Path(noted).name):
        if path.is_file():
            return path
    raise CheckpointError(
        "{path}: the model {base} of this adapter is not there; put it back, or name both: "
        "load_with_adapter(model, adapter)",
        code="missing",
        hint="merge",
        path=file.path,
        base=noted,
    )


def read_state(file: BinaryFile) -> TrainingState:
    """The training state of an open file, of an adapter or a whole model."""
    record = file.maybe(Kind.RUN)
    run = None if record is None else file.json(record)
    if file.is_adapter:
        run = read_settings(file).get("run")
    return build_training_state(file.path, file.json(file.one(Kind.TRAINING_STATE)), run)


def apply(file: BinaryFile, llm: LanguageModel, *, training: bool) -> None:
    """Give a model the adapter of an open file, and the training state and metadata of that.

    llm       as read from a file, with weights that may be written
    training  whether the adapter stays apart, to be trained on; else the weights are all there is
    Raises CheckpointError where the model is another than the adapter was trained on.
    """
    if model_config(file) != llm.config:
        raise other_base(
            file.path,
            Phrase("an adapter for a model of another shape than {path}", path=llm.base),
            "name the model that it was trained on",
        )
    settings = read_settings(file)
    if file.carries_base != (settings.get("base") == ""):
        raise damaged(
            file.path,
            "an adapter without a model, or with two",
            "the path of one or the model itself",
        )
    lora = build_optimizer(file.path, llm.trainable, settings, Lora.from_dict)
    if lora.fingerprint != settings.get("fingerprint"):
        raise other_base(
            file.path,
            Phrase(
                "an adapter that was trained on other weights than those of {path}", path=llm.base
            ),
            "name the model that it was trained on",
        )
    llm.training_state = read_state(file)
    llm.metadata = check_object(file.path, "metadata", file.json(file.one(Kind.METADATA)))
    lora.base, llm.base = llm.base, ""
    if training:
        llm.optimizer = lora
        _read(file, lora.arena, _training_arrays(file, llm, lora.arena))
    else:
        _read(file, lora.arena, {Kind.TENSOR: lora.arena.data})
    lora.restored()
    if not training:
        lora.release()


def _training_arrays(
    file: BinaryFile, llm: LanguageModel, arena: ParameterArena
) -> dict[Kind, Floats]:
    """Where the tensors of each kind go when training continues; makes what `llm` needs for it."""
    m, v = arena.require_moments()
    targets = {Kind.TENSOR: arena.data, Kind.ADAM_M: m, Kind.ADAM_V: v}
    if file.of(Kind.BEST_TENSOR):
        llm.best_weights = targets[Kind.BEST_TENSOR] = arena.data.copy()
    if file.of(Kind.LIVE_TENSOR):
        llm.average = targets[Kind.TENSOR] = arena.data.copy()
        targets[Kind.LIVE_TENSOR] = arena.data
    return targets


def _read(file: BinaryFile, arena: ParameterArena, targets: dict[Kind, Floats]) -> None:
    """Fill flat arrays that are laid out as the arena with the tensors of these kinds."""
    jobs = []
    for kind, array in targets.items():
        records = file.of(kind)
        if [(one.name, one.shape, one.dtype) for one in records] != [
            (one.name, one.shape, DType.FLOAT32) for one in arena.entries
        ]:
            raise damaged(
                file.path,
                Phrase("{n} tensors of kind {kind}", n=len(records), kind=kind.name.lower()),
                "those of the adapter's settings",
            )
        for record, entry in zip(records, arena.entries, strict=True):
            flat = array[entry.offset : entry.offset + entry.size]
            jobs.append(Job(record.length, partial(file.fill, record, flat)))
    in_parallel(jobs)
