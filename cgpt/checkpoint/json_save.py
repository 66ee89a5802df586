"""Saving an LLM as JSON; json_file.py is the way back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.adapter import adapter_of, check_optimizer
from cgpt.checkpoint.parts import weights_to_save, with_floats
from cgpt.config import KINDS
from cgpt.fileio._codec import crc32
from cgpt.fileio.atomic import write_file
from cgpt.fileio.failures import not_saved
from cgpt.fileio.format_v1 import VERSION
from cgpt.fileio.sniff import JSON_OPENING
from cgpt.fileio.source import THREADS
from cgpt.fileio.strict_json import (
    PIECE,
    check_text_size,
    dump_json,
    dump_metadata,
    format_floats,
    parsed_size,
)
from cgpt.language_model import LanguageModel
from cgpt.models.registry import family_of
from cgpt.nn.arena import Entry, Floats
from cgpt.tokenizers.tokenizer import Tokenizer

_AHEAD = 8  # pieces of numbers that are formatted before their turn


def save(llm: LanguageModel, path: str | os.PathLike[str], *, optimizer: bool = True) -> Path:
    """Write `llm` to `path`; see `cgpt.checkpoint.save_model_json`."""
    size, write = prepared(llm, path, optimizer)
    return write_file(path, size, lambda out: write(out.write))


def prepared(
    llm: LanguageModel, path: object, optimizer: bool
) -> tuple[int, Callable[[Callable[[bytes], object]], None]]:
    """About how many bytes `llm` has as JSON, and what hands them on piece by piece.

    path  where they go, as errors name it
    Raises CheckpointError (code "write") for what JSON cannot hold.
    """
    llm = with_floats(llm)
    arena = llm.gpt.arena
    optimizer = optimizer and adapter_of(llm) is None  # JSON holds whole models only
    with_optimizer = optimizer and llm.optimizer is not None
    check_optimizer(llm, path, with_optimizer)
    weights = weights_to_save(llm)
    arrays = [("the weights", weights)]
    if with_optimizer:
        m, v = arena.require_moments()
        arrays += [("Adam's m", m), ("Adam's v", v)]
    extras: dict[str, Floats | None] = {"best_weights": llm.best_weights if optimizer else None}
    if optimizer and llm.average is not None:
        extras["live_weights"] = arena.data
    arrays += [
        (f"the {name.replace('_', ' ')}", array)
        for name, array in extras.items()
        if array is not None
    ]
    for what, array in arrays:
        if not np.isfinite(array).all():
            raise not_saved(
                path,
                f"NaN or infinity in {what}",
                "finite numbers, as JSON has no others",
                "save it as .bin or go back to an earlier checkpoint",
            )
    pieces = _pieces(llm, path, weights, with_optimizer, extras)

    def write(put: Callable[[bytes], object]) -> None:
        crc, length, values = 0, 0, 0
        for piece, is_text in _formatted(pieces):
            crc = crc32(piece, crc)
            put(piece)
            length += len(piece)
            values += parsed_size(piece) if is_text else 0
        check_text_size(path, values, length)
        put(f'\n"text_crc32": "{crc:08x}"}}\n'.encode())

    return 12 * sum(array.size for _, array in arrays), write


def _vocab(tokenizer: Tokenizer) -> dict[str, Any]:
    """The words in id order and their scores; without scores where no score decides.

    A reader that knows no other kind than words then refuses what it would encode wrongly.
    """
    words, scores = tokenizer.words, tokenizer.to_state()["scores"]
    found: dict[str, Any] = {"words": words}
    if tokenizer.kind != "bpe":
        found["scores"] = [None] * (len(words) - len(scores)) + scores
    return found if tokenizer.kind not in KINDS[1:] else {**found, "kind": tokenizer.kind}


def _formatted(pieces: Iterator[str | Floats]) -> Iterator[tuple[bytes, bool]]:
    """Text as bytes and numbers as text, the latter formatted on two threads a little ahead.

    Each with whether it was text.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: list[tuple[Callable[[], bytes], bool]] = []
        for piece in pieces:
            if isinstance(piece, str):
                waiting.append((piece.encode, True))
            else:
                waiting.append((pool.submit(format_floats, piece).result, False))
            if len(waiting) > _AHEAD:
                result, is_text = waiting.pop(0)
                yield result(), is_text
        for result, is_text in waiting:
            yield result(), is_text


def _pieces(
    llm: LanguageModel,
    path: object,
    weights: Floats,
    optimizer: bool,
    extras: dict[str, Floats | None],
) -> Iterator[str | Floats]:
    """The file in order, up to text_crc32: text, and numbers that are still to be formatted."""

    def part(name: str, value: Any) -> str:
        return f'"{name}": {dump_json(path, name, value)},\n'

    arena = llm.gpt.arena
    yield JSON_OPENING.decode() + part("version", VERSION)
    yield part("graph", family_of(llm.config).name)
    yield part("config", llm.config.to_dict())
    yield part("vocab", _vocab(llm.tokenizer))
    yield '"layers": [\n'
    by_name = {entry.name: entry for entry in arena.entries}
    for number, layer in enumerate(llm.gpt.layer_records()):
        fields = {"name": layer.name, "type": layer.type, "parameters": list(layer.parameters)}
        yield (",\n" if number else "") + dump_json(path, "layers", fields)[:-1] + ', "tensors": {'
        yield from _tensor_pieces([by_name[name] for name in layer.parameters], weights)
        yield "}}"
    yield '],\n"optimizer": '
    if optimizer and llm.optimizer is not None:
        yield dump_json(path, "optimizer", llm.optimizer.to_dict())[:-1]
        for name, moment in zip("mv", arena.require_moments(), strict=True):
            yield f', "{name}": {{'
            yield from _tensor_pieces(arena.entries, moment)
            yield "}"
        yield "},\n"
    else:
        yield "null,\n"
    yield part("training_state", llm.training_state.to_dict())
    if llm.training_state.run_id:
        yield part("run", {"id": llm.training_state.run_id})
    yield f'"metadata": {dump_metadata(path, llm.metadata)},\n'
    for name, array in extras.items():
        yield f'"{name}": ' + ("null," if array is None else "{")
        if array is not None:
            yield from _tensor_pieces(arena.entries, array)
            yield "},"


def _tensor_pieces(entries: list[Entry], array: Floats) -> Iterator[str | Floats]:
    """The members of an object: name: {shape, crc32, data}."""
    for number, entry in enumerate(entries):
        flat = array[entry.offset : entry.offset + entry.size]
        yield (
            f'{"," if number else ""}\n"{entry.name}": {{"shape": {list(entry.shape)}, '
            f'"crc32": "{checksum(flat):08x}", "data": ['
        )
        for start in range(0, entry.size - 1, PIECE):
            yield flat[start : min(start + PIECE, entry.size - 1)]
        # The last number without its comma.
        yield format_floats(flat[-1:])[:-1].decode() + "]}"


def checksum(flat: Floats) -> int:
    """CRC-32 of the numbers as they lie in a binary file."""
    return crc32(flat.astype("<f4", copy=False).data.cast("B"))
