"""An LLM as records of format v1, and back."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.arena import Entry, Floats, aligned, arena_size, read_only
from cgpt.checkpoint.atomic import Output, write_file
from cgpt.checkpoint.failures import damaged, other_version
from cgpt.checkpoint.format import TENSORS, DType, Kind, Record, align, pack_front, place
from cgpt.checkpoint.parts import (
    GRAPH,
    Progress,
    build_config,
    build_optimizer,
    build_tokenizer,
    build_training_state,
    check_fits,
    check_layers,
    check_object,
    dump_json,
)
from cgpt.checkpoint.reader import BinaryFile, Job, grouped, in_parallel
from cgpt.config import GPTConfig
from cgpt.llm import LLM
from cgpt.model import GPT
from cgpt.tokenizer import FIRST_WORD, Tokenizer

_VOCABULARY = struct.Struct("<IIQ")     # words, first word with a score, bytes of text


# Saving

def save(llm: LLM, path: str | os.PathLike[str], *, optimizer: bool = True) -> Path:
    """Write `llm` to `path`; see `cgpt.checkpoint.save_model_binary`."""
    pairs = [*_parts(llm, path, optimizer), *_tensors(llm, optimizer)]
    records, size = place([record for record, _ in pairs])
    payloads = [payload for _, payload in pairs]
    groups = grouped([Job(len(payload), partial(zlib.crc32, payload)) for payload in payloads])

    def write(out: Output) -> None:
        with ThreadPoolExecutor(1) as pool:
            checksums = pool.map(_checksums, groups)    # while this thread writes
            out.seek(records[0].offset)
            for record, payload in zip(records, payloads, strict=True):
                out.write(payload)
                out.write(bytes(align(record.end) - record.end))
            found = chain.from_iterable(checksums)
            table = [replace(record, crc=crc) for record, crc in zip(records, found, strict=True)]
        out.seek(0)
        out.write(pack_front(table, size))

    return write_file(path, size, write)


def _checksums(group: list[Job]) -> list[int]:
    return [job.run() for job in group]


def _parts(llm: LLM, path: object, optimizer: bool) -> Iterator[tuple[Record, bytes]]:
    """The records that are not tensors."""
    def part(kind: Kind, value: Any, name: str = "") -> tuple[Record, bytes]:
        what = name or kind.name.lower()
        data = dump_json(path, what, value).encode("ascii")
        return Record(kind, what, len(data)), data

    yield part(Kind.CONFIG, {"graph": GRAPH, "config": llm.config.to_dict()})
    vocabulary = pack_vocabulary(llm.tokenizer)
    yield Record(Kind.VOCABULARY, "vocabulary", len(vocabulary)), vocabulary
    for layer in llm.gpt.layer_records():
        yield part(Kind.LAYER, {"name": layer.name, "type": layer.type,
                                "parameters": list(layer.parameters)}, layer.name)
    yield part(Kind.TRAINING_STATE, llm.training_state.to_dict())
    yield part(Kind.METADATA, llm.metadata)
    if optimizer and llm.optimizer is not None:
        yield part(Kind.OPTIMIZER, llm.optimizer.to_dict())


def _tensors(llm: LLM, optimizer: bool) -> Iterator[tuple[Record, memoryview]]:
    """One record a tensor of every arena that is saved, in arena order."""
    arena = llm.gpt.arena
    arrays = [(Kind.TENSOR, arena.data)]
    if optimizer and llm.optimizer is not None:
        m, v = arena.require_moments()
        arrays += [(Kind.ADAM_M, m), (Kind.ADAM_V, v)]
    if optimizer and llm.best_weights is not None:
        arrays.append((Kind.BEST_TENSOR, llm.best_weights))
    for kind, array in arrays:
        little = array.astype("<f4", copy=False)
        for entry in arena.entries:
            part = little[entry.offset:entry.offset + entry.size]
            record = Record(kind, entry.name, part.nbytes, DType.FLOAT32, entry.shape)
            yield record, memoryview(part).cast("B")


def pack_vocabulary(tokenizer: Tokenizer) -> bytes:
    """The vocabulary's payload: counts, scores, where each word starts, the words' UTF-8."""
    words = [word.encode("utf-8", "surrogatepass") for word in tokenizer.words]
    text = b"".join(words)
    scores = np.array(tokenizer.to_state()["scores"], "<f8")
    offsets = np.concatenate(([0], np.cumsum([len(word) for word in words]))).astype("<u4")
    return _VOCABULARY.pack(len(words), FIRST_WORD, len(text)) + scores.tobytes() \
        + offsets.tobytes() + text


def unpack_vocabulary(path: object, data: bytes) -> tuple[list[str], list[float]]:
    """(words of every id, scores of those from FIRST_WORD on). Raises CheckpointError."""
    n_words, first, size = _VOCABULARY.unpack_from(data.ljust(_VOCABULARY.size, b"\0"))
    scores_at = _VOCABULARY.size
    offsets_at = scores_at + 8 * (n_words - first)
    text_at = offsets_at + 4 * (n_words + 1)
    if first != FIRST_WORD or n_words < first or text_at + size != len(data):
        raise damaged(path, f"a vocabulary of {n_words} words, {first} without a score and {size} "
                      f"bytes of text in {len(data)} bytes", f"{FIRST_WORD} without a score, and "
                      "lengths that add up")
    scores = np.frombuffer(data, "<f8", n_words - first, scores_at)
    offsets = np.frombuffer(data, "<u4", n_words + 1, offsets_at).tolist()
    if offsets[0] != 0 or offsets[-1] != size or offsets != sorted(offsets):
        raise damaged(path, "word offsets that do not ascend from 0 to the end of the text",
                      "ascending ones")
    text = memoryview(data)[text_at:]
    try:
        words = [str(text[start:end], "utf-8", "surrogatepass")
                 for start, end in pairwise(offsets)]
    except UnicodeDecodeError:
        raise damaged(path, "a word that is not UTF-8", "UTF-8") from None
    return words, scores.tolist()


# Loading

def load(path: str | os.PathLike[str], *, training: bool = True,
         progress: Progress | None = None) -> LLM:
    """Read an LLM; see `cgpt.checkpoint.load_model_binary`."""
    with BinaryFile(path) as file:
        config = read_config(file)
        entries = check_fits(path, config, file.size // 4)
        check_tensors(file, entries)
        tokenizer = read_tokenizer(file, config)
        state = build_training_state(path, file.json(file.one(Kind.TRAINING_STATE)))
        metadata = check_object(path, "metadata", file.json(file.one(Kind.METADATA)))
        if training:
            weights = aligned(arena_size(entries), zero=True)
            jobs = _fills(file, Kind.TENSOR, weights, entries)
        else:
            weights, jobs = _map_weights(file, entries)
        gpt = GPT(config, weights=weights)
        layers = check_layers(path, [file.json(one) for one in file.of(Kind.LAYER)], gpt)
        llm = LLM(tokenizer, gpt, training_state=state, metadata=metadata)
        if training:
            jobs += _prepare_training(file, llm, entries)
        in_parallel(jobs)
    for number, layer in enumerate(layers, 1):
        if progress is not None:
            progress(number, len(layers), layer)
    return llm


def read_config(file: BinaryFile) -> GPTConfig:
    """The configuration of an open file."""
    values = check_object(file.path, "the config record", file.json(file.one(Kind.CONFIG)))
    return build_config(file.path, values.get("graph"), values.get("config"))


def read_tokenizer(file: BinaryFile, config: GPTConfig) -> Tokenizer:
    """The tokenizer of an open file."""
    words, scores = unpack_vocabulary(file.path, file.payload(file.one(Kind.VOCABULARY)))
    return build_tokenizer(file.path, words, scores, config)


def check_tensors(file: BinaryFile, entries: list[Entry]) -> None:
    """Every tensor of the configuration once in each kind, placed as in the arena; none over."""
    for kind in TENSORS:
        records = file.of(kind)
        if not records and kind != Kind.TENSOR:
            continue
        expected = {entry.name for entry in entries}
        for name in sorted(expected.symmetric_difference(record.name for record in records)):
            raise damaged(file.path, f"{kind.name.lower()} '{name}' missing or over",
                          "the tensors of the configuration")
        for record, entry in zip(records, entries, strict=True):
            if record.dtype != DType.FLOAT32:
                raise other_version(file.path, f"{record.label} of type "
                                    f"{DType(record.dtype).name.lower()}", "float32")
            place = (record.offset - records[0].offset) // 4
            if (record.name, record.shape, place) != (entry.name, entry.shape, entry.offset):
                raise damaged(file.path, f"{record.label} of shape {list(record.shape)} at element "
                              f"{place}", f"'{entry.name}' of shape {list(entry.shape)} at element "
                              f"{entry.offset}")
    moments = {bool(file.of(kind)) for kind in (Kind.OPTIMIZER, Kind.ADAM_M, Kind.ADAM_V)}
    if len(moments) > 1:
        raise damaged(file.path, "only a part of the optimizer's records", "all or none")


def _fills(file: BinaryFile, kind: Kind, target: Floats, entries: list[Entry]) -> list[Job]:
    """Jobs that read the tensors of a kind into a flat array."""
    return [Job(record.length, partial(file.fill, record,
                                       target[entry.offset:entry.offset + entry.size]))
            for record, entry in zip(file.of(kind), entries, strict=True)]


def _map_weights(file: BinaryFile, entries: list[Entry]) -> tuple[Floats, list[Job]]:
    """The weights as a read-only map of the file, and the jobs that check them."""
    records = file.of(Kind.TENSOR)
    start, size = records[0].offset, arena_size(entries)
    view = file.map(start, 4 * size) if sys.byteorder == "little" else None
    if view is None:
        weights = aligned(size, zero=True)
        return read_only(weights), _fills(file, Kind.TENSOR, weights, entries)
    jobs = [Job(record.length, partial(file.check, record,
                                       view[record.offset - start:record.end - start]))
            for record in records]
    return np.frombuffer(view, np.float32), jobs


def _prepare_training(file: BinaryFile, llm: LLM, entries: list[Entry]) -> list[Job]:
    """Give `llm` its optimizer and best weights; the jobs that read their arrays."""
    jobs: list[Job] = []
    settings = file.maybe(Kind.OPTIMIZER)
    if settings is not None:
        llm.optimizer = build_optimizer(file.path, llm.gpt, file.json(settings))
        m, v = llm.gpt.arena.require_moments()
        jobs += _fills(file, Kind.ADAM_M, m, entries) + _fills(file, Kind.ADAM_V, v, entries)
    if file.of(Kind.BEST_TENSOR):
        llm.best_weights = aligned(arena_size(entries), zero=True)
        jobs += _fills(file, Kind.BEST_TENSOR, llm.best_weights, entries)
    return jobs
