"""Comparing models to the bit, what loading a file ends in, and files that lie."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cgpt.errors import CheckpointError
from cgpt.fileio.format_v1 import Record, pack_front, place
from cgpt.llm import LLM, load_model_auto


def same_bits(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


def assert_same(a: LLM, b: LLM, *, optimizer: bool = True) -> None:
    assert a.config == b.config
    assert a.tokenizer.to_state() == b.tokenizer.to_state()
    assert a.training_state == b.training_state
    assert a.metadata == b.metadata
    assert same_bits(a.gpt.arena.data, b.gpt.arena.data)
    if optimizer and a.optimizer is not None:
        assert b.optimizer is not None
        assert a.optimizer.to_dict() == b.optimizer.to_dict()
        assert same_bits(a.gpt.arena.m, b.gpt.arena.m)
        assert same_bits(a.gpt.arena.v, b.gpt.arena.v)
        assert same_bits(a.best_weights, b.best_weights)
    else:
        assert b.optimizer is None


def code_of(path: Path, *, training: bool = True) -> str:
    """The code of the error that loading gives; "none" where it gives none."""
    try:
        load_model_auto(path, training=training)
    except CheckpointError as error:
        assert str(path) in str(error) and "expected" in str(error) and "\n" not in str(error)
        return error.code
    return "none"


def write_signed(path: Path, pairs: Sequence[tuple[Record, bytes | bytearray]]) -> None:
    """A file of `signed_file`."""
    path.write_bytes(signed_file(pairs))


def signed_file(pairs: Sequence[tuple[Record, bytes | bytearray]]) -> bytes:
    """These records and payloads with every place and checksum right, whatever they hold."""
    records, size = place([replace(record, length=len(data)) for record, data in pairs])
    records = [
        replace(record, crc=zlib.crc32(data))
        for record, (_, data) in zip(records, pairs, strict=True)
    ]
    content = bytearray(size)
    front = pack_front(records, size)
    content[: len(front)] = front
    for record, (_, data) in zip(records, pairs, strict=True):
        content[record.offset : record.offset + len(data)] = data
    return bytes(content)
