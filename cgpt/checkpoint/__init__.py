"""Saving and loading models: format v1 (docs/format_v1.md) and JSON (docs/persistence.md).

Every save is atomic and durable; every load checks what it reads. Both formats hold the weights,
the vocabulary, the training state and, unless it is left out, the optimizer's state to the bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from cgpt.checkpoint import binary, compare, info, json_file, json_save, packing
from cgpt.checkpoint.adapter import (
    adapter_of,
    apply,
    base_of,
    carries_base,
    is_adapter,
    require_adapter,
)
from cgpt.checkpoint.base_file import for_chat, read_whole
from cgpt.checkpoint.info import find_models, is_binary
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.parts import Progress
from cgpt.checkpoint.reader import BinaryFile
from cgpt.checkpoint.streams import (
    Data,
    InMemory,
    Location,
    PathLike,
    Readable,
    StreamOutput,
    Writable,
    is_stream,
    located,
    name_of,
    write_all,
)
from cgpt.checkpoint.tokenizer_file import load_tokenizer, save_tokenizer
from cgpt.errors import ConfigError, shown
from cgpt.llm import LLM
from cgpt.models.base import Model
from cgpt.models.quantized import form_in_use, with_weights
from cgpt.nn.arena import aligned
from cgpt.nn.quantized import StoredTensor
from cgpt.validation import check_bool, expect, expect_function, plain

__all__ = [
    "CheckpointManager",
    "StoredTensor",
    "compare_models",
    "describe",
    "find_models",
    "import_model",
    "load",
    "load_model_auto",
    "load_model_binary",
    "load_model_json",
    "load_stored_weights",
    "load_tokenizer",
    "load_weights",
    "load_with_adapter",
    "save_model_binary",
    "save_model_json",
    "save_tokenizer",
    "weights_form",
]

Loadable = PathLike | Data | Readable | InMemory


@overload
def save_model_binary(
    llm: LLM, path: PathLike, *, optimizer: bool = True, weights: str | None = None, group: int = 64
) -> Path: ...


@overload
def save_model_binary(
    llm: LLM, path: Writable, *, optimizer: bool = True, weights: str | None = None, group: int = 64
) -> None: ...


def save_model_binary(
    llm: LLM,
    path: PathLike | Writable,
    *,
    optimizer: bool = True,
    weights: str | None = None,
    group: int = 64,
) -> Path | None:
    """Save `llm` as a binary file of format v1; about 12 bytes a parameter, 4 without optimizer.

    path       or a binary file object (a socket's, a pipe, io.BytesIO), which is written from where
               it stands and needs no seek
    optimizer  whether Adam's moments and the best weights so far are saved, which an exact
               resume needs
    weights    "float32", or rounded to "float16" or "int8" (symmetric, `group` = 32 or 64 numbers
               of a row to a scale), which takes a half or little more than a quarter; only with
               optimizer=False, else ConfigError. By default the form that the model has
    An LLM that is being trained by LoRA makes a small file with its adapter alone, which names the
    file of the model it began with; where none holds that (any more), and in a file object, the
    adapter's carries it along. With optimizer=False: one of the whole model with the adapter
    merged into it.
    Folders are made when missing. The path holds the old file or the new one at every instant,
    also when the power fails; saving over the file that `llm` was loaded from is safe.
    Returns the path, None for a file object. Raises CheckpointError (code "write") with the reason.
    """
    _expect_llm("save_model_binary", llm)
    optimizer = check_bool("save_model_binary", "optimizer", optimizer)
    if is_stream(path):
        stream = cast(Writable, path)
        packed = packing.packed_model(
            llm, name_of(stream), optimizer=optimizer, weights=weights, group=group, alone=True
        )
        write_all(stream, packed.parts())
        return None
    path = cast(PathLike, path)
    found = packing.packed_model(
        llm, path, optimizer=optimizer, weights=weights, group=group
    ).write(path)
    if weights in (None, form_in_use(llm.gpt)) and not (optimizer and adapter_of(llm)):
        _note_base(llm, path)
    return found


def _expect_llm(owner: str, llm: object) -> None:
    """Raises ConfigError for what cannot be saved, a GPT among it."""
    if isinstance(llm, Model):
        raise ConfigError(
            f"{owner}: expected an LLM, found a GPT; a file holds its tokenizer too: "
            "save cgpt.LLM(tokenizer, gpt)"
        )
    expect(owner, llm, LLM, "an LLM")


def _note_base(llm: LLM, path: Location) -> None:
    """Remember a file with the weights that `llm` has now: not with the average of them."""
    if llm.average is None:
        llm.base = "" if isinstance(path, InMemory) else os.path.abspath(path)


@overload
def save_model_json(llm: LLM, path: PathLike, *, optimizer: bool = True) -> Path: ...


@overload
def save_model_json(llm: LLM, path: Writable, *, optimizer: bool = True) -> None: ...


def save_model_json(llm: LLM, path: PathLike | Writable, *, optimizer: bool = True) -> Path | None:
    """Save `llm` as JSON for other programs; every float32 comes back to the bit.

    Arguments, promises and errors as `save_model_binary`; NaN and infinity cannot be saved.
    """
    _expect_llm("save_model_json", llm)
    optimizer = check_bool("save_model_json", "optimizer", optimizer)
    if is_stream(path):
        out = StreamOutput(cast(Writable, path))
        json_save.prepared(llm, out.name, optimizer)[1](out.write)
        out.finish()
        return None
    path = cast(PathLike, path)
    found = json_save.save(llm, path, optimizer=optimizer)
    _note_base(llm, path)
    return found


def load(
    source: Loadable,
    *,
    training: bool = True,
    progress: Progress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load whatever can be loaded, told by its content and not by its name.

    source    a path, bytes, or a binary file object, which is read from where it stands: a cgpt
              model in either format, a LoRA adapter, or a JSON export of RustGPT-Chinese
    training  True: weights may be written, optimizer and best weights are loaded where they were
              saved. False, for chat: weights are read-only, and the rest of the training's arrays
              is left alone
    weights   the form that the model's matrices are to have: "float32", "float16" or "int8". By
              default that of the file; a model that is loaded for training has float32 only
    progress  called once a layer as progress(i, n, LayerRecord), i from 1 to n
    Raises CheckpointError with code missing, damaged, version or foreign.
    """
    _check_loading(training, progress)
    location = located(source)
    kind = info.kind_of_file(location)
    if kind == "rustgpt":
        from cgpt.interop import rustgpt as rustgpt_import

        llm = rustgpt_import.load(location)
        _show(llm, progress)
        return _in_form(llm if training else for_chat(llm), training, weights)
    read = load_model_binary if kind == "binary" else load_model_json
    return read(location, training=training, progress=progress, weights=weights)


def load_model_binary(
    path: Loadable,
    *,
    training: bool = True,
    progress: Progress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load a model in the binary format; arguments, promises and errors as `load`.

    Everything that is read is checked before it is used.
    """
    _check_loading(training, progress)
    path = located(path)
    with BinaryFile(path) as file:
        if not is_adapter(file):
            llm = binary.load(file, training=training, progress=progress)
            _note_base(llm, path)
            return _in_form(llm, training, weights)
        llm = binary.load_base(file) if carries_base(file) else load_weights(base_of(file))
        apply(file, llm, training=training)
    _show(llm, progress)
    return _in_form(llm, training, weights)


def _check_loading(training: object, progress: object) -> None:
    """Raises ConfigError for a flag that is none, or a progress that cannot be called."""
    check_bool("load", "training", training)
    expect_function("load", "progress", progress, optional=True)


def _show(llm: LLM, progress: Progress | None) -> None:
    """Say the layers of a model that was loaded."""
    layers = llm.gpt.layer_records()
    for number, layer in enumerate(layers, 1):
        if progress is not None:
            progress(number, len(layers), layer)


def load_stored_weights(path: Loadable) -> dict[str, StoredTensor]:
    """The weights of a binary file as they are stored, by name: float32, float16 or int8.

    They are read-only, and every checksum was compared. An inference engine takes them from here;
    `load_model_binary` turns them into float32. Raises CheckpointError as that does.
    """
    return binary.load_stored(located(path))


def load_model_json(
    path: Loadable,
    *,
    training: bool = True,
    progress: Progress | None = None,
    weights: str | None = None,
) -> LLM:
    """Load a model in JSON; arguments, promises and errors as `load`."""
    _check_loading(training, progress)
    path = located(path)
    llm = json_file.load(path, training=training, progress=progress)
    _note_base(llm, path)
    return _in_form(llm, training, weights)


def load_model_auto(
    path: Loadable,
    *,
    training: bool = True,
    progress: Progress | None = None,
    weights: str | None = None,
) -> LLM:
    """The same as `load`."""
    return load(path, training=training, progress=progress, weights=weights)


def load_weights(path: Loadable) -> LLM:
    """A whole model to begin a training with: its vocabulary, and weights that may be written.

    Of the training that it had, and of its metadata, nothing is left.
    Raises CheckpointError as `load` does, and where the file holds an adapter.
    """
    path = located(path)
    llm = read_whole(path)
    weights = aligned(llm.gpt.arena.size)
    np.copyto(weights, llm.gpt.arena.data)
    found = LLM(llm.tokenizer, type(llm.gpt)(llm.config, weights=weights))
    _note_base(found, path)
    return found


def load_with_adapter(model: Loadable, adapter: Loadable, *, training: bool = True) -> LLM:
    """The model of one file with the LoRA adapter of another, which may name another place.

    training  False merges the adapter into the weights
    Raises CheckpointError where one of the files cannot be read, or the adapter was trained on
    another model.
    """
    _check_loading(training, None)
    with BinaryFile(located(adapter)) as file:
        require_adapter(file)
        llm = load_weights(model)
        apply(file, llm, training=training)
    return llm


def _in_form(llm: LLM, training: bool, weights: str | None) -> LLM:
    """The model with its matrices in the form asked for."""
    weights = plain(weights)
    if training and weights is not None and not (isinstance(weights, str) and weights == "float32"):
        raise ConfigError(
            f"load: training needs float32 weights, found weights={shown(weights)}; "
            "pass training=False"
        )
    if weights is not None:
        llm.gpt = with_weights(llm.gpt, weights)
    return llm


def import_model(path: Loadable) -> LLM:
    """A model of another program as an LLM: the JSON exports of RustGPT-Chinese.

    Both of its generations become the graph RustGPT with their words. Adam's state comes along
    where it can go on exactly: where all arrays have the same settings and number of steps; else
    `optimizer` is None. The same as `load(path)`, which takes these and cgpt's own files.
    """
    return load(path)


def compare_models(a: Loadable, b: Loadable) -> dict[str, Any]:
    """What differs between two models, whatever `load` takes; see `compare.compare`.

    Rounded weights are compared as the float32 that they stand for. Raises CheckpointError as
    `load` does.
    """
    return compare.compare(load(a), load(b))


def describe(path: Loadable, verify: bool = False) -> dict[str, Any]:
    """What a model file holds, JSON-ready, without loading it.

    verify  also check every byte
    Keys: path, format ("binary", "json" or "rustgpt"), version, bytes, graph, config, layers
    [{name, type, parameters}], parameters (their number), words, optimizer (settings or None),
    best_weights (bool), run_id (which training it is of, "" for none), training_state, metadata,
    records [{kind, name, dtype, shape, offset, bytes, crc32}] (empty for JSON), verified. Of an
    adapter: its own parameters and settings, the configuration of its model; without that no
    layers, words None. Raises CheckpointError as the loaders do.
    """
    verify = check_bool("describe", "verify", verify)
    location = located(path)
    of_kind = {
        "binary": info.describe_binary,
        "json": info.describe_json,
        "rustgpt": info.describe_rustgpt,
    }
    return of_kind[info.kind_of_file(location)](location, verify)


def weights_form(path: Loadable) -> str:
    """The form of a file's matrices: "float32", "float16" or "int8" (JSON has float32 only).

    Raises CheckpointError as the loaders do.
    """
    location = located(path)
    return info.weights_form(location) if is_binary(location) else "float32"
