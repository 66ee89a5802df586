"""Loading a model of any kind of file, told by its content and not by its name.

cgpt.llm offers these functions with an LLM as their result, and describes the arguments.
"""

from __future__ import annotations

import os

import numpy as np

from cgpt.checkpoint import binary_reader, json_format
from cgpt.checkpoint.adapter import apply, base_of, require_adapter
from cgpt.checkpoint.contents import LayerProgress
from cgpt.checkpoint.info import kind_of_file
from cgpt.errors import CgptError, ConfigError, shown
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_objects import located
from cgpt.fileio.open_file import Data, InMemory, Location, PathLike, Readable
from cgpt.interop.registry import FORMATS
from cgpt.language_model import LanguageModel
from cgpt.models.quantized import with_weights
from cgpt.nn.arena import aligned, read_only
from cgpt.nn.quantized import StoredTensor
from cgpt.optim.lora import Lora, fingerprint
from cgpt.validation import check_bool, expect_function, plain

Loadable = PathLike | Data | Readable | InMemory


def load(
    source: Loadable,
    *,
    training: bool = True,
    progress: LayerProgress | None = None,
    weights: str | None = None,
    kind: str | None = None,
) -> LanguageModel:
    """See `cgpt.load`.

    kind  "binary" or "json" where no other is taken
    """
    check_bool("load", "training", training)
    expect_function("load", "progress", progress, optional=True)
    location = located(source)
    kind = kind or kind_of_file(location)
    if kind == "binary":
        model = _load_binary(location, training)
    elif kind == "json":
        model = json_format.load(location, training=training)
        note_base(model, location)
    else:
        model = FORMATS[kind].load(location)
    if progress is not None:
        layers = model.gpt.layer_records()
        for number, layer in enumerate(layers, 1):
            progress(number, len(layers), layer)
    if kind in FORMATS and not training:
        model = _read_only(model)
    weights = plain(weights)
    if training and weights is not None and not (isinstance(weights, str) and weights == "float32"):
        raise ConfigError(
            "load: training needs float32 weights, found weights={form}; pass training=False",
            form=shown(weights),
        )
    if weights is not None:
        model.gpt = with_weights(model.gpt, weights)
    return model


def _load_binary(path: Location, training: bool) -> LanguageModel:
    with BinaryFile(path) as file:
        if not file.is_adapter:
            model = binary_reader.load(file, training=training)
            note_base(model, path)
            return model
        model = binary_reader.load_base(file) if file.carries_base else load_weights(base_of(file))
        apply(file, model, training=training)
        return model


def _read_only(model: LanguageModel) -> LanguageModel:
    """The same model with weights that are read-only, and without its optimizer."""
    gpt = type(model.trainable)(model.config, weights=read_only(model.trainable.arena.data))
    return LanguageModel(
        model.tokenizer, gpt, training_state=model.training_state, metadata=model.metadata
    )


def note_base(model: LanguageModel, path: Location) -> None:
    """Remember a file with the weights that `model` has now: not with the average of them."""
    if model.average is None:
        model.base = "" if isinstance(path, InMemory) else os.path.abspath(path)


def load_whole(path: Location) -> LanguageModel:
    """A whole model with float32 weights that are read-only, whatever the file has.

    Raises CheckpointError as `load` does, and where the file holds an adapter.
    """
    kind = kind_of_file(path)
    if kind == "binary":
        with BinaryFile(path) as file:
            file.require_whole()
            model = binary_reader.load(file, training=False)
    elif kind == "json":
        model = json_format.load(path, training=False)
    else:
        model = _read_only(FORMATS[kind].load(path))
    model.gpt = with_weights(model.gpt, "float32")
    return model


def load_weights(path: Loadable) -> LanguageModel:
    """See `cgpt.llm.load_weights`."""
    path = located(path)
    model = load_whole(path)
    weights = aligned(model.trainable.arena.size)
    np.copyto(weights, model.trainable.arena.data)
    found = LanguageModel(model.tokenizer, type(model.trainable)(model.config, weights=weights))
    note_base(found, path)
    return found


def load_with_adapter(
    model: Loadable, adapter: Loadable, *, training: bool = True
) -> LanguageModel:
    """See `cgpt.load_with_adapter`."""
    check_bool("load", "training", training)
    with BinaryFile(located(adapter)) as file:
        require_adapter(file)
        found = load_weights(model)
        apply(file, found, training=training)
    return found


def load_stored_weights(path: Loadable) -> dict[str, StoredTensor]:
    """The weights of a binary file as they are stored, by name: float32, float16 or int8.

    They are read-only, and every checksum was compared. Raises CheckpointError as `load` does.
    """
    return binary_reader.load_stored(located(path))


def is_intact(lora: Lora) -> bool:
    """Whether the file that the adapter names as its model's holds the weights it began with.

    Read whole, but once only for as long as size, time and inode of the file stay.
    """
    try:
        status = os.stat(lora.base)
    except OSError:
        return False
    mark = status.st_size, status.st_mtime_ns, status.st_ino
    if lora.base_seen is None or lora.base_seen[0] != mark:
        try:
            found = fingerprint(load_whole(lora.base).trainable)
        except CgptError:
            found = ""
        lora.base_seen = mark, found == lora.fingerprint
    return lora.base_seen[1]
