"""Saving a model in either format; every save is atomic and durable."""

from __future__ import annotations

from pathlib import Path
from typing import cast, overload

from cgpt.checkpoint import binary_writer, json_format
from cgpt.checkpoint.adapter import adapter_of
from cgpt.checkpoint.loading import note_base
from cgpt.errors import ConfigError
from cgpt.fileio.file_objects import StreamOutput, is_stream, name_of, write_all
from cgpt.fileio.open_file import PathLike, Writable
from cgpt.language_model import LanguageModel
from cgpt.models.base import Model
from cgpt.models.quantized import weight_dtype_of
from cgpt.validation import check_bool, expect


@overload
def save_model_binary(
    llm: LanguageModel,
    path: PathLike,
    *,
    optimizer: bool = True,
    weights: str | None = None,
    group: int = 64,
) -> Path: ...


@overload
def save_model_binary(
    llm: LanguageModel,
    path: Writable,
    *,
    optimizer: bool = True,
    weights: str | None = None,
    group: int = 64,
) -> None: ...


def save_model_binary(
    llm: LanguageModel,
    path: PathLike | Writable,
    *,
    optimizer: bool = True,
    weights: str | None = None,
    group: int = 64,
) -> Path | None:
    """Save `llm` as a binary file of format v1; about 12 bytes per parameter, 4 without optimizer.

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
        packed = binary_writer.packed_model(
            llm, name_of(stream), optimizer=optimizer, weights=weights, group=group, alone=True
        )
        write_all(stream, packed.parts())
        return None
    path = cast(PathLike, path)
    found = binary_writer.packed_model(
        llm, path, optimizer=optimizer, weights=weights, group=group
    ).write(path)
    if weights in (None, weight_dtype_of(llm.gpt)) and not (optimizer and adapter_of(llm)):
        note_base(llm, path)
    return found


def _expect_llm(owner: str, llm: object) -> None:
    """Raises ConfigError for what cannot be saved, a GPT among it."""
    if isinstance(llm, Model):
        raise ConfigError(
            "{owner}: expected an LLM, found a GPT; a file holds its tokenizer too: save "
            "cgpt.LLM(tokenizer, gpt)",
            owner=owner,
        )
    expect(owner, llm, LanguageModel, "an LLM")


@overload
def save_model_json(llm: LanguageModel, path: PathLike, *, optimizer: bool = True) -> Path: ...


@overload
def save_model_json(llm: LanguageModel, path: Writable, *, optimizer: bool = True) -> None: ...


def save_model_json(
    llm: LanguageModel, path: PathLike | Writable, *, optimizer: bool = True
) -> Path | None:
    """Save `llm` as JSON for other programs; every float32 comes back to the bit.

    Arguments, promises and errors as `save_model_binary`; NaN and infinity cannot be saved.
    """
    _expect_llm("save_model_json", llm)
    optimizer = check_bool("save_model_json", "optimizer", optimizer)
    if is_stream(path):
        out = StreamOutput(cast(Writable, path))
        json_format.prepared(llm, out.name, optimizer)[1](out.write)
        out.finish()
        return None
    path = cast(PathLike, path)
    found = json_format.save(llm, path, optimizer=optimizer)
    note_base(llm, path)
    return found
