"""JSON model files: an LLM written and read as a stream; the layout is in docs/persistence.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.adapter import adapter_of, check_optimizer
from cgpt.checkpoint.contents import (
    build_config,
    build_optimizer,
    build_training_state,
    check_fits,
    check_layers,
    weights_to_save,
    with_floats,
)
from cgpt.errors import Phrase, as_reason, shown
from cgpt.fileio._codec import crc32, format_floats
from cgpt.fileio.atomic import write_file
from cgpt.fileio.file_errors import damaged, not_saved
from cgpt.fileio.file_kind import JSON_OPENING
from cgpt.fileio.format_v1 import VERSION
from cgpt.fileio.json_file import JsonFile
from cgpt.fileio.open_file import THREADS, Job, Location, in_parallel
from cgpt.fileio.strict_json import (
    PIECE,
    Span,
    check_object,
    check_text_size,
    dump_json,
    dump_metadata,
    parsed_size,
    read_floats,
)
from cgpt.language_model import LanguageModel, TrainingState
from cgpt.locale import N_
from cgpt.models.registry import family_of
from cgpt.nn.arena import Entry, aligned, arena_size, read_only
from cgpt.nn.arrays import Floats
from cgpt.optim.registry import restore_optimizer
from cgpt.tokenizers import vocabulary_file
from cgpt.tokenizers.tokenizer import Tokenizer, tokenizer_of

_AHEAD = 8  # pieces of numbers that are formatted before their turn


class JsonModel(JsonFile):
    """A JSON file whose parts are those of a model."""

    def __init__(self, path: Location) -> None:
        super().__init__(path)
        try:
            self.config = build_config(path, self.root["graph"], self.root["config"])
        except BaseException:
            self.close()
            raise

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of vocab.words and vocab.scores."""
        return tokenizer_of(self)

    def training_state(self) -> TrainingState:
        """Where the training stands, and which one it is."""
        return build_training_state(
            self.path,
            self.plain("training_state"),
            self.plain("run") if "run" in self.root else None,
        )

    def fill(self, tensors: Any, entries: list[Entry], target: Floats) -> None:
        """Read the tensors, which must be exactly those of the entries, into a flat array."""
        tensors = check_object(self.path, "tensors", tensors)
        for name in sorted({entry.name for entry in entries} ^ tensors.keys()):
            raise damaged(
                self.path,
                Phrase("the tensor '{name}' missing or over", name=name[:100]),
                "the tensors of the configuration",
            )
        for entry in entries:
            tensor = tensors[entry.name]
            if (
                not isinstance(tensor, dict)
                or tensor.keys() != {"shape", "crc32", "data"}
                or tensor["shape"] != list(entry.shape)
                or not isinstance(tensor["data"], Span)
            ):
                raise damaged(
                    self.path,
                    Phrase(
                        "the tensor '{name}' as {value}", name=entry.name, value=shown(tensor, 200)
                    ),
                    Phrase(
                        "shape {shape}, crc32 and data (a list of numbers)",
                        shape=str(list(entry.shape)),
                    ),
                )
        in_parallel(
            [
                Job(4 * entry.size, partial(self._fill_one, tensors[entry.name], entry, target))
                for entry in entries
            ]
        )

    def _fill_one(self, tensor: dict[str, Any], entry: Entry, target: Floats) -> None:
        flat = target[entry.offset : entry.offset + entry.size]
        start, end = tensor["data"]
        try:
            read_floats(self.read, start, end, flat)
        except ValueError as error:
            raise damaged(
                self.path,
                Phrase("in the tensor '{name}' {reason}", name=entry.name, reason=as_reason(error)),
                Phrase("{n} numbers", n=entry.size),
            ) from None
        if f"{checksum(flat):08x}" != tensor["crc32"]:
            raise damaged(
                self.path,
                Phrase(
                    "the tensor '{name}' with checksum {crc:08x}",
                    name=entry.name,
                    crc=checksum(flat),
                ),
                shown(tensor["crc32"]),
            )


def load(path: Location, *, training: bool = True) -> LanguageModel:
    """Read an LLM; see `cgpt.load_model_json`."""
    with JsonModel(path) as file:
        # The shortest number and its comma are two characters.
        entries = check_fits(path, file.config, file.size // 2)
        state = file.training_state()
        tokenizer = file.tokenizer()
        weights = aligned(arena_size(entries), zero=True)
        gpt = family_of(file.config).model(
            file.config, weights=weights if training else read_only(weights)
        )
        check_layers(path, file.layers(), gpt)
        file.fill(file.weights(), entries, weights)
        llm = LanguageModel(tokenizer, gpt, training_state=state, metadata=file.plain("metadata"))
        if training:
            _read_training(file, llm, entries)
    return llm


def _read_training(file: JsonModel, llm: LanguageModel, entries: list[Entry]) -> None:
    """Give `llm` the optimizer and the best weights of the file, where it has them."""
    if file.root["optimizer"] is not None:
        settings = check_object(file.path, "optimizer", file.root["optimizer"])
        llm.optimizer = build_optimizer(file.path, llm.trainable, settings, restore_optimizer)
        for name, array in zip("mv", llm.trainable.arena.require_moments(), strict=True):
            file.fill(settings.get(name), entries, array)
    if file.root["best_weights"] is not None:
        llm.best_weights = aligned(arena_size(entries), zero=True)
        file.fill(file.root["best_weights"], entries, llm.best_weights)
    if "live_weights" in file.root:
        llm.average = llm.trainable.arena.data.copy()
        file.fill(file.root["live_weights"], entries, llm.trainable.arena.data)


def save(llm: LanguageModel, path: str | os.PathLike[str], *, optimizer: bool = True) -> Path:
    """Write `llm` to `path`; see `cgpt.save_model_json`."""
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
    arena = llm.trainable.arena
    optimizer = optimizer and adapter_of(llm) is None  # JSON holds whole models only
    with_optimizer = optimizer and llm.optimizer is not None
    check_optimizer(llm, path, with_optimizer)
    weights = weights_to_save(llm)
    arrays = [(N_("the weights"), weights)]
    if with_optimizer:
        m, v = arena.require_moments()
        arrays += [(N_("Adam's m"), m), (N_("Adam's v"), v)]
    extras: dict[str, Floats | None] = {"best_weights": llm.best_weights if optimizer else None}
    names = {"best_weights": N_("the best weights"), "live_weights": N_("the live weights")}
    if optimizer and llm.average is not None:
        extras["live_weights"] = arena.data
    arrays += [(names[name], array) for name, array in extras.items() if array is not None]
    for what, array in arrays:
        if not np.isfinite(array).all():
            raise not_saved(
                path,
                Phrase("NaN or infinity in {what}", what=Phrase(what)),
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

    arena = llm.trainable.arena
    yield JSON_OPENING.decode() + part("version", VERSION)
    yield part("graph", family_of(llm.config).name)
    yield part("config", llm.config.to_dict())
    yield part(
        "vocab",
        vocabulary_file.json_object(
            llm.tokenizer.kind, llm.tokenizer.words, llm.tokenizer.to_state()["scores"]
        ),
    )
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
    """CRC-32 of the numbers as they are stored in a binary file."""
    return crc32(flat.astype("<f4", copy=False).data.cast("B"))
