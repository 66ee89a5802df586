"""Format v1: what is saved comes back to the bit, and nothing that was changed passes."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import independent_reader
import numpy as np
import pytest
from make_fixtures import DATA, WORDS, tiny_llm
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt.checkpoint import (
    describe,
    load_model_auto,
    load_model_binary,
    save_model_binary,
    save_model_json,
)
from cgpt.checkpoint.format import Kind, Record, pack_front, parse_header, parse_table, place
from cgpt.checkpoint.reader import BinaryFile
from cgpt.config import TrainConfig
from cgpt.errors import CheckpointError
from cgpt.llm import LLM
from cgpt.model import GPT
from cgpt.train import Trainer


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


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_binary(tiny_llm(), tmp_path / "tiny.bin")


def test_round_trip_is_exact(tiny: Path) -> None:
    assert_same(tiny_llm(), load_model_binary(tiny))
    assert_same(tiny_llm(), load_model_auto(tiny))


def test_the_same_model_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = save_model_binary(load_model_binary(tiny), tmp_path / "again.bin")
    assert again.read_bytes() == tiny.read_bytes()


def test_weights_only_is_a_third(tmp_path: Path) -> None:
    llm = small_llm(n_embd=64)
    Trainer(llm, TrainConfig(epochs=1)).fit(TEXTS)
    whole = save_model_binary(llm, tmp_path / "a.bin")
    weights = save_model_binary(llm, tmp_path / "b.bin", optimizer=False)
    assert weights.stat().st_size < 0.4 * whole.stat().st_size
    assert_same(llm, load_model_binary(weights), optimizer=False)


def test_for_chat_the_weights_are_the_file(tiny: Path) -> None:
    llm = load_model_binary(tiny, training=False)
    data = llm.gpt.arena.data
    assert not data.flags.writeable and not data.flags.owndata
    assert data.ctypes.data % 64 == 0
    assert llm.optimizer is None and llm.best_weights is None
    assert_same(tiny_llm(optimizer=False), llm)


def test_saving_over_the_mapped_file_keeps_the_map(tmp_path: Path) -> None:
    path = save_model_binary(small_llm(seed=1), tmp_path / "m.bin")
    mapped = load_model_binary(path, training=False)
    before = mapped.gpt.arena.data.copy()
    save_model_binary(small_llm(seed=2), path)
    assert same_bits(mapped.gpt.arena.data, before)
    save_model_binary(mapped, path)                 # from the old map over the new file
    assert same_bits(load_model_binary(path).gpt.arena.data, before)


def test_progress_is_told_once_a_layer(tiny: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    load_model_binary(tiny, progress=lambda i, n, layer: calls.append((i, n, layer.type)))
    assert calls == [(1, 4, "Embedding"), (2, 4, "Block"), (3, 4, "LayerNorm"), (4, 4, "TiedHead")]


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_training_goes_on_to_the_bit(tmp_path: Path, phase: str, save: object) -> None:
    config = TrainConfig(epochs=4, batch_tokens=40, lr=1e-2, warmup=2, val_fraction=0.2,
                         patience=5, dropout=0.1)
    documents = TEXTS if phase == "pretrain" else DIALOGUES
    straight = small_llm()
    Trainer(straight, config, phase).fit(documents)
    stopped = small_llm()
    Trainer(stopped, config, phase).fit(
        documents, should_stop=lambda: stopped.training_state.step >= 7)
    assert 0 < stopped.training_state.step < straight.training_state.step
    resumed = load_model_auto(save(stopped, tmp_path / "m"))      # type: ignore[operator]
    Trainer(resumed, config, phase).fit(documents)
    straight.training_state.seconds = resumed.training_state.seconds = 0.0
    assert_same(straight, resumed)


def test_an_independent_reader_reads_the_same(tmp_path: Path) -> None:
    llm = small_llm(seed=3)
    Trainer(llm, TrainConfig(epochs=1, val_fraction=0.2)).fit(TEXTS)
    for number, one in enumerate((llm, small_llm(), tiny_llm(), tiny_llm(optimizer=False))):
        path = save_model_binary(one, tmp_path / f"{number}.bin")
        compare_with_independent(one, independent_reader.read(str(path)))


def compare_with_independent(llm: LLM, model: independent_reader.Model) -> None:
    arena = llm.gpt.arena
    assert model.config == llm.config.to_dict()
    assert model.words == llm.tokenizer.words
    assert model.scores == llm.tokenizer.to_state()["scores"]
    assert model.training_state == llm.training_state.to_dict()
    assert model.metadata == llm.metadata
    assert [layer["type"] for layer in model.layers] == [
        layer.type for layer in llm.gpt.layer_records()]
    found = {"data": model.tensors}
    if llm.optimizer is None:
        assert model.optimizer is None and not model.adam_m
    else:
        assert model.optimizer == llm.optimizer.to_dict()
        found |= {"m": model.adam_m, "v": model.adam_v}
    for name, tensors in found.items():
        for entry in arena.entries:
            numbers = np.frombuffer(tensors[entry.name], np.float32)
            assert same_bits(numbers, arena.view(entry.name, getattr(arena, name)).reshape(-1))
            assert model.shapes[entry.name] == entry.shape


# Files of earlier versions

@pytest.mark.parametrize("name", ["tiny_v1.bin", "tiny_v1.json"])
def test_the_file_of_the_first_version_still_loads(name: str) -> None:
    assert_same(tiny_llm(), load_model_auto(DATA / name))
    assert describe(DATA / name, verify=True)["verified"]


def test_the_weights_of_the_first_version_still_load() -> None:
    path = DATA / "tiny_v1_weights.bin"
    assert_same(tiny_llm(optimizer=False), load_model_auto(path), optimizer=False)
    assert same_bits(load_model_auto(path, training=False).gpt.arena.data,
                     tiny_llm().gpt.arena.data)


def test_the_golden_file_holds_known_values() -> None:
    model = independent_reader.read(str(DATA / "tiny_v1.bin"))
    wte = model.tensors["wte.weight"]
    assert struct.pack("<f", wte[0]) == b"\0\0\0\x80" and struct.pack("<f", wte[1]) == b"\1\0\0\0"
    assert wte[5] == pytest.approx(math.sin(6), abs=1e-7)
    assert model.adam_m["ln_f.bias"][1] == pytest.approx(
        model.tensors["ln_f.bias"][1] ** 2 / 10, rel=1e-5)
    assert model.words[262:] == WORDS and model.scores[1] == -1.6
    assert model.optimizer is not None and model.optimizer["step_count"] == 412
    assert model.training_state["phase"] == "finetune"
    assert load_model_binary(DATA / "tiny_v1.bin").gpt.arena.view("wte.weight")[2, 1] == wte[5]


# Damage

def code_of(path: Path, *, training: bool = True) -> str:
    """The code of the error that loading gives; "none" where it gives none."""
    try:
        load_model_auto(path, training=training)
    except CheckpointError as error:
        assert str(path) in str(error) and "expected" in str(error) and "\n" not in str(error)
        return error.code
    return "none"


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


@pytest.mark.parametrize(("name", "step"), [("tiny_v1_weights.bin", 1), ("tiny_v1.bin", 13)])
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
            file.write(whole[at:at + 1])
    assert missed == []
    assert code_of(path) == "none"                  # the test itself can fail


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


@pytest.mark.parametrize(("change", "code"), [
    ({12: 1, 15: 4}, "damaged"),                    # byte order
    ({16: 128}, "damaged"),                         # size of the header
    ({20: 0}, "damaged"), ({23: 255}, "damaged"),   # number of records
    ({31: 255}, "damaged"),                         # length of the file
    ({32: 128}, "damaged"), ({47: 255}, "damaged"),  # place of the table
    ({52: 1}, "version"),                           # feature bits
    ({56: 1}, "damaged"),                           # reserved
])
def test_headers_that_lie(tiny: Path, change: dict[int, int], code: str) -> None:
    rewrite(tiny, change)
    assert code_of(tiny) == code


def rebuilt(path: Path, change: object) -> None:
    """Write the file again with its list of (record, payload) changed; all checksums right."""
    with BinaryFile(path) as file:
        pairs = [(record, file.payload(record)) for record in file.records]
    pairs = change(pairs)                           # type: ignore[operator]
    records, size = place([replace(record, length=len(data)) for record, data in pairs])
    records = [replace(record, crc=zlib.crc32(data))
               for record, (_, data) in zip(records, pairs, strict=True)]
    content = bytearray(size)
    front = pack_front(records, size)
    content[:len(front)] = front
    for record, (_, data) in zip(records, pairs, strict=True):
        content[record.offset:record.offset + len(data)] = data
    path.write_bytes(content)


def changed(kind: Kind, **fields: object):
    """A change of the first record of a kind: payload=bytes, or fields of the record."""
    def change(pairs: list) -> list:
        at = next(i for i, (record, _) in enumerate(pairs) if record.kind == kind)
        values = dict(fields)
        record, data = pairs[at]
        pairs[at] = (replace(record, **{k: v for k, v in values.items() if k != "payload"}),
                     values.get("payload", data))
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
    return [*pairs[:at], pairs[at + 1], pairs[at], *pairs[at + 2:]]


def with_record(**fields: object):
    return lambda pairs: [*pairs, (Record(length=0, **fields), b"x")]     # type: ignore[arg-type]


LIES = {
    "nothing changed": (lambda pairs: pairs, "none"),
    "optional record": (with_record(kind=99, name="future", flags=1), "none"),
    "unknown record": (with_record(kind=99, name="future"), "version"),
    "unknown flag": (with_record(kind=99, name="future", flags=3), "version"),
    "other type": (changed(Kind.TENSOR, dtype=2, payload=bytes(272 * 4)), "version"),
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
    "another graph": (changed(Kind.CONFIG, payload=b'{"graph": "llama", "config": {}}'),
                      "version"),
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
    "optimizer betas": (changed(Kind.OPTIMIZER, payload=b'{"betas": [2, 3, 4], "eps": 1, '
                                b'"weight_decay": 0, "step_count": 1}'), "damaged"),
    "layer of another type": (changed(Kind.LAYER, payload=b'{"name": "x"}'), "damaged"),
    "vocabulary empty": (changed(Kind.VOCABULARY, payload=b""), "damaged"),
    "vocabulary huge": (changed(Kind.VOCABULARY, payload=b"\xff" * 64), "damaged"),
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie(tiny: Path, name: str) -> None:
    change, code = LIES[name]
    rebuilt(tiny, change)
    assert code_of(tiny) == code


@pytest.mark.parametrize("change", [
    lambda words, scores: (["x", *words[1:]], scores),          # other special tokens
    lambda words, scores: ([*words[:-1], words[-2]], scores),   # a word twice
    lambda words, scores: ([*words[:-1], ""], scores),
    lambda words, scores: (words, [*scores[:-1], math.nan]),
    lambda words, scores: (words + [f"w{i}" for i in range(99)], scores + [-1.0] * 99),
])
def test_vocabularies_that_lie(tiny: Path, change: object) -> None:
    llm = tiny_llm()
    words, scores = change(llm.tokenizer.words,                 # type: ignore[operator]
                           llm.tokenizer.to_state()["scores"])
    text = "".join(words).encode()
    starts = np.cumsum([0] + [len(word.encode()) for word in words]).astype("<u4")
    payload = struct.pack("<IIQ", len(words), 262, len(text)) + np.array(
        scores, "<f8").tobytes() + starts.tobytes() + text
    rebuilt(tiny, changed(Kind.VOCABULARY, payload=payload))
    assert code_of(tiny) == "damaged"


def test_records_out_of_place_are_noticed(tiny: Path) -> None:
    """Overlaps, holes and wrong order, with every checksum right."""
    data = tiny.read_bytes()
    header = parse_header(tiny, data[:64], len(data))
    table = data[64:64 + header.table_length]
    records = parse_table(tiny, header, table)
    for move in (-64, 64, 1, 1 << 60):
        moved = [*records[:5], replace(records[5], offset=records[5].offset + move), *records[6:]]
        front = pack_front(moved, len(data))
        tiny.write_bytes(front + data[len(front):])
        assert code_of(tiny) == "damaged"


def test_what_json_cannot_hold_is_named(tmp_path: Path) -> None:
    llm = tiny_llm()
    for value in (math.inf, {1, 2}, object()):
        llm.metadata = {"x": value}
        with pytest.raises(CheckpointError, match="metadata that JSON cannot hold") as info:
            save_model_binary(llm, tmp_path / "x.bin")
        assert info.value.code == "write"
    llm.metadata = {"x": np.float32(1.5), "y": np.arange(2)}
    save_model_binary(llm, tmp_path / "x.bin")
    assert load_model_binary(tmp_path / "x.bin").metadata == {"x": 1.5, "y": [0, 1]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.bin"]


def test_size_a_parameter(tmp_path: Path) -> None:
    llm = small_llm(n_embd=128, n_layer=4)
    Trainer(llm, TrainConfig(epochs=1)).fit(TEXTS)
    path = save_model_binary(llm, tmp_path / "m.bin")
    assert path.stat().st_size < 12.2 * GPT(llm.config).n_parameters
