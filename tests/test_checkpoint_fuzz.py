"""Files changed at random and one bit at a time: refused for what they are, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkpoint_helpers import code_of, write_signed
from conftest import Counted, asked_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_fixtures import DATA

from cgpt.errors import CheckpointError
from cgpt.fileio._codec import crc32
from cgpt.fileio.binary_file import BinaryFile
from cgpt.fileio.format_v1 import Kind, Record
from cgpt.llm import load_model_auto, load_model_binary

FILES = ("tiny_v1.bin", "tiny_v1.json", "tiny_v1_int8.bin", "tiny_v1_float16.bin")
FUZZ = Path(__file__).parent / "fuzz"


def refusal(path: Path, *, training: bool = True) -> str:
    """The code of the refusal, "none" for a load; without the sentence's parts being looked at."""
    try:
        (load_model_binary if path.suffix == ".bin" else load_model_auto)(path, training=training)
    except CheckpointError as error:
        return error.code
    return "none"


def bits_of(at: int, byte_in_payload: bool) -> Sequence[int]:
    """Which bits of a byte are flipped before a load: of a payload's bytes one, in turn."""
    return (at % 8,) if byte_in_payload else range(8)


@pytest.mark.parametrize("part", range(4))
def test_every_flipped_bit_is_noticed(tmp_path: Path, counted: Counted, part: int) -> None:
    """Each is refused: bits of the front by loads, those of payloads by their checksum, and one of
    each of their bytes by a load. A quarter of the bytes at a time."""
    whole = (DATA / "tiny_v1_weights.bin").read_bytes()
    with BinaryFile(DATA / "tiny_v1_weights.bin") as model:
        spans = {at: record for record in model.records for at in range(record.offset, record.end)}
    path = tmp_path / "flipped.bin"
    path.write_bytes(whole)
    loads = noticed = 0
    with open(path, "r+b", buffering=0) as file:
        for at in range(part, len(whole), 4):
            for bit in bits_of(at // 4, at in spans):
                file.seek(at)
                file.write(bytes([whole[at] ^ 1 << bit]))
                assert refusal(path) == "damaged", (at, bit)
                loads += 1
            file.seek(at)
            file.write(whole[at : at + 1])
            if at in spans:
                noticed += sum_of_noticed(whole, spans[at], at)
    assert noticed == 8 * sum(at in spans for at in range(part, len(whole), 4))
    counted("flipped bits of tiny_v1_weights.bin, by loads", loads)
    counted("flipped bits of tiny_v1_weights.bin, by the checksum of their record", noticed)
    assert refusal(path) == "none"


def sum_of_noticed(whole: bytes, record: Record, at: int) -> int:
    """How many of the eight single flips at this place change the record's checksum."""
    payload = bytearray(whole[record.offset : record.end])
    place, found = at - record.offset, 0
    assert crc32(payload) == record.crc
    for bit in range(8):
        payload[place] ^= 1 << bit
        found += crc32(payload) != record.crc
        payload[place] ^= 1 << bit
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_noticed(tmp_path: Path, counted: Counted, name: str) -> None:
    whole = (DATA / name).read_bytes()
    path = tmp_path / f"cut{Path(name).suffix}"
    path.write_bytes(whole)
    codes = set()
    with open(path, "r+b") as file:
        sizes = range(0, len(whole), 1 if len(whole) < 30_000 else 7)
        for size in reversed(sizes):
            file.truncate(size)
            codes.add(refusal(path))
    assert codes == {"damaged"}
    counted(f"truncations of {name}" + (", every 7th" if sizes.step == 7 else ""), len(sizes))


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """A few changes: (kind, place as a part of the file, bytes)."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(("overwrite", "insert", "remove", "repeat")),
                st.floats(0, 1),
                st.binary(min_size=1, max_size=20),
            ),
            min_size=1,
            max_size=4,
        )
    )


def edited(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in changes:
        at = int(where * len(data))
        if kind == "overwrite":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + len(new) :]
        else:
            data = data[:at] + data[max(0, at - len(new)) :]
    return data


@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=edits())
def test_mutations_are_refused(
    tmp_path: Path, counted: Counted, name: str, changes: list[tuple[str, float, bytes]]
) -> None:
    whole = (DATA / name).read_bytes()
    data = edited(whole, changes)
    path = tmp_path / "m"
    path.write_bytes(data)
    if data == whole:
        assert code_of(path) == "none"
    else:
        assert code_of(path) in ("damaged", "foreign", "version")
        assert code_of(path, training=False) in ("damaged", "foreign", "version", "none")
    counted("files with random edits")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(number=st.integers(0, 30), changes=edits())
def test_payloads_that_lie_with_right_checksums(
    tmp_path: Path, counted: Counted, number: int, changes: list[tuple[str, float, bytes]]
) -> None:
    """As an attacker would: what is inside is changed and everything is signed anew."""
    path = tmp_path / "m.bin"
    with BinaryFile(DATA / "tiny_v1.bin") as file:
        pairs = [(record, bytes(file.payload(record))) for record in file.records]
    number %= sum(record.kind < Kind.TENSOR for record, _ in pairs)
    pairs[number] = (pairs[number][0], edited(pairs[number][1], changes))
    write_signed(path, pairs)
    assert code_of(path) in ("none", "damaged", "version")
    assert code_of(path, training=False) in ("none", "damaged", "version")
    counted("payloads changed and signed anew")


# Files that would take much memory


def big(n: int, *parts: bytes) -> bytes:
    return parts[0] + parts[1] * n + parts[2]


HUGE = {
    "metadata of lists": (Kind.METADATA, big(1_500_000, b'{"a":[', b"[],", b"0]}")),
    "metadata of objects": (Kind.METADATA, big(1_500_000, b'{"a":[', b"{},", b"0]}")),
    "metadata of numbers": (Kind.METADATA, big(4_000_000, b'{"a":[', b"1.5,", b"0]}")),
    "metadata of text": (Kind.METADATA, big(60_000_000, b'{"a":"', b"x", b'"}')),
    "state": (Kind.TRAINING_STATE, big(500_000, b'{"history":[', b'["a",1,2.5,3.5],', b"0]}")),
    "layer": (Kind.LAYER, big(1_000_000, b'{"parameters":[', b'"",', b'""]}')),
    "config": (Kind.CONFIG, big(1_000_000, b'{"config":[', b"{},", b"{}]}")),
    "vocabulary": (Kind.VOCABULARY, b"\xff\xff\xff\0\x06\x01\0\0" + bytes(30_000_000)),
    "deep": (Kind.METADATA, b"[" * 4_000_000),
}


def peak_of_refusal(path: Path) -> int:
    """Bytes that a refused load took at most."""
    tracemalloc.start()
    try:
        assert refusal(path) == "damaged"
        assert refusal(path, training=False) == "damaged"
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HUGE)
def test_a_refused_load_takes_little_memory(tmp_path: Path, counted: Counted, name: str) -> None:
    kind, payload = HUGE[name]
    path = tmp_path / "m.bin"
    with BinaryFile(DATA / "tiny_v1.bin") as file:
        pairs = [(record, bytes(file.payload(record))) for record in file.records]
    at = next(i for i, (record, _) in enumerate(pairs) if record.kind == kind)
    pairs[at] = (pairs[at][0], payload)
    write_signed(path, pairs)
    assert peak_of_refusal(path) < 64e6 + path.stat().st_size
    counted("files made to take much memory")


@pytest.mark.parametrize("part", ["metadata", "vocab", "layers", "training_state"])
def test_a_refused_json_file_takes_little_memory(
    tmp_path: Path, counted: Counted, part: str
) -> None:
    path = tmp_path / "m.json"
    found = json.loads((DATA / "tiny_v1.json").read_text("ascii"))
    found[part] = "HERE"
    hostile = b"[" + b"[[],{}]," * 700_000 + b"0]"
    path.write_bytes(json.dumps(found).encode().replace(b'"HERE"', hostile))
    assert peak_of_refusal(path) < 64e6 + path.stat().st_size
    counted("files made to take much memory")


# Guided by coverage

FUZZED = {
    "binary": 500,
    "adapter": 500,
    "json": 1000,
    "data": 1000,
    "import": 1000,
    "cache": 1000,
    "tokenizer": 1000,
    "session": 1000,
}


@pytest.mark.skipif(not asked_for("atheris"), reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("target", FUZZED)
def test_fuzzed_for_a_fixed_number_of_inputs(tmp_path: Path, counted: Counted, target: str) -> None:
    runs = FUZZED[target]
    done = subprocess.run(
        [sys.executable, str(FUZZ / "fuzz.py"), target, f"-runs={runs}", "-seed=1", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {runs} runs" in done.stderr
    counted(f"inputs made by the fuzzer of {target}", runs)


@pytest.mark.parametrize("target", FUZZED)
def test_the_fuzzed_functions_take_anything(target: str) -> None:
    """The same functions on seeds and on bytes that are none, where atheris is missing too."""
    sys.path.insert(0, str(FUZZ))
    try:
        from targets import SEEDS, TARGETS
    finally:
        sys.path.remove(str(FUZZ))
    seeds = SEEDS[target]()
    assert seeds
    for seed in (*seeds, b"", b"\0" * 100, b"{", b"\xff\xfe"):
        TARGETS[target](seed)
        TARGETS[target](seed[: len(seed) // 2])
