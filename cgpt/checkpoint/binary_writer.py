"""An LLM as records of format v1, and a file of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.checkpoint.adapter import adapter_of, check_optimizer, settings_to_save, trained_arena
from cgpt.checkpoint.contents import weights_to_save, with_floats
from cgpt.checkpoint.loading import is_intact
from cgpt.config import KINDS, WEIGHT_DTYPES
from cgpt.errors import ConfigError, Phrase, shown
from cgpt.fileio._codec import crc32
from cgpt.fileio.atomic import Output, write_file
from cgpt.fileio.file_errors import not_saved
from cgpt.fileio.format_v1 import ADAPTED, OPTIONAL, DType, Kind, Record, align, pack_front, place
from cgpt.fileio.open_file import Job, PathLike, grouped
from cgpt.fileio.strict_json import check_part_size, dump_json, dump_metadata
from cgpt.language_model import LanguageModel
from cgpt.models.quantized import weight_dtype_of
from cgpt.models.registry import family_of
from cgpt.nn.arena import Entry
from cgpt.nn.arrays import Floats
from cgpt.nn.quantized import GROUPS, quantize, too_large, weight_dtype
from cgpt.tokenizers import vocabulary_file
from cgpt.validation import plain

_DTYPES = {"float32": DType.FLOAT32, "float16": DType.FLOAT16, "int8": DType.INT8}
Arrays = list[tuple[Kind, Floats]]
Pair = tuple[Record, memoryview]


@dataclass(frozen=True)
class Storage:
    """How a file stores its matrices; `group` is the length of a group of int8.

    Raises ConfigError for an unknown form or group.
    """

    weights: str = "float32"
    group: int = 64

    def __post_init__(self) -> None:
        for name in ("weights", "group"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if not isinstance(self.weights, str) or self.weights not in WEIGHT_DTYPES:
            raise ConfigError(
                "save: unknown form of weights {form}; known: {known}",
                form=shown(self.weights),
                known=list(WEIGHT_DTYPES),
            )
        if type(self.group) is not int or self.group not in GROUPS:
            raise ConfigError(
                "save: int8 weights have groups of 32 or 64, found {group}", group=shown(self.group)
            )

    def weight_dtype(self, entry: Entry) -> str:
        """The form in which this tensor is stored."""
        return weight_dtype(entry, self.weights)


@dataclass(frozen=True)
class Packed:
    """A file that is still to be written: its records in order and their payloads."""

    records: list[Record]
    payloads: list[memoryview]
    size: int

    def write(self, path: PathLike) -> Path:
        """Replace `path` by this file. Raises CheckpointError (code "write")."""
        return write_file(path, self.size, self._write)

    def parts(self) -> Iterator[bytes | memoryview]:
        """The bytes of the file from its beginning to its end."""
        table = [
            replace(record, crc=crc32(payload))
            for record, payload in zip(self.records, self.payloads, strict=True)
        ]
        yield pack_front(table, self.size)
        for record, payload in zip(self.records, self.payloads, strict=True):
            yield payload
            yield bytes(align(record.end) - record.end)

    def _write(self, out: Output) -> None:
        jobs = [Job(len(payload), partial(crc32, payload)) for payload in self.payloads]
        with ThreadPoolExecutor(1) as pool:
            checksums = pool.map(_checksums, grouped(jobs))  # while this thread writes
            out.seek(self.records[0].offset)
            for record, payload in zip(self.records, self.payloads, strict=True):
                out.write(payload)
                out.write(bytes(align(record.end) - record.end))
            found = chain.from_iterable(checksums)
            table = [
                replace(record, crc=crc) for record, crc in zip(self.records, found, strict=True)
            ]
        out.seek(0)
        out.write(pack_front(table, self.size))


def _checksums(group: list[Job]) -> list[int]:
    return [job.run() for job in group]


def packed_model(
    llm: LanguageModel,
    path: PathLike,
    *,
    optimizer: bool = True,
    weights: str | None = None,
    group: int = 64,
    alone: bool = False,
) -> Packed:
    """`llm` as a file that goes to `path`; see `cgpt.save_model_binary`.

    alone  whether an adapter's file is to carry its model in any case
    """
    own = weight_dtype_of(llm.gpt)
    storage = Storage(own if weights is None else weights, group)
    if own != "float32":
        if weights is None:
            return _pack_stored(llm, path)
        llm, optimizer = with_floats(llm), False
    if optimizer and storage.weights != "float32":
        raise ConfigError(
            "save: the optimizer goes with float32 weights, found {form} with "
            "optimizer=True; pass optimizer=False",
            form=weights,
        )
    return pack(llm, path, arrays_of(llm, optimizer=optimizer), storage, alone=alone)


def _pack_stored(llm: LanguageModel, path: PathLike) -> Packed:
    """The file of a model whose weights are rounded: they go in as they are."""
    tensors = llm.gpt.stored()
    storage = Storage(weight_dtype_of(llm.gpt), max(one.group for one in tensors.values()) or 64)
    pairs = list(_parts(llm, path, _config(llm, storage, adapted=False), None, whole=True))
    scales: list[Pair] = []
    for entry in llm.gpt.graph.layout():
        one = tensors[entry.name]
        data = one.data.astype(one.data.dtype.newbyteorder("<"), copy=False)
        pairs.append(_record(Kind.TENSOR, entry, data, _DTYPES[one.data.dtype.name]))
        if one.scales is not None:
            scales.append(
                _record(Kind.SCALE, entry, one.scales.astype("<f4", copy=False), DType.FLOAT32)
            )
    return _placed(llm, path, pairs + scales)


def _placed(llm: LanguageModel, path: PathLike, pairs: list[Pair], *, words: bool = True) -> Packed:
    """A file of these records; words: whether it has the vocabulary."""
    records, size = place([record for record, _ in pairs])
    if words:
        vocabulary_file.check_size(path, len(llm.tokenizer), size)
    return Packed(records, [payload for _, payload in pairs], size)


def arrays_of(llm: LanguageModel, *, optimizer: bool = True) -> Arrays:
    """The flat arrays that a file of `llm` holds, in its order."""
    if not optimizer:
        return [(Kind.TENSOR, weights_to_save(llm))]
    arena = trained_arena(llm)
    arrays = [(Kind.TENSOR, arena.data if llm.average is None else llm.average)]
    if llm.optimizer is not None:
        m, v = arena.require_moments()
        arrays += [(Kind.ADAM_M, m), (Kind.ADAM_V, v)]
    if llm.best_weights is not None:
        arrays.append((Kind.BEST_TENSOR, llm.best_weights))
    if llm.average is not None:
        arrays.append((Kind.LIVE_TENSOR, arena.data))
    return arrays


def pack(
    llm: LanguageModel,
    path: PathLike,
    arrays: Arrays,
    storage: Storage,
    *,
    alone: bool = False,
    snapshot: bool = False,
) -> Packed:
    """The file that holds `llm` with these arrays (its own, or copies of them).

    alone     whether an adapter's file is to carry its model in any case
    snapshot  whether that model is copied too, as training may resume with it

    All that is not an array is copied. Raises CheckpointError (code "write") naming what a file
    cannot hold; `path` is where it will go.
    """
    with_optimizer = any(kind == Kind.ADAM_M for kind, _ in arrays)
    check_optimizer(llm, path, with_optimizer)
    settings = llm.optimizer.to_dict() if with_optimizer and llm.optimizer is not None else None
    lora = adapter_of(llm) if with_optimizer else None
    carried = lora is not None and (alone or not is_intact(lora))
    if lora is not None:
        settings = {**lora.to_dict(), "base": ""} if carried else settings_to_save(lora, path)
        settings.update(run_of(llm))  # an adapter has no other records
    pairs = list(
        _parts(
            llm,
            path,
            _config(llm, storage, adapted=lora is not None),
            settings,
            whole=lora is None or carried,
        )
    )
    entries = (llm.trainable if lora is None else lora).arena.entries
    scales: list[Pair] = []
    for kind, array in arrays:
        for entry in entries:
            flat = array[entry.offset : entry.offset + entry.size]
            form = storage.weight_dtype(entry) if kind == Kind.TENSOR else "float32"
            found = list(_tensor(path, kind, entry, flat, form, storage.group))
            pairs.append(found[0])
            scales += found[1:]
    pairs += scales
    if lora is not None and carried:
        pairs += [
            _record(
                Kind.BASE_TENSOR,
                entry,
                lora.base_weights(entry.name).astype("<f4", copy=snapshot),
                DType.FLOAT32,
            )
            for entry in llm.trainable.arena.entries
        ]
    return _placed(llm, path, pairs, words=lora is None or carried)


def _config(llm: LanguageModel, storage: Storage, *, adapted: bool) -> dict[str, Any]:
    """The configuration record."""
    config: dict[str, Any] = {
        "graph": family_of(llm.config).name + ADAPTED * adapted,
        "config": llm.config.to_dict(),
    }
    if storage.weights != "float32":
        group = {"group": storage.group} if storage.weights == "int8" else {}
        config["weights"] = {"form": storage.weights, **group}
    return config


def _parts(
    llm: LanguageModel, path: object, config: dict[str, Any], settings: Any, *, whole: bool
) -> Iterator[Pair]:
    """The records that are not tensors, in order.

    settings  of the optimizer, or None;  whole: with the vocabulary and layers of the model
    """
    part = partial(_part, path)
    yield part(Kind.CONFIG, config)
    if whole:
        vocabulary = vocabulary_file.pack(llm.tokenizer.words, llm.tokenizer.to_state()["scores"])
        yield Record(Kind.VOCABULARY, "vocabulary", len(vocabulary)), memoryview(vocabulary)
        for layer in llm.gpt.layer_records():
            yield part(
                Kind.LAYER,
                {"name": layer.name, "type": layer.type, "parameters": list(layer.parameters)},
                layer.name,
            )
    yield part(Kind.TRAINING_STATE, llm.training_state.to_dict())
    yield _metadata(path, llm)
    if settings is not None:
        yield part(Kind.OPTIMIZER, settings)
    kind = llm.tokenizer.kind
    if whole and kind in KINDS[1:]:  # characters are encoded as words are, by every reader
        yield part(Kind.TOKENIZER, {"kind": kind}, flags=OPTIONAL if kind == "chars" else 0)
    if settings is None or "run" not in settings:
        for value in run_of(llm).values():
            yield part(Kind.RUN, value, flags=OPTIONAL)


def run_of(llm: LanguageModel) -> dict[str, dict[str, str]]:
    """{"run": which training it is}, {} where there was none."""
    run_id = llm.training_state.run_id
    return {"run": {"id": run_id}} if run_id else {}


def _part(path: object, kind: Kind, value: Any, name: str = "", flags: int = 0) -> Pair:
    """A record of JSON."""
    what = name or kind.name.lower()
    text = dump_json(path, what, value)
    check_part_size(path, what, text.encode("ascii"))
    return _text(kind, what, text, flags)


def _metadata(path: object, llm: LanguageModel) -> Pair:
    return _text(Kind.METADATA, "metadata", dump_metadata(path, llm.metadata))


def _text(kind: Kind, what: str, text: str, flags: int = 0) -> Pair:
    data = text.encode("ascii")
    return Record(kind, what, len(data), flags=flags), memoryview(data)


def _tensor(
    path: object, kind: Kind, entry: Entry, flat: Floats, form: str, group: int
) -> Iterator[Pair]:
    """The record of one tensor, and after an int8 one that of its scales."""
    if form == "float32":
        yield _record(kind, entry, flat.astype("<f4", copy=False), DType.FLOAT32)
        return
    matrix = flat.reshape(entry.shape)
    largest = too_large(matrix, form)
    if largest is not None:
        raise not_saved(
            path,
            Phrase("{value} in '{name}'", value=largest, name=entry.name),
            Phrase("numbers that {form} can hold", form=form),
            "save the weights as float32",
        )
    if form == "float16":
        yield _record(kind, entry, matrix.astype("<f2"), DType.FLOAT16)
        return
    q, scales = quantize(matrix, group)
    yield _record(kind, entry, q, DType.INT8)
    yield _record(Kind.SCALE, entry, scales.astype("<f4", copy=False), DType.FLOAT32)


def _record(kind: Kind, entry: Entry, array: np.ndarray, dtype: DType) -> Pair:
    shape = array.shape if kind == Kind.SCALE else entry.shape
    flags = OPTIONAL if kind == Kind.LIVE_TENSOR else 0
    return Record(kind, entry.name, array.nbytes, dtype, shape, flags), array.data.cast("B")
