"""Saving and loading models: format v1 (docs/format_v1.md) and JSON (docs/persistence.md).

Every save is atomic and durable; every load checks what it reads. Both formats hold the weights,
the vocabulary, the training state and, unless it is left out, the optimizer's state to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.arena import aligned
from cgpt.checkpoint import binary, compare, info, json_file, json_save, packing
from cgpt.checkpoint.adapter import (
    adapter_of,
    apply,
    base_of,
    carries_base,
    is_adapter,
    require_adapter,
)
from cgpt.checkpoint.base_file import read_whole
from cgpt.checkpoint.info import find_models, is_binary
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.parts import Progress
from cgpt.checkpoint.reader import BinaryFile, Source
from cgpt.checkpoint.sniff import is_rustgpt_json
from cgpt.checkpoint.tokenizer_file import load_tokenizer, save_tokenizer
from cgpt.errors import ConfigError
from cgpt.llm import LLM
from cgpt.stored import with_weights
from cgpt.weights import StoredTensor

__all__ = ["CheckpointManager", "StoredTensor", "compare_models", "describe", "find_models",
           "import_model", "load_model_auto", "load_model_binary", "load_model_json",
           "load_stored_weights", "load_tokenizer", "load_weights", "load_with_adapter",
           "save_model_binary", "save_model_json", "save_tokenizer",
           "weights_form"]

PathLike = str | os.PathLike[str]


def save_model_binary(llm: LLM, path: PathLike, *, optimizer: bool = True,
                      weights: str = "float32", group: int = 64) -> Path:
    """Save `llm` as a binary file of format v1; about 12 bytes a parameter, 4 without optimizer.

    optimizer  whether Adam's moments and the best weights so far are saved, which an exact
               resume needs
    weights    "float32", or rounded to "float16" or "int8" (symmetric, `group` = 32 or 64 numbers
               of a row to a scale), which takes a half or little more than a quarter; only with
               optimizer=False, else ConfigError
    An LLM that is being trained by LoRA makes a small file with its adapter alone, which names the
    file of the model it began with; where none holds that (any more), the adapter's carries it
    along. With optimizer=False: one of the whole model with the adapter merged into it.
    Folders are made when missing. The path holds the old file or the new one at every instant,
    also when the power fails; saving over the file that `llm` was loaded from is safe.
    Returns the path. Raises CheckpointError (code "write") with the reason.
    """
    found = packing.save(llm, path, optimizer=optimizer, weights=weights, group=group)
    if weights == "float32" and not (optimizer and adapter_of(llm)):
        _note_base(llm, path)
    return found


def _note_base(llm: LLM, path: PathLike) -> None:
    """Remember a file with the weights that `llm` has now: not with the average of them."""
    if llm.average is None:
        llm.base = os.path.abspath(path)


def save_model_json(llm: LLM, path: PathLike, *, optimizer: bool = True) -> Path:
    """Save `llm` as JSON for other programs; every float32 comes back to the bit.

    Arguments, promises and errors as `save_model_binary`; NaN and infinity cannot be saved.
    """
    found = json_save.save(llm, path, optimizer=optimizer)
    _note_base(llm, path)
    return found


def load_model_binary(path: PathLike, *, training: bool = True,
                      progress: Progress | None = None, weights: str | None = None) -> LLM:
    """Load a binary file. Everything that is read is checked before it is used.

    training  True: weights are copied, optimizer and best weights are loaded where they were
              saved. False, for chat: weights are read-only, and the rest of the training's arrays
              is left alone
    weights   the form that the model's matrices are to have: "float32", "float16" or "int8". By
              default that of the file; a model that is loaded for training has float32 only
    progress  called once a layer as progress(i, n, LayerRecord), i from 1 to n
    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    with BinaryFile(path) as file:
        if not is_adapter(file):
            llm = binary.load(file, training=training, progress=progress)
            _note_base(llm, path)
            return _in_form(llm, training, weights)
        llm = binary.load_base(file) if carries_base(file) else load_weights(base_of(file))
        apply(file, llm, training=training)
    layers = llm.gpt.layer_records()
    for number, layer in enumerate(layers, 1):
        if progress is not None:
            progress(number, len(layers), layer)
    return _in_form(llm, training, weights)


def load_stored_weights(path: PathLike) -> dict[str, StoredTensor]:
    """The weights of a binary file as they are stored, by name: float32, float16 or int8.

    They are read-only, and every checksum was compared. An inference engine takes them from here;
    `load_model_binary` turns them into float32. Raises CheckpointError as that does.
    """
    return binary.load_stored(path)


def load_model_json(path: PathLike, *, training: bool = True,
                    progress: Progress | None = None, weights: str | None = None) -> LLM:
    """Load a JSON file; arguments and errors as `load_model_binary`."""
    llm = json_file.load(path, training=training, progress=progress)
    _note_base(llm, path)
    return _in_form(llm, training, weights)


def load_model_auto(path: PathLike, *, training: bool = True,
                    progress: Progress | None = None, weights: str | None = None) -> LLM:
    """Load a model in whichever format it is, told by its content and not by its name.

    Arguments and errors as `load_model_binary`.
    """
    load = load_model_binary if is_binary(path) else load_model_json
    return load(path, training=training, progress=progress, weights=weights)


def load_weights(path: PathLike) -> LLM:
    """A whole model to begin a training with: its vocabulary, and weights that may be written.

    Of the training that it had, and of its metadata, nothing is left.
    Raises CheckpointError as `load_model_auto` does, and where the file holds an adapter.
    """
    llm = read_whole(path)
    weights = aligned(llm.gpt.arena.size)
    np.copyto(weights, llm.gpt.arena.data)
    found = LLM(llm.tokenizer, type(llm.gpt)(llm.config, weights=weights))
    _note_base(found, path)
    return found


def load_with_adapter(model: PathLike, adapter: PathLike, *, training: bool = True) -> LLM:
    """The model of one file with the LoRA adapter of another, which may name another place.

    training  False merges the adapter into the weights
    Raises CheckpointError where one of the files cannot be read, or the adapter was trained on
    another model.
    """
    with BinaryFile(adapter) as file:
        require_adapter(file)
        llm = load_weights(model)
        apply(file, llm, training=training)
    return llm


def _in_form(llm: LLM, training: bool, weights: str | None) -> LLM:
    """The model with its matrices in the form asked for."""
    if training and weights not in (None, "float32"):
        raise ConfigError(f"load: training needs float32 weights, found weights={weights!r}; "
                          "pass training=False")
    if weights is not None:
        llm.gpt = with_weights(llm.gpt, weights)
    return llm


def import_model(path: PathLike) -> LLM:
    """A model of another program as an LLM: the JSON exports of RustGPT-Chinese.

    Both of its generations become the graph RustGPT with their words. Adam's state comes along
    where it can go on exactly: where all arrays have the same settings and number of steps; else
    `optimizer` is None. cgpt's own files are loaded as `load_model_auto` does.
    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    from cgpt.checkpoint import rustgpt_import

    with Source(path) as source:
        if is_rustgpt_json(source.head):
            return rustgpt_import.load(path)
    return load_model_auto(path)


def compare_models(a: PathLike, b: PathLike) -> dict[str, Any]:
    """What differs between two model files of either format; see `compare.compare`.

    Rounded weights are compared as the float32 that they stand for. Raises CheckpointError as
    `load_model_auto` does.
    """
    return compare.compare(load_model_auto(a), load_model_auto(b))


def describe(path: PathLike, verify: bool = False) -> dict[str, Any]:
    """What a model file holds, JSON-ready, without loading it.

    verify  also check every byte
    Keys: path, format ("binary" or "json"), version, bytes, graph, config, layers [{name, type,
    parameters}], parameters (their number), words, optimizer (settings or None), best_weights
    (bool), run_id (which training it is of, "" for none), training_state, metadata, records [{kind,
    name, dtype, shape, offset, bytes, crc32}] (empty for JSON), verified. Of an adapter: its own
    parameters and settings, the configuration of its model, no layers, words None.
    Raises CheckpointError as the loaders do.
    """
    return (info.describe_binary if is_binary(path) else info.describe_json)(path, verify)


def weights_form(path: PathLike) -> str:
    """The form of a file's matrices: "float32", "float16" or "int8" (JSON has float32 only).

    Raises CheckpointError as the loaders do.
    """
    return info.weights_form(path) if is_binary(path) else "float32"
