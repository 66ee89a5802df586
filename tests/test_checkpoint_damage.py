"""Binary files that were cut, changed or made to deceive: each is refused for what it is."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import code_of, write_signed
from conftest import Counted
from make_fixtures import DATA, tiny_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary
from cgpt.errors import CheckpointError
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.format_v1 import Kind, Record, pack_front, parse_header, parse_table
from cgpt.llm import load_model_binary
from cgpt.tokenizers.tokenizer import Tokenizer


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_binary(tiny_llm(), tmp_path / "tiny.bin")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = (DATA / "tiny_v1.bin").read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(whole)
    with open(path, "r+b") as file:
        codes = set()
        for size in reversed(range(len(whole))):
            file.truncate(size)
            codes.add(code_of(path))
    assert codes == {"damaged"}


@pytest.mark.parametrize(("name", "step"), [("tiny_v1.bin", 13), ("tiny_v1_int8.bin", 29)])
def test_every_flipped_byte_is_noticed(tmp_path: Path, name: str, step: int) -> None:
    whole = (DATA / name).read_bytes()
    path = tmp_path / "flipped.bin"
    path.write_bytes(whole)
    missed = []
    with open(path, "r+b", buffering=0) as file:
        for at in range(0, len(whole), step):
            mask = 1 << at % 8 if at % 3 else 1 + at % 255
            file.seek(at)
            file.write(bytes([whole[at] ^ mask]))
            if code_of(path) != "damaged":
                missed.append(at)
            file.seek(at)
            file.write(whole[at : at + 1])
    assert missed == []
    assert code_of(path) == "none"  # the test itself can fail


def test_chat_checks_the_weights_before_they_are_used(tiny: Path) -> None:
    record = next(r for r in describe(tiny)["records"] if r["name"] == "ln_f.bias")
    data = bytearray(tiny.read_bytes())
    data[record["offset"] + 1] ^= 4
    tiny.write_bytes(data)
    assert code_of(tiny, training=False) == "damaged"


def test_bytes_behind_the_end_are_noticed(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes() + bytes(64))
    assert code_of(tiny) == "damaged"


def test_another_version_is_told_apart(tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[8] = 2
    data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    tiny.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"version 2.*expected version 1.*update") as info:
        load_model_binary(tiny)
    assert info.value.code == "version"


def rewrite(path: Path, change: dict[int, int]) -> None:
    """Change header bytes and make its checksum right again, as an attacker would."""
    data = bytearray(path.read_bytes())
    for at, value in change.items():
        data[at] = value
    data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({12: 1, 15: 4}, "damaged"),  # byte order
        ({16: 128}, "damaged"),  # size of the header
        ({20: 0}, "damaged"),
        ({23: 255}, "damaged"),  # number of records
        ({31: 255}, "damaged"),  # length of the file
        ({32: 128}, "damaged"),
        ({47: 255}, "damaged"),  # place of the table
        ({52: 1}, "version"),  # feature bits
        ({56: 1, 59: 128}, "none"),  # compatible feature bits
    ],
)
def test_headers_that_lie(tiny: Path, counted: Counted, change: dict[int, int], code: str) -> None:
    rewrite(tiny, change)
    assert code_of(tiny) == code
    counted("headers that lie", code != "none")


def rebuilt(path: Path, change: object) -> None:
    """Write the file again with its list of (record, payload) changed; all checksums right."""
    with BinaryFile(path) as file:
        pairs = [(record, file.payload(record)) for record in file.records]
    write_signed(path, change(pairs))  # type: ignore[operator]


def changed(kind: Kind, **fields: object):
    """A change of the first record of a kind: payload=bytes, or fields of the record."""

    def change(pairs: list) -> list:
        at = next(i for i, (record, _) in enumerate(pairs) if record.kind == kind)
        values = dict(fields)
        record, data = pairs[at]
        pairs[at] = (
            replace(record, **{k: v for k, v in values.items() if k != "payload"}),
            values.get("payload", data),
        )
        return pairs

    return change


def config(**values: object) -> bytes:
    shape = tiny_llm().config.to_dict() | values
    return json.dumps({"graph": "gpt2", "config": shape}).encode()


def without(*kinds: Kind):
    return lambda pairs: [pair for pair in pairs if pair[0].kind not in kinds]


def twice(kind: Kind):
    def change(pairs: list) -> list:
        at = next(i for i, (record, _) in enumerate(pairs) if record.kind == kind)
        return [*pairs[:at], pairs[at], *pairs[at:]]

    return change


def swapped(pairs: list) -> list:
    at = next(i for i, (record, _) in enumerate(pairs) if record.kind == Kind.TENSOR)
    return [*pairs[:at], pairs[at + 1], pairs[at], *pairs[at + 2 :]]


def with_record(**fields: object):
    return lambda pairs: [*pairs, (Record(length=0, **fields), b"x")]  # type: ignore[arg-type]


LIES = {
    "nothing changed": (lambda pairs: pairs, "none"),
    "optional record": (with_record(kind=99, name="future", flags=1), "none"),
    "unknown record": (with_record(kind=99, name="future"), "version"),
    "unknown flag": (with_record(kind=99, name="future", flags=3), "version"),
    "other type": (changed(Kind.TENSOR, dtype=3, payload=bytes(272 * 4)), "version"),
    "float16 beside an optimizer": (
        changed(Kind.TENSOR, dtype=2, payload=bytes(272 * 4)),
        "damaged",
    ),
    "unknown type": (changed(Kind.TENSOR, dtype=77), "version"),
    "shape too large": (changed(Kind.TENSOR, shape=(1 << 62, 1 << 62)), "damaged"),
    "shape of zero": (changed(Kind.TENSOR, shape=(0, 2)), "damaged"),
    "other shape": (changed(Kind.TENSOR, shape=(2, 272)), "damaged"),
    "path in a name": (changed(Kind.LAYER, name="../x"), "damaged"),
    "NUL in a name": (changed(Kind.LAYER, name="a\0b"), "damaged"),
    "no config": (without(Kind.CONFIG), "damaged"),
    "no vocabulary": (without(Kind.VOCABULARY), "damaged"),
    "no tensors": (without(Kind.TENSOR), "damaged"),
    "m without v": (without(Kind.ADAM_V), "damaged"),
    "m, v without settings": (without(Kind.OPTIMIZER), "damaged"),
    "no layers": (without(Kind.LAYER), "damaged"),
    "config twice": (twice(Kind.CONFIG), "damaged"),
    "tensor twice": (twice(Kind.TENSOR), "damaged"),
    "tensors swapped": (swapped, "damaged"),
    "another graph": (changed(Kind.CONFIG, payload=b'{"graph": "llama", "config": {}}'), "version"),
    "config unknown field": (changed(Kind.CONFIG, payload=config(n_expert=2)), "damaged"),
    "config too large": (changed(Kind.CONFIG, payload=config(n_embd=65536)), "damaged"),
    "config other heads": (changed(Kind.CONFIG, payload=config(n_head=0)), "damaged"),
    "config more layers": (changed(Kind.CONFIG, payload=config(n_layer=2)), "damaged"),
    "config no object": (changed(Kind.CONFIG, payload=b"[]"), "damaged"),
    "JSON with NaN": (changed(Kind.METADATA, payload=b'{"a": NaN}'), "damaged"),
    "JSON twice a name": (changed(Kind.METADATA, payload=b'{"a": 1, "a": 2}'), "damaged"),
    "JSON too deep": (changed(Kind.METADATA, payload=b"[" * 99999 + b"]" * 99999), "damaged"),
    "JSON deep": (changed(Kind.METADATA, payload=b'{"a": ' * 70 + b"1" + b"}" * 70), "damaged"),
    "JSON not UTF-8": (changed(Kind.METADATA, payload=b'{"a": "\xff"}'), "damaged"),
    "state no object": (changed(Kind.TRAINING_STATE, payload=b"[1]"), "damaged"),
    "state wrong type": (changed(Kind.TRAINING_STATE, payload=b'{"step": "1"}'), "damaged"),
    "optimizer empty": (changed(Kind.OPTIMIZER, payload=b"{}"), "damaged"),
    "optimizer betas": (
        changed(
            Kind.OPTIMIZER,
            payload=b'{"betas": [2, 3, 4], "eps": 1, "weight_decay": 0, "step_count": 1}',
        ),
        "damaged",
    ),
    "layer of another type": (changed(Kind.LAYER, payload=b'{"name": "x"}'), "damaged"),
    "vocabulary empty": (changed(Kind.VOCABULARY, payload=b""), "damaged"),
    "vocabulary huge": (changed(Kind.VOCABULARY, payload=b"\xff" * 64), "damaged"),
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie(tiny: Path, counted: Counted, name: str) -> None:
    change, code = LIES[name]
    rebuilt(tiny, change)
    assert code_of(tiny) == code
    counted("lies in binary files", code != "none")


@pytest.mark.parametrize(
    "change",
    [
        lambda words, scores: (["x", *words[1:]], scores),  # other special tokens
        lambda words, scores: ([*words[:-1], words[-2]], scores),  # a word twice
        lambda words, scores: ([*words[:-1], ""], scores),
        lambda words, scores: (words, [*scores[:-1], math.nan]),
        lambda words, scores: (words + [f"w{i}" for i in range(99)], scores + [-1.0] * 99),
    ],
)
def test_vocabularies_that_lie(tiny: Path, counted: Counted, change: object) -> None:
    llm = tiny_llm()
    words, scores = change(
        llm.tokenizer.words,  # type: ignore[operator]
        llm.tokenizer.to_state()["scores"],
    )
    text = "".join(words).encode()
    starts = np.cumsum([0] + [len(word.encode()) for word in words]).astype("<u4")
    payload = (
        struct.pack("<IIQ", len(words), 262, len(text))
        + np.array(scores, "<f8").tobytes()
        + starts.tobytes()
        + text
    )
    rebuilt(tiny, changed(Kind.VOCABULARY, payload=payload))
    assert code_of(tiny) == "damaged"
    counted("vocabularies that lie")


def test_records_out_of_place_are_noticed(tiny: Path) -> None:
    """Overlaps, holes and wrong order, with every checksum right."""
    data = tiny.read_bytes()
    header = parse_header(tiny, data[:64], len(data))
    table = data[64 : 64 + header.table_length]
    records = parse_table(tiny, header, table)
    for move in (-64, 64, 1, 1 << 60):
        moved = [*records[:5], replace(records[5], offset=records[5].offset + move), *records[6:]]
        front = pack_front(moved, len(data))
        tiny.write_bytes(front + data[len(front) :])
        assert code_of(tiny) == "damaged"


@pytest.mark.parametrize(
    "name",
    [
        "tiny_v1.bin",
        "tiny_v1_chars.bin",
        "tiny_v1_bpe.bin",
        "tiny_v1_int8.bin",
        "tiny_v1_rustgpt.bin",
        "tiny_v1_lora.bin",
        "tiny_v1_lora_carries.bin",
    ],
)
def test_json_records_that_are_no_objects(tmp_path: Path, counted: Counted, name: str) -> None:
    """Each in turn, in every reader; an empty object is one."""
    (tmp_path / "tiny_v1.bin").write_bytes((DATA / "tiny_v1.bin").read_bytes())
    path = tmp_path / "m.bin"
    with BinaryFile(DATA / name) as file:
        pairs = [(record, bytes(file.payload(record))) for record in file.records]
    for number, (record, _) in enumerate(pairs):
        if record.kind >= Kind.TENSOR or record.kind == Kind.VOCABULARY:
            continue
        for other in (b"[]", b"3", b"null", b'"kind"', b"true", b"[[]]", b'{"kind": []}'):
            write_signed(path, [*pairs[:number], (record, other), *pairs[number + 1 :]])
            wanted = ("damaged", "version", *["none"] * other.startswith(b"{"))
            for read in (load_model_binary, describe, Tokenizer.load):
                assert refusal(read, path) in wanted or not needs(read, name, record)
                counted("JSON records that are no objects")


def needs(read: Callable[..., object], name: str, record: Record) -> bool:
    """Whether a reader looks at a record; an adapter has no vocabulary of its own."""
    return (
        read is load_model_binary
        or (read is describe and record.kind != Kind.OPTIMIZER)
        or (record.kind in (Kind.CONFIG, Kind.TOKENIZER) and name != "tiny_v1_lora.bin")
    )


def refusal(read: Callable[..., object], path: Path) -> str:
    try:
        read(path)
    except CheckpointError as error:
        return error.code
    return "none"
