"""What is fuzzed: bytes go in, and only the errors that cgpt promises may come out."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import independent_reader
import numpy as np
from mutate import changed_record, changed_value, signed
from rustgpt_reference import make_export

from cgpt.chat.session_file import read_session, write_session
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.loading import load_stored_weights
from cgpt.checkpoint.saving import save_model_binary
from cgpt.corpus import shards, text_rows, token_cache
from cgpt.corpus.reader import Reading
from cgpt.errors import CheckpointError, DataError
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.format_v1 import HEADER_SIZE
from cgpt.interop import rustgpt
from cgpt.llm import LLM, load, load_model_auto, load_with_adapter
from cgpt.tokenizers import rustgpt as rust_tokenizer
from cgpt.tokenizers.tokenizer import Tokenizer

LATE = (rustgpt,)  # imported here, so that it is instrumented
DATA = Path(__file__).parent.parent / "data"
ADAPTER = "tiny_v1_lora.bin"
CARRIES = "tiny_v1_lora_carries.bin"
SUFFIXES = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".jsonl.gz")
BYTES = Tokenizer([], [])
# An entry of a text of two tokens and a dialogue of three.
INDEX, SHARD = "index.json", "000000.shard"
_SHARD = np.array([2], "<i8").tobytes() + np.array([2, -3], "<i4").tobytes() + bytes(10)
_INDEX = json.dumps(
    {
        "digests": ["00"],
        "files": [{"path": "a.txt", "documents": 1, "dialogues": 1}],
        "first_dialogue": [["user", "你好"], ["assistant", "好"]],
    }
).encode()
rust_tokenizer._jieba_cut = cache(rust_tokenizer._jieba_cut)  # reading it takes a second
text_rows._CHUNK = 7  # so that values lie on borders of what is read at a time


def accepted(read: Callable[[], Any]) -> Any:
    """What is read, or None where the file is refused for what it is."""
    try:
        return read()
    except CheckpointError as error:
        if error.code not in ("damaged", "foreign", "version"):
            raise
    return None


@contextmanager
def held(data: bytes, suffix: str = "") -> Iterator[str]:
    """The path of a file that only memory holds."""
    with tempfile.NamedTemporaryFile(dir=_memory(), suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield file.name


def model(data: bytes) -> bool:
    """Every reader of a model's file. What a training takes, all of them take, and is kept.

    Returns whether it is taken.
    """
    with held(data) as path:
        found = [
            accepted(partial(load_model_auto, path, training=False)),
            accepted(partial(describe, path, verify=True)),
            accepted(partial(Tokenizer.load, path)),
        ]
        llm = accepted(partial(load_model_auto, path))
        if llm is not None:
            assert None not in found, "a file for training alone"
            kept(llm)
    return llm is not None


def kept(llm: LLM) -> None:
    """What was read is saved, read and saved to the same bytes."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        first = save_model_binary(llm, Path(folder, "a"))
        again = save_model_binary(load_model_auto(first), Path(folder, "b"))
        assert first.read_bytes() == again.read_bytes(), "not the same after a save"


def binary(data: bytes) -> None:
    """A binary file as it is, and with its checksums made right."""
    for one in as_signed(data):
        if model(one):
            with held(one) as path:
                assert accepted(partial(load_stored_weights, path)), "weights for training alone"
            independent_reader.parse(one)


def as_signed(data: bytes) -> list[bytes]:
    """A binary file as it is, and with its checksums made right where they are not."""
    right = signed(data) if len(data) > HEADER_SIZE else data
    return [data] if right == data else [data, right]


def adapter(data: bytes) -> None:
    """A LoRA adapter beside its model, as it is and with right checksums."""
    for one in as_signed(data):
        with held(one) as path:
            llm = accepted(partial(load_with_adapter, DATA / "tiny_v1.bin", path))
            merged = accepted(
                partial(load_with_adapter, DATA / "tiny_v1.bin", path, training=False)
            )
            described = accepted(partial(describe, path, verify=True))
            if with_its_model(path) is not None:
                assert with_its_model(path, training=False) is not None
                independent_reader.parse(one)
            if llm is not None:
                assert merged is not None, "an adapter for training alone"
                with BinaryFile(path) as file:
                    carries = file.carries_base
                if not carries:  # else the model in the file may be another, and is not read
                    assert described is not None, "an adapter that cannot be described"
                    independent_reader.parse(one)


def with_its_model(path: Path, training: bool = True) -> LLM | None:
    """An adapter with the model that it carries; None where it names a file instead."""
    try:
        return accepted(partial(load, path, training=training))
    except CheckpointError as error:
        if error.code != "missing":
            raise
        return None


def text(data: bytes) -> None:
    """A JSON file as it is, and behind the opening that lets it in."""
    model(data)
    model(b'{"format": "cgpt-json", ' + data)


def export(data: bytes) -> None:
    """An export of RustGPT-Chinese as it is, and behind the opening that lets it in."""
    for one in data, b'{"encode": "vocab", ' + data.removeprefix(b"{"):
        with held(one) as path:
            llm = accepted(partial(load, path))
            if llm is not None:
                kept(llm)


def vocabulary(data: bytes) -> None:
    """A vocabulary by itself, as it is and behind its opening."""
    for one in data, b'{"format": "cgpt-tokenizer", "version": 1, ' + data.removeprefix(b"{"):
        with held(one) as path:
            found = accepted(partial(Tokenizer.load, path))
            if found is not None:
                text = "你好，世界 12 a\n"
                assert found.kind == "rustgpt" or found.decode(found.encode(text)) == text


def session(data: bytes) -> None:
    """A dialogue that was saved."""
    with held(data) as path:
        try:
            found = read_session(path)
        except DataError:
            return
        assert read_session(write_session(path, found)) == found


def documents(data: bytes) -> None:
    """A data file of every suffix, read at once and a little at a time, which give the same."""
    for suffix in SUFFIXES:
        with held(data, suffix) as path:
            whole, parts = (_items(Reading([path], large=large)) for large in (len(data), -1))
            assert whole == parts, "read otherwise a little at a time"


def _items(reading: Reading) -> object:
    """All that is read; None where it is refused."""
    try:
        items = list(reading)
    except DataError:
        return None
    return items, reading.files, reading.fingerprint


def cached(data: bytes) -> None:
    """An entry of the token cache with another index, and with another shard.

    Each as it is and with a right checksum.
    """
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        shard = Path(folder, SHARD)
        for index, content in (
            (data, _signed_shard(shard, _SHARD)),
            (_signed_index(data), _signed_shard(shard, _SHARD)),
            (_signed_index(_INDEX), data),
            (_signed_index(_INDEX), _signed_shard(shard, data)),
        ):
            shard.write_bytes(content)
            Path(folder, INDEX).write_bytes(index)
            damaged: set[str] = set()
            found = token_cache._load(Path(folder), BYTES, 1, damaged)
            assert (found is None) == bool(damaged)
            for number in range(len(found.store) if found else 0):
                assert len(found.store.tokens(number)) == found.store.sizes[number]


def _signed_shard(path: Path, rest: bytes) -> bytes:
    return zlib.crc32(rest, shards.place_checksum(path)).to_bytes(8, "little") + rest


def _signed_index(text: bytes) -> bytes:
    """Behind a right checksum where it is JSON."""
    try:
        values = json.loads(text)
        return json.dumps(
            {"index": values, "crc32": zlib.crc32(json.dumps(values).encode())}
        ).encode()
    except (ValueError, RecursionError):
        return text


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _small_json() -> bytes:
    """The JSON file without its long lists of numbers."""
    found = json.loads((DATA / "tiny_v1.json").read_text("ascii"))
    found["best_weights"] = found["optimizer"] = None
    return json.dumps(found).encode()


def _small_export(**form: bool) -> bytes:
    """An export of one block as narrow as can be, with short numbers."""

    def short(value: object) -> object:
        if isinstance(value, dict):
            return {name: short(one) for name, one in value.items()}
        if isinstance(value, list):
            return [round(one, 1) if isinstance(one, float) else short(one) for one in value]
        return value

    found = make_export(width=2, heads=1, **form)
    del found["layers"][2:-1]
    return json.dumps(short(found), ensure_ascii=False, separators=(",", ":")).encode()


def _vocabularies() -> list[bytes]:
    return [
        json.dumps(
            {
                "format": "cgpt-tokenizer",
                "version": 1,
                "kind": kind,
                "words": words,
                "scores": scores,
            }
        ).encode()
        for kind, words, scores in (
            ("words", ["你好", "世界", "a"], [-1.0, -2.5, -3.0]),
            ("chars", ["你", "好"], [-1.0, -2.0]),
            ("bpe", ["ab", "abab"], [0.0, 0.0]),
        )
    ]


def _session() -> bytes:
    return json.dumps(
        {
            "format": "cgpt-session",
            "version": 1,
            "system": None,
            "drawn": 3,
            "sampling": {"temperature": 0.8, "top_k": 40, "stop": ["x"]},
            "messages": [
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": "好"},
            ],
        }
    ).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "binary": binary,
    "adapter": adapter,
    "json": text,
    "data": documents,
    "import": export,
    "cache": cached,
    "tokenizer": vocabulary,
    "session": session,
}
# How an input is changed where not byte by byte.
CHANGES: dict[str, Callable[[bytes, int], bytes | None]] = {
    "binary": changed_record,
    "adapter": changed_record,
    **dict.fromkeys(("json", "data", "import", "cache", "tokenizer", "session"), changed_value),
}
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "binary": lambda: [
        path.read_bytes()
        for path in sorted(DATA.glob("tiny_v1*.bin"))
        if path.name not in (ADAPTER, CARRIES)
    ],
    "adapter": lambda: [(DATA / name).read_bytes() for name in (ADAPTER, CARRIES)],
    "json": lambda: [_small_json(), *(path.read_bytes() for path in DATA.glob("tiny_v1*.json"))],
    "cache": lambda: [_INDEX, _SHARD],
    "import": lambda: [_small_export(), _small_export(older=True)],
    "tokenizer": _vocabularies,
    "session": lambda: [_session()],
    "data": lambda: [
        '["山很高。", "水很深。"]'.encode(),
        '[{"messages": [{"role": "user", "content": "你好"},'
        ' {"role": "assistant", "content": "好"}]}]'.encode(),
        '{"text": "一"}\n{"instruction": "问", "input": "", "output": "答"}\n'.encode(),
        b'[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]',
        "用户：你好助手：你好\n\n第二篇".encode(),
    ],
}
