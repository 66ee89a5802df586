"""What is fuzzed: bytes go in, and only the errors that cgpt promises may come out."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import numpy as np
from rustgpt_reference import make_export

from cgpt import prepare, rust_tokenizer
from cgpt.checkpoint import import_model, load_model_auto, load_with_adapter, rustgpt_import
from cgpt.checkpoint.format import HEADER_SIZE, MAGIC
from cgpt.data import read_corpus
from cgpt.errors import CheckpointError, DataError
from cgpt.tokenizer import Tokenizer

LATE = (rustgpt_import,)        # imported here, so that it is instrumented
DATA = Path(__file__).parent.parent / "data"
ADAPTER = "tiny_v1_lora.bin"
SUFFIXES = (".json", ".jsonl", ".txt")
BYTES = Tokenizer([], [])
# An entry of a text of two tokens and a dialogue of three.
INDEX, SHARD = "index.json", "000000.shard"
_SHARD = np.array([2], "<i8").tobytes() + np.array([2, -3], "<i4").tobytes() + bytes(10)
_INDEX = json.dumps({
    "digests": ["00"], "files": [{"path": "a.txt", "documents": 1, "dialogues": 1}],
    "first_dialogue": [["user", "你好"], ["assistant", "好"]]}).encode()
rust_tokenizer._jieba_cut = cache(rust_tokenizer._jieba_cut)    # reading it takes a second


def load(data: bytes, read: Callable[..., object] = load_model_auto) -> None:
    """Load for training and for chat from a file that only memory holds."""
    for training in (True, False):
        refused_or_read(data, partial(read, training=training))


def refused_or_read(data: bytes, read: Callable[..., object]) -> None:
    """Read from a file that only memory holds; it may be refused for what it is."""
    with tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.write(data)
        file.flush()
        try:
            read(file.name)
        except CheckpointError as error:
            if error.code not in ("damaged", "foreign", "version"):
                raise


def binary(data: bytes) -> None:
    """A binary file as it is, and with the checksums of header and table made right."""
    load(data)
    if len(data) > HEADER_SIZE:
        load(signed(data))


def adapter(data: bytes) -> None:
    """A LoRA adapter beside its model, as it is and with right checksums."""
    beside = partial(load_with_adapter, DATA / "tiny_v1.bin")
    load(data, beside)
    if len(data) > HEADER_SIZE:
        load(signed(data), beside)


def signed(data: bytes) -> bytes:
    """The bytes with a right signature and right checksums of header and table."""
    changed = bytearray(data)
    changed[:8] = MAGIC
    table = int.from_bytes(changed[40:48], "little")
    changed[48:52] = zlib.crc32(changed[HEADER_SIZE:HEADER_SIZE + table]).to_bytes(4, "little")
    changed[60:64] = zlib.crc32(changed[:60]).to_bytes(4, "little")
    return bytes(changed)


def text(data: bytes) -> None:
    """A JSON file as it is, and behind the opening that lets it in."""
    load(data)
    load(b'{"format": "cgpt-json", ' + data)


def export(data: bytes) -> None:
    """An export of RustGPT-Chinese as it is, and behind the opening that lets it in."""
    refused_or_read(data, import_model)
    refused_or_read(b'{"encode": "vocab", ' + data.removeprefix(b"{"), import_model)


def documents(data: bytes) -> None:
    """A data file of every suffix."""
    for suffix in SUFFIXES:
        with tempfile.NamedTemporaryFile(dir=_memory(), suffix=suffix) as file:
            file.write(data)
            file.flush()
            with suppress(DataError):
                read_corpus([file.name])


def cached(data: bytes) -> None:
    """An entry of the token cache with another index, and with another shard."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        for name in (INDEX, SHARD):
            parts = {INDEX: _INDEX, SHARD: _SHARD, name: data}
            for part, content in parts.items():
                Path(folder, part).write_bytes(content)
            found = prepare._load(Path(folder), BYTES)
            for number in range(len(found.store) if found else 0):
                assert len(found.store.tokens(number)) == found.store.sizes[number]


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


TARGETS: dict[str, Callable[[bytes], None]] = {
    "binary": binary, "adapter": adapter, "json": text, "data": documents, "import": export,
    "cache": cached}
SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "binary": lambda: [path.read_bytes() for path in sorted(DATA.glob("tiny_v1*.bin"))
                       if path.name != ADAPTER],
    "adapter": lambda: [(DATA / ADAPTER).read_bytes()],
    "json": lambda: [_small_json(), (DATA / "tiny_v1.json").read_bytes()],
    "cache": lambda: [_INDEX, _SHARD],
    "import": lambda: [_small_export(), _small_export(older=True)],
    "data": lambda: [
        '["山很高。", "水很深。"]'.encode(),
        '[{"messages": [{"role": "user", "content": "你好"},'
        ' {"role": "assistant", "content": "好"}]}]'.encode(),
        '{"text": "一"}\n{"instruction": "问", "input": "", "output": "答"}\n'.encode(),
        b'[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]',
        '用户：你好助手：你好\n\n第二篇'.encode()],
}
