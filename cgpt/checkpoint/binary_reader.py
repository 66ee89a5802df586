"""Records of format v1 as an LLM; binary_writer.py is the way back."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np

from cgpt.checkpoint.adapter import model_config, read_state
from cgpt.checkpoint.contents import build_optimizer, check_fits, check_layers
from cgpt.config import GPTConfig
from cgpt.errors import Phrase, shown
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.file_errors import damaged, other_version
from cgpt.fileio.format_v1 import WHOLE, DType, Kind, Record
from cgpt.fileio.open_file import Job, Location, Running, in_parallel
from cgpt.fileio.strict_json import check_object
from cgpt.language_model import LanguageModel
from cgpt.models.inference import InferenceModel
from cgpt.models.quantized import QuantizedModel
from cgpt.models.registry import family_of
from cgpt.nn.arena import Entry, aligned, arena_size, read_only
from cgpt.nn.arrays import Floats
from cgpt.nn.quantized import GROUPS, StoredTensor, dequantize
from cgpt.optim.registry import restore_optimizer
from cgpt.tokenizers.tokenizer import tokenizer_of

_FORMS: dict[int, Any] = {DType.FLOAT32: "<f4", DType.FLOAT16: "<f2", DType.INT8: "i1"}


def load(file: BinaryFile, *, training: bool = True) -> LanguageModel:
    """Read a whole model; see `cgpt.load_model_binary`."""
    if training:
        return _load_to_train(file)
    if not file.all_float32 and _stays_rounded(file):
        return _load_stored(file)
    return _load_floats(file)


def _stays_rounded(file: BinaryFile) -> bool:
    config = model_config(file)
    return family_of(config).model.graph_class(config).decode_plan() is not None


def _load_floats(file: BinaryFile) -> LanguageModel:
    """A model for chat with float32 weights, whatever those of the file are, in memory of its own.

    A map of the file would be there sooner by a few milliseconds, but lies on small pages, and
    every token reads all weights: up to a sixth longer than from the large pages that NumPy asks
    for.
    """
    config, entries = read_shape(file)
    file.check_rounded()
    weights = aligned(arena_size(entries), zero=True)
    reading = Running(_fills(file, Kind.TENSOR, weights, entries))  # while the rest is built
    try:
        found = _build(file, family_of(config).model(config, weights=read_only(weights)))
    except BaseException:
        reading.cancel()
        raise
    reading.finish()
    return found


def _load_to_train(file: BinaryFile) -> LanguageModel:
    """A model with all that its training resumes with."""
    config, entries = read_shape(file)
    file.check_rounded()
    weights = aligned(arena_size(entries), zero=True)
    llm = _build(file, family_of(config).model(config, weights=weights))
    kind = Kind.TENSOR
    jobs = _prepare_training(file, llm, entries)
    if file.of(Kind.LIVE_TENSOR):
        kind, llm.average = Kind.LIVE_TENSOR, aligned(arena_size(entries), zero=True)
        jobs += _fills(file, Kind.TENSOR, llm.average, entries)
    in_parallel(jobs + _fills(file, kind, weights, entries))
    return llm


def _load_stored(file: BinaryFile) -> LanguageModel:
    """A model whose weights stay float16 or int8."""
    config, entries = read_shape(file)
    form = "int8" if file.of(Kind.SCALE) else "float16"
    return _build(
        file, QuantizedModel(family_of(config).model, config, _stored_tensors(file, entries), form)
    )


def _build(file: BinaryFile, gpt: InferenceModel) -> LanguageModel:
    """The model with what else the file holds; the numbers may still be missing."""
    tokenizer = tokenizer_of(file)
    state = read_state(file)
    metadata = check_object(file.path, "metadata", file.json(file.one(Kind.METADATA)))
    check_layers(file.path, file.layers(), gpt)
    return LanguageModel(tokenizer, gpt, training_state=state, metadata=metadata)


def load_base(file: BinaryFile) -> LanguageModel:
    """The model that an adapter's file carries, with weights that may be written."""
    config = model_config(file)
    entries = check_fits(file.path, config, file.size)
    check_kind(file, Kind.BASE_TENSOR, entries, (DType.FLOAT32,))
    weights = aligned(arena_size(entries), zero=True)
    llm = _build(file, family_of(config).model(config, weights=weights))
    in_parallel(_fills(file, Kind.BASE_TENSOR, weights, entries))
    return llm


def load_stored(path: Location) -> dict[str, StoredTensor]:
    """See `loading.load_stored_weights`."""
    with BinaryFile(path) as file:
        return _stored_tensors(file, read_shape(file)[1])


def _stored_tensors(file: BinaryFile, entries: list[Entry]) -> dict[str, StoredTensor]:
    """Every tensor as it is stored in the file."""
    group = read_group(file)
    kinds = [kind for kind in (Kind.TENSOR, Kind.SCALE) if file.of(kind)]
    views = {kind: _region(file, kind) for kind in kinds}

    def array(record: Record) -> Any:
        start = record.offset - file.of(Kind(record.kind))[0].offset
        part = views[Kind(record.kind)][start : start + record.length]
        found: Any = np.frombuffer(part, _FORMS[record.dtype]).reshape(record.shape)
        return read_only(found.astype(found.dtype.newbyteorder("="), copy=False))

    scales = {record.name: array(record) for record in file.of(Kind.SCALE)}
    return {
        entry.name: StoredTensor(
            array(record), scales.get(entry.name), group if entry.name in scales else 0
        )
        for entry, record in zip(entries, file.of(Kind.TENSOR), strict=True)
    }


def _region(file: BinaryFile, kind: Kind) -> memoryview:
    """All payloads of a kind as they are stored in the file, checked."""
    records = file.of(kind)
    start = records[0].offset
    region = aligned(-(-(records[-1].end - start) // 4), zero=True).data.cast("B")
    in_parallel(
        [
            Job(
                record.length,
                partial(
                    file.fill_bytes, record, region[record.offset - start : record.end - start]
                ),
            )
            for record in records
        ]
    )
    return region


def read_shape(file: BinaryFile) -> tuple[GPTConfig, list[Entry]]:
    """The configuration of an open file and the layout of its tensors, which are checked."""
    file.require_whole()
    config = model_config(file)
    # An int8 weight takes a byte; a file of others holds more bytes than this allows for.
    entries = check_fits(file.path, config, file.size)
    check_tensors(file, entries)
    return config, entries


def read_group(file: BinaryFile) -> int:
    """How many int8 weights share a scale; 0 where the file has none."""
    if not file.of(Kind.SCALE):
        return 0
    form = file.config_values().get("weights")
    group = form.get("group") if isinstance(form, dict) else None
    if isinstance(group, bool) or group not in GROUPS:
        raise damaged(
            file.path, Phrase("int8 weights in groups of {group}", group=shown(group)), "32 or 64"
        )
    return int(group)


def check_tensors(file: BinaryFile, entries: list[Entry]) -> None:
    """Check that each kind has exactly the tensors of the configuration, in the arena's order.

    Weights may be float32, float16, or int8 with scales; all else is float32.
    """
    for kind in WHOLE:
        if file.of(kind) or kind == Kind.TENSOR:
            check_kind(file, kind, entries, _FORMS if kind == Kind.TENSOR else (DType.FLOAT32,))
    _check_scales(file)
    moments = {bool(file.of(kind)) for kind in (Kind.OPTIMIZER, Kind.ADAM_M, Kind.ADAM_V)}
    if len(moments) > 1:
        raise damaged(file.path, "only a part of the optimizer's records", "all or none")
    if True in moments and not file.all_float32:
        raise damaged(file.path, "an optimizer beside weights that are not float32", "none")


def check_kind(
    file: BinaryFile, kind: Kind, entries: list[Entry], allowed: Collection[int]
) -> None:
    """Check that a kind has exactly the tensors of the configuration, in the arena's order."""
    records = file.of(kind)
    expected = {entry.name for entry in entries}
    for name in sorted(expected.symmetric_difference(record.name for record in records)):
        raise damaged(
            file.path,
            Phrase("{record} missing or over", record=f"{kind.name.lower()} '{name}'"),
            "the tensors of the configuration",
        )
    for record, entry in zip(records, entries, strict=True):
        if record.dtype not in allowed:
            raise other_version(
                file.path,
                Phrase(
                    "{record} of type {dtype}",
                    record=record.label,
                    dtype=DType(record.dtype).name.lower(),
                ),
                "float32",
            )
        if (record.name, record.shape) != (entry.name, entry.shape):
            raise damaged(
                file.path,
                Phrase(
                    "{record} of shape {shape}", record=record.label, shape=str(list(record.shape))
                ),
                Phrase("'{name}' of shape {shape}", name=entry.name, shape=str(list(entry.shape))),
            )


def _check_scales(file: BinaryFile) -> None:
    """One record of scales for each int8 matrix, of its shape; none unexpected."""
    group = read_group(file)
    whole = [record for record in file.of(Kind.TENSOR) if record.dtype == DType.INT8]
    wanted = [
        (record.name, (record.shape[0], -(-record.shape[-1] // group)) if group else ())
        for record in whole
    ]
    scales = file.of(Kind.SCALE)
    if (
        any(len(record.shape) != 2 for record in whole)
        or [(record.name, record.shape) for record in scales] != wanted
        or any(record.dtype != DType.FLOAT32 for record in scales)
    ):
        raise damaged(
            file.path,
            Phrase(
                "{n} records of scales for {tensors} int8 tensors",
                n=len(scales),
                tensors=len(whole),
            ),
            "one for each, of its shape, and of float32",
        )


def _fills(file: BinaryFile, kind: Kind, target: Floats, entries: list[Entry]) -> list[Job]:
    """Jobs that read the tensors of a kind into a flat array."""
    jobs = []
    scales = {record.name: record for record in file.of(Kind.SCALE)}
    group = read_group(file)
    for record, entry in zip(file.of(kind), entries, strict=True):
        flat = target[entry.offset : entry.offset + entry.size]
        if record.dtype == DType.FLOAT32:
            run = partial(file.fill, record, flat)
        else:
            run = partial(
                _restore, file, record, scales.get(record.name), group, flat.reshape(entry.shape)
            )
        jobs.append(Job(record.length, run))
    return jobs


def _restore(
    file: BinaryFile, record: Record, scale: Record | None, group: int, target: Floats
) -> None:
    """Read a float16 or int8 tensor into float32."""
    stored: Any = np.frombuffer(file.payload(record), _FORMS[record.dtype]).reshape(record.shape)
    if scale is None:
        np.copyto(target, stored)
    else:
        scales = np.frombuffer(file.payload(scale), "<f4").reshape(scale.shape)
        dequantize(stored, scales, group, target)


def _prepare_training(file: BinaryFile, llm: LanguageModel, entries: list[Entry]) -> list[Job]:
    """Give `llm` its optimizer and best weights; the jobs that read their arrays."""
    jobs: list[Job] = []
    settings = file.maybe(Kind.OPTIMIZER)
    if settings is not None:
        llm.optimizer = build_optimizer(
            file.path, llm.trainable, file.json(settings), restore_optimizer
        )
        m, v = llm.trainable.arena.require_moments()
        jobs += _fills(file, Kind.ADAM_M, m, entries) + _fills(file, Kind.ADAM_V, v, entries)
    if file.of(Kind.BEST_TENSOR):
        llm.best_weights = aligned(arena_size(entries), zero=True)
        jobs += _fills(file, Kind.BEST_TENSOR, llm.best_weights, entries)
    return jobs
