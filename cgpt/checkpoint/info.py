"""What model files hold, without loading them, and which files in a folder are models."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from cgpt.checkpoint.adapter import model_config, read_settings, read_state
from cgpt.checkpoint.binary_reader import read_shape
from cgpt.checkpoint.contents import check_fits
from cgpt.checkpoint.json_format import JsonModel
from cgpt.config import GPTConfig
from cgpt.errors import CheckpointError
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_kind import kind_of
from cgpt.fileio.file_objects import located
from cgpt.fileio.format_v1 import VERSION, DType, Kind, Record
from cgpt.fileio.json_file import quick_check
from cgpt.fileio.open_file import Data, InMemory, Location, OpenFile, PathLike, Readable
from cgpt.fileio.strict_json import check_object
from cgpt.interop.registry import FORMATS
from cgpt.language_model import TrainingState
from cgpt.models.registry import family_of
from cgpt.nn.arena import aligned, arena_size
from cgpt.tokenizers.tokenizer import tokenizer_of
from cgpt.validation import check_bool, path_text

Loadable = PathLike | Data | Readable | InMemory
_FIRST = ("model_final.bin", "model_pretrained.bin")


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
    kind = kind_of_file(location)
    if kind in FORMATS:
        return describe_imported(location, kind)
    return (describe_binary if kind == "binary" else describe_json)(location, verify)


def describe_binary(path: Location, verify: bool = False) -> dict[str, Any]:
    """`describe` of a binary file.

    An adapter has no layers and no words; its settings, among them where its model is, are the
    optimizer's, and config is that of the model.
    """
    with BinaryFile(path) as file:
        if file.is_adapter:
            config, layers, words = model_config(file), file.layers(), None
            if file.carries_base:
                words = len(tokenizer_of(file))
            settings: Any = read_settings(file)
        else:
            config, layers = read_shape(file)[0], file.layers()
            words = len(tokenizer_of(file))
            record = file.maybe(Kind.OPTIMIZER)
            settings = None if record is None else file.json(record)
        state = read_state(file)
        if verify:
            file.verify()
        return {
            "path": str(path),
            "format": "binary",
            "version": VERSION,
            "bytes": file.size,
            "graph": file.config_values()["graph"],
            "config": config.to_dict(),
            "layers": layers,
            "parameters": sum(math.prod(one.shape) for one in file.of(Kind.TENSOR)),
            "words": words,
            "optimizer": settings,
            "best_weights": bool(file.of(Kind.BEST_TENSOR)),
            "run_id": state.run_id,
            "training_state": state.to_dict(),
            "metadata": check_object(path, "metadata", file.json(file.one(Kind.METADATA))),
            "records": [_describe_record(record) for record in file.records],
            "verified": verify,
        }


def _describe_record(record: Record) -> dict[str, Any]:
    dtype = DType(record.dtype).name.lower()
    return {
        "kind": record.kind_name,
        "name": record.name,
        "dtype": dtype,
        "shape": list(record.shape),
        "offset": record.offset,
        "bytes": record.length,
        "crc32": f"{record.crc:08x}",
    }


def describe_json(path: Location, verify: bool = False) -> dict[str, Any]:
    """`describe` of a JSON file."""
    with JsonModel(path) as file:
        entries = check_fits(path, file.config, file.size // 2)
        state = file.training_state()
        optimizer, best = file.root["optimizer"], file.root["best_weights"]
        settings = None
        if optimizer is not None:
            optimizer = check_object(path, "optimizer", optimizer)
            settings = {key: one for key, one in optimizer.items() if key not in ("m", "v")}
        if verify:
            scratch = aligned(arena_size(entries))
            file.fill(file.weights(), entries, scratch)
            for tensors in [] if optimizer is None else [optimizer.get("m"), optimizer.get("v")]:
                file.fill(tensors, entries, scratch)
            for tensors in (best, file.root.get("live_weights")):
                if tensors is not None:
                    file.fill(tensors, entries, scratch)
        return {
            "path": str(path),
            "format": "json",
            "version": VERSION,
            "bytes": file.size,
            "graph": family_of(file.config).name,
            "config": file.config.to_dict(),
            "layers": file.layers(),
            "parameters": sum(entry.size for entry in entries),
            "words": len(file.tokenizer()),
            "optimizer": settings,
            "best_weights": best is not None,
            "run_id": state.run_id,
            "training_state": state.to_dict(),
            "metadata": file.plain("metadata"),
            "records": [],
            "verified": verify,
        }


def describe_imported(path: Location, kind: str) -> dict[str, Any]:
    """`describe` of a file of another program.

    It is loaded for that, so everything in it is checked.
    """
    llm = FORMATS[kind].load(path)
    with OpenFile(path) as source:
        size = source.size
    layers = [
        {"name": one.name, "type": one.type, "parameters": list(one.parameters)}
        for one in llm.gpt.layer_records()
    ]
    return {
        "path": str(path),
        "format": kind,
        "version": FORMATS[kind].version,
        "bytes": size,
        "graph": family_of(llm.config).name,
        "config": llm.config.to_dict(),
        "layers": layers,
        "parameters": llm.n_parameters,
        "words": len(llm.tokenizer),
        "optimizer": None if llm.optimizer is None else llm.optimizer.to_dict(),
        "best_weights": False,
        "run_id": llm.training_state.run_id,
        "training_state": llm.training_state.to_dict(),
        "metadata": llm.metadata,
        "records": [],
        "verified": True,
    }


def read_progress(file: BinaryFile) -> tuple[GPTConfig, TrainingState, dict[str, Any]]:
    """Configuration, training state and metadata of an open file."""
    metadata = file.json(file.one(Kind.METADATA))
    return (model_config(file), read_state(file), check_object(file.path, "metadata", metadata))


def read_json_progress(
    path: str | os.PathLike[str],
) -> tuple[GPTConfig, TrainingState, dict[str, Any]]:
    """The same of a JSON file."""
    with JsonModel(path) as file:
        state = file.training_state()
        return file.config, state, check_object(path, "metadata", file.plain("metadata"))


def weights_dtype(path: Loadable) -> str:
    """The form of a file's matrices: "float32", "float16" or "int8" (JSON has float32 only).

    Raises CheckpointError as the loaders do.
    """
    location = located(path)
    if not is_binary(location):
        return "float32"
    with BinaryFile(location) as file:
        types = {record.dtype for record in file.of(Kind.TENSOR)} - {DType.FLOAT32}
        return DType(min(types)).name.lower() if types else "float32"


def kind_of_file(path: Location) -> str:
    """ "binary", "json" or one of FORMATS: see `file_kind.kind_of`. Raises CheckpointError."""
    with OpenFile(path) as source:
        return kind_of(path, source.head, source.size)


def is_binary(path: Location) -> bool:
    """Whether a model file is of the binary format. Raises CheckpointError where it is none."""
    return kind_of_file(path) == "binary"


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether this looks like a whole model that this version reads; opens it, reads little."""
    try:
        with OpenFile(path) as source:
            kind = kind_of(path, source.head, source.size)
            if kind in FORMATS:
                return FORMATS[kind].looks_whole(source)
            if kind == "json":
                return quick_check(source)
        with BinaryFile(path) as file:
            model_config(file)
            return True
    except CheckpointError:
        return False


def is_named_model(path: str) -> bool:
    """Whether a file of data or models is a model: a .bin, or JSON that holds one."""
    low = path.lower()
    return low.endswith(".bin") or (low.endswith(".json") and is_model(path))


def find_models(
    checkpoints: str | os.PathLike[str] = "checkpoints", exports: str | os.PathLike[str] = "exports"
) -> list[Path]:
    """Every loadable model in the two folders, whatever its name.

    model_final.bin and model_pretrained.bin come first, then the newest. Folders that are missing
    have none; files that are no models, or damaged at first sight, are left out.
    """
    found = [
        path
        for folder in (checkpoints, exports)
        for path in models_in(path_text("find_models", folder))
    ]

    def order(path: Path) -> tuple[int, int, str]:
        first = _FIRST.index(path.name) if path.name in _FIRST else len(_FIRST)
        return first, -_modified(path), path.name

    return sorted(found, key=order)


def models_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The models in one folder, without its sub-folders and hidden files; none if it is missing."""
    try:
        with os.scandir(folder) as listing:
            names = [one.name for one in listing if not one.name.startswith(".") and one.is_file()]
    except OSError:
        return []
    return [path for path in (Path(folder) / name for name in sorted(names)) if is_model(path)]


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0  # removed meanwhile


def how_it_ended(state: dict[str, Any], results: Any) -> dict[str, Any]:
    """A training state whose `done` names only phases that had all they were to have.

    A phase that a budget or an interruption ended, or that is under way, is in `stopped`: phase ->
    why, its step, and of how many where that is known.

    results  phase -> its FitResult, as kept in a model's metadata
    """
    results = results if isinstance(results, dict) else {}
    stopped: dict[str, dict[str, Any]] = {}
    for phase in dict.fromkeys([*state["done"], *filter(None, [state["phase"]])]):
        result = results.get(phase, {})
        last = phase == state["phase"]
        why = str(result.get("stopped", "budget" if last else "done"))
        if last and phase not in state["done"]:
            why = "unfinished"
        elif last and state["step"] >= state["total_steps"]:
            why = "done"
        if why not in ("done", "early"):
            step = state["step"] if last else result.get("steps")
            stopped[phase] = {"by": why, "step": step}
            if last:
                stopped[phase]["of"] = state["total_steps"]
    return {
        key: [phase for phase in value if phase not in stopped] if key == "done" else value
        for key, value in {
            "phase": state["phase"],
            "done": state["done"],
            "stopped": stopped,
            **state,
        }.items()
    }
