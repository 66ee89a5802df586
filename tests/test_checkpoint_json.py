"""JSON: exact to the bit, readable by any program, and changes are noticed."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_helpers import assert_same, code_of
from conftest import Counted
from make_fixtures import DATA, WORDS, tiny_llm
from small_llm import small_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CheckpointError
from cgpt.fileio import strict_json
from cgpt.fileio._codec import format_floats
from cgpt.fileio.strict_json import PIECE, parse_floats, read_floats
from cgpt.llm import load_model_auto, load_model_binary, load_model_json


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_model_json(tiny_llm(), tmp_path / "tiny.json")


# Numbers


def round_trip(values: np.ndarray) -> str:
    text = format_floats(values)
    back = np.empty_like(values)
    parse_floats(memoryview(text)[:-1], back)
    assert (back.view(np.uint32) == values.view(np.uint32)).all()
    # What a reader gets that parses to float64 first, as Python and JavaScript do.
    doubles = np.array(json.loads(f"[{text.decode()[:-1]}]"))
    assert (doubles.astype(np.float32).view(np.uint32) == values.view(np.uint32)).all()
    return text.decode()


def test_any_float32_comes_back_to_the_bit() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    round_trip(values[np.isfinite(values)])
    powers = np.float32(2.0) ** np.arange(-149, 128, dtype=np.float32)
    tens = np.array([float(f"1e{k}") for k in range(-45, 39)], np.float32)
    edges = np.concatenate(
        [
            powers,
            tens,
            np.nextafter(powers, np.float32(0)),
            np.nextafter(tens, np.float32(9)),
            np.arange(16777200, 16777250, dtype=np.float32),
        ]
    )
    round_trip(np.concatenate([edges, -edges]))


def test_texts_are_the_short_ones() -> None:
    values = np.array(
        [
            0.0,
            -0.0,
            1,
            -1,
            0.1,
            0.25,
            123456.7,
            1e-5,
            2.5e-6,
            3.4028235e38,
            1e-45,
            0.99999994,
            16777216,
            12.5,
            9.9999998e-3,
        ],
        np.float32,
    )
    assert round_trip(values) == (
        "0.0,-0.0,1.0,-1.0,0.1,0.25,1.234567e5,0.00001,2.5e-6,3.4028235e38,1e-45,0.99999994,"
        "1.6777216e7,1.25e1,0.01,"
    )


def digits_of(text: str) -> tuple[str, int]:
    """(digits without zeros at either end, the power of ten of the last one)."""
    number, _, power = text.lstrip("-").partition("e")
    whole, _, fraction = number.partition(".")
    digits = (whole + fraction).rstrip("0")
    return digits.lstrip("0"), int(power or 0) - len(fraction) + len(whole + fraction) - len(digits)


def test_digits_are_those_of_numpy() -> None:
    """The fewest that round back, and of these the nearest: 100,000 patterns and the edges."""
    bits = np.random.default_rng(1).integers(0, 1 << 31, 100_000, dtype=np.uint32)
    bits[: 254 * 4] = (
        np.arange(1, 255, dtype=np.uint32)[:, None] * (1 << 23)
        + np.array([0, 1, (1 << 23) - 1, 2], np.uint32)
    ).ravel()
    bits[2000:3000] = np.arange(1, 1001)  # the least numbers of all
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    for text, value in zip(format_floats(values).decode().split(","), values, strict=False):
        assert digits_of(text) == digits_of(np.format_float_scientific(value, trim="-"))


def test_the_one_number_that_needs_a_digit_more() -> None:
    """Its shortest decimal is so near to a middle that float64 rounds it across."""
    value = np.array([0x15AE43FD, 0x95AE43FD], np.uint32).view(np.float32)
    assert np.format_float_scientific(value[0]) == "7.038531e-26"
    assert np.float32(float("7.038531e-26")) != value[0]
    assert round_trip(value) == "7.0385307e-26,-7.0385307e-26,"


def test_not_finite_numbers_have_no_text() -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="not finite"):
            format_floats(np.array([1, value], np.float32))
    assert format_floats(np.array([], np.float32)) == b""


def test_decimals_of_any_length_are_rounded_as_python_does() -> None:
    """To float64 and then to float32: hard cases near the middle of two numbers, long texts."""
    rng = np.random.default_rng(3)
    texts = [repr(float(value)) for value in 10.0 ** rng.uniform(-60, 38.5, 20_000)]
    texts += [
        f"{digits}e{power}"
        for digits, power in zip(
            rng.integers(0, 1 << 63, 20_000), rng.integers(-90, 19, 20_000), strict=True
        )
    ]
    # Exact middles of two float64, and beside them.
    middles = [2 * int(half) + 1 << 3 for half in rng.integers(1 << 52, 1 << 53, 3000)]
    texts += [f"{middle}{tail}" for middle in middles for tail in ("", ".0001", "e-30")]
    texts += [
        "0." + "0" * 50 + "123456789012345678901234567890",
        "1" * 30 + "e-20",
        "0e99999",
        "-0",
        "1e-99999",
        "-0.0e5",
        "123456789012345678901234567890.5",
        "5e-324",
        "7e-46",
    ]
    found = np.empty(len(texts), np.float32)
    parse_floats(",".join(texts).encode(), found)
    wanted = np.array([float(text) for text in texts]).astype(np.float32)
    assert (found.view(np.uint32) == wanted.view(np.uint32)).all()


@pytest.mark.parametrize(
    "text",
    [
        b"1,2",
        b"1,2,3,4",
        b"1,,2",
        b"1,2,",
        b",1,2",
        b"",
        b"1,2,x",
        b"1,2,1e99",
        b"01,2,3",
        b"1,2,+3",
        b"1,2,nan",
        b"1,2,Infinity",
        b"1 2,3,4",
        b"1,2,[3]",
        b"1.2.3,4,5",
        b"--1,2,3",
        b"1,2,3.",
        b"1,2,true",
        b'1,2,"3"',
        b"1,2," + b"9" * 5000,
    ],
)
def test_numbers_that_are_none(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_floats(memoryview(text), np.empty(3, np.float32))


def test_long_lists_are_read_in_pieces() -> None:
    values = np.random.default_rng(2).standard_normal(3 * PIECE + 5).astype(np.float32)
    text = b"".join(format_floats(values[i : i + PIECE]) for i in range(0, len(values), PIECE))
    assert len(text) > 1 << 20
    back = np.empty_like(values)
    parse_floats(memoryview(text)[:-1], back)
    assert (back == values).all()
    spaced = text[:-1].replace(b",", b" ,\n\t ")
    parse_floats(memoryview(spaced), back)
    assert (back == values).all()


def test_numbers_are_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"1,2.5, -3e1 ,4,50000"
    monkeypatch.setattr(strict_json, "_NUMBERS_WINDOW", 8)
    found = np.empty(5, np.float32)
    read_floats(lambda start, size: bytearray(text[start : start + size]), 0, len(text), found)
    assert found.tolist() == [1, 2.5, -30, 4, 50000]
    for wrong in (
        b"1,2,3,4",
        b"1,2,3,4,5,6",
        b"1,2,,3,4,5",
        b",1,2,3,4,5",
        b"1,2,3,4,5,",
        b"1" * 9,
        b"1,2,3,4 5,6",
        b"1,2,3,4,x",
    ):
        with pytest.raises(ValueError):
            read_floats(
                lambda start, size, text=wrong: bytearray(text[start : start + size]),
                0,
                len(wrong),
                found,
            )


# Files


@pytest.mark.parametrize("window", [50, 64, 99, 1000])
def test_files_are_looked_through_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    llm = tiny_llm()
    llm.metadata = {
        "data": [1, 2],
        "b": [{"data": [0.5]}],
        "d": {"data": ["]", 1]},
        "e": {"data": 3},
        "x" * 300: {"data": [1, "x" * 500, 2]},
        "f": '"data": [1' * 30,
    }
    path = save_model_json(llm, tmp_path / "m.json")
    found = json.loads(path.read_text(encoding="ascii"))
    monkeypatch.setattr(strict_json, "_WINDOW", window)
    monkeypatch.setattr(strict_json, "_LONGEST_OPEN", 40)
    assert_same(llm, load_model_json(path))
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    assert_same(llm, load_model_json(path))


def test_round_trip_is_exact(tiny: Path) -> None:
    assert_same(tiny_llm(), load_model_json(tiny))
    assert_same(tiny_llm(), load_model_auto(tiny))
    assert_same(tiny_llm(optimizer=False), load_model_json(tiny, training=False), optimizer=False)


def test_by_way_of_json_the_binary_file_is_the_same(tiny: Path, tmp_path: Path) -> None:
    a = save_model_binary(tiny_llm(), tmp_path / "a.bin")
    b = save_model_binary(load_model_json(tiny), tmp_path / "b.bin")
    assert a.read_bytes() == b.read_bytes()


def test_layout_for_other_programs(tiny: Path) -> None:
    text = tiny.read_text(encoding="ascii")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["version"] == 1 and found["config"] == tiny_llm().config.to_dict()
    assert found["vocab"]["words"] == tiny_llm().tokenizer.words
    assert found["vocab"]["words"][262:] == WORDS and found["vocab"]["scores"][262] == -1.5
    assert found["vocab"]["scores"][:262] == [None] * 262
    assert [layer["type"] for layer in found["layers"]] == [
        "Embedding",
        "Block",
        "LayerNorm",
        "TiedHead",
    ]
    block = found["layers"][1]
    assert block["name"] == "h.0" and "h.0.attn.c_attn.weight" in block["parameters"]
    tensor = block["tensors"]["h.0.attn.c_attn.weight"]
    assert tensor["shape"] == [6, 2] and len(tensor["data"]) == 12
    packed = struct.pack("<12f", *tensor["data"])
    assert f"{zlib.crc32(packed):08x}" == tensor["crc32"]
    assert found["optimizer"]["betas"] == [0.9, 0.95] and found["optimizer"]["step_count"] == 412
    assert found["optimizer"]["m"]["ln_f.bias"]["shape"] == [2]
    assert found["training_state"]["phase"] == "finetune"
    assert found["metadata"]["title"] == "小模型"
    assert math.copysign(1, found["layers"][0]["tensors"]["wte.weight"]["data"][0]) == -1


def test_weights_only(tmp_path: Path) -> None:
    path = save_model_json(tiny_llm(), tmp_path / "w.json", optimizer=False)
    found = json.loads(path.read_text(encoding="ascii"))
    assert found["optimizer"] is None and found["best_weights"] is None
    assert_same(tiny_llm(optimizer=False), load_model_json(path), optimizer=False)


@pytest.mark.parametrize(
    "options",
    [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False, "indent": "\t"}],
)
def test_written_again_by_another_program(tiny: Path, options: dict[str, Any]) -> None:
    found = json.loads(tiny.read_text(encoding="ascii"))
    bom = "\ufeff" if options else ""
    tiny.write_text(bom + json.dumps(found, **options), encoding="utf-8")
    assert_same(tiny_llm(), load_model_auto(tiny))
    found["layers"][0]["tensors"]["wpe.weight"]["data"][3] += 1e-3
    tiny.write_text(json.dumps(found, **options), encoding="utf-8")
    assert code_of(tiny) == "damaged"


def test_texts_that_look_like_tensors_stay_texts(tmp_path: Path) -> None:
    llm = tiny_llm()
    llm.metadata = {
        "data": [1, 2],
        "a": {"data": []},
        "b": [{"data": [0.5]}],
        "c": 'x, "data": [1, 2]',
        "d": {"data": ["]", 1]},
        "e": {"data": [[1], 2]},
        '"data": [1]': [],
        "f": {"data": "00:1"},
    }
    path = save_model_json(llm, tmp_path / "m.json")
    assert load_model_json(path).metadata == llm.metadata
    assert describe(path)["metadata"] == llm.metadata


def test_nan_is_refused_with_the_way_out(tmp_path: Path) -> None:
    llm = tiny_llm()
    llm.gpt.arena.data[5] = math.nan
    with pytest.raises(CheckpointError, match=r"NaN or infinity in the weights.*\.bin") as info:
        save_model_json(llm, tmp_path / "x.json")
    assert info.value.code == "write" and not list(tmp_path.iterdir())
    save_model_binary(llm, tmp_path / "x.bin")
    assert math.isnan(load_model_binary(tmp_path / "x.bin").gpt.arena.data[5])


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = (DATA / "tiny_v1.json").read_bytes()
    path = tmp_path / "cut.json"
    path.write_bytes(whole)
    sizes = {*range(0, 400), *range(400, len(whole), 37), *range(len(whole) - 200, len(whole))}
    codes = set()
    with open(path, "r+b") as file:
        for size in sorted(sizes, reverse=True):
            file.truncate(size)
            codes.add(code_of(path))
    assert codes == {"damaged"}


def test_flipped_bytes_are_noticed(tmp_path: Path) -> None:
    whole = (DATA / "tiny_v1.json").read_bytes()
    path = tmp_path / "flipped.json"
    rng = random.Random(0)
    places = {
        *range(0, 120),
        *range(len(whole) - 40, len(whole)),
        *rng.sample(range(len(whole)), 800),
    }
    codes = {}
    for at in sorted(places):
        for mask in (1 << rng.randrange(8), whole[at] ^ 32 or 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            codes[at, mask] = code_of(path)
    assert {key: code for key, code in codes.items() if code != "damaged"} == {}


def edited(path: Path, change: object) -> None:
    found = json.loads(path.read_text(encoding="ascii"))
    change(found)  # type: ignore[operator]
    path.write_text(json.dumps(found), encoding="ascii")


def tensor(found: dict[str, Any]) -> dict[str, Any]:
    return found["layers"][0]["tensors"]["wpe.weight"]


LIES = {
    "nothing": (lambda f: None, "none"),
    "version": (lambda f: f.update(version=2), "version"),
    "version text": (lambda f: f.update(version="1"), "version"),
    "graph": (lambda f: f.update(graph="llama"), "version"),
    "format": (lambda f: f.update(format="other"), "foreign"),
    "unknown part": (lambda f: f.update(extra=1), "damaged"),
    "no vocab": (lambda f: f.pop("vocab"), "damaged"),
    "no optimizer": (lambda f: f.pop("optimizer"), "damaged"),
    "config": (lambda f: f["config"].update(n_head=3), "damaged"),
    "config too large": (lambda f: f["config"].update(n_embd=4096), "damaged"),
    "config list": (lambda f: f.update(config=[]), "damaged"),
    "words short": (lambda f: f["vocab"]["words"].pop(), "damaged"),
    "words moved": (lambda f: f["vocab"]["words"].reverse(), "damaged"),
    "score text": (lambda f: f["vocab"]["scores"].__setitem__(-1, "x"), "damaged"),
    "word number": (lambda f: f["vocab"]["words"].__setitem__(-1, 5), "damaged"),
    "layers empty": (lambda f: f.update(layers=[]), "damaged"),
    "layers numbers": (lambda f: f.update(layers=[1, 2]), "damaged"),
    "layer of objects": (lambda f: f["layers"][1].update(parameters=[{}]), "damaged"),
    "layer of a number": (lambda f: f["layers"][1].update(parameters=3), "damaged"),
    "layer type": (lambda f: f["layers"][1].update(type="RMSNorm"), "damaged"),
    "layer twice": (lambda f: f["layers"].append(f["layers"][0]), "damaged"),
    "tensor gone": (lambda f: f["layers"][0]["tensors"].pop("wpe.weight"), "damaged"),
    "tensor over": (lambda f: f["layers"][0]["tensors"].update(x=tensor(f)), "damaged"),
    "tensor list": (lambda f: f["layers"][0].update(tensors=[]), "damaged"),
    "shape": (lambda f: tensor(f).update(shape=[2, 4]), "damaged"),
    "data short": (lambda f: tensor(f)["data"].pop(), "damaged"),
    "data long": (lambda f: tensor(f)["data"].append(0), "damaged"),
    "data text": (lambda f: tensor(f)["data"].__setitem__(0, "1"), "damaged"),
    "data nested": (lambda f: tensor(f).update(data=[[1] * 8]), "damaged"),
    "data number": (lambda f: tensor(f).update(data=0), "damaged"),
    "data changed": (lambda f: tensor(f)["data"].__setitem__(0, 0.5), "damaged"),
    "no crc32": (lambda f: tensor(f).pop("crc32"), "damaged"),
    "m gone": (lambda f: f["optimizer"].pop("m"), "damaged"),
    "m short": (lambda f: f["optimizer"]["m"].pop("wpe.weight"), "damaged"),
    "optimizer list": (lambda f: f.update(optimizer=[]), "damaged"),
    "step_count": (lambda f: f["optimizer"].update(step_count=-1), "damaged"),
    "state": (lambda f: f["training_state"].update(step="x"), "damaged"),
    "metadata": (lambda f: f.update(metadata=1), "damaged"),
    "NaN": (lambda f: f["metadata"].update(x=math.nan), "damaged"),
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie(tiny: Path, counted: Counted, name: str) -> None:
    change, code = LIES[name]
    edited(tiny, change)
    assert code_of(tiny) == code
    counted("lies in JSON files", code != "none")
    if name.startswith("layer"):  # that are also described
        with suppress(CheckpointError):
            describe(tiny, verify=True)


def test_writing_and_reading_take_little_memory(tmp_path: Path) -> None:
    llm = small_llm(n_embd=256, n_head=4)
    weights = llm.gpt.arena.data.nbytes
    path = tmp_path / "m.json"
    tracemalloc.start()
    try:
        save_model_json(llm, path)
        assert tracemalloc.get_traced_memory()[1] < 40e6
        tracemalloc.reset_peak()
        load_model_json(path)
        assert tracemalloc.get_traced_memory()[1] < weights + 40e6
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 15e6  # so the bounds above mean something


BASE = """
import sys
import numpy as np
from cgpt import load_model_json, save_model_json
from cgpt.config import GPTConfig
from cgpt.llm import LLM
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW
from cgpt.tokenizers.tokenizer import Tokenizer
if sys.argv[1] == "save":
    words = [chr(0x4e00 + i) for i in range(2700)]
    gpt = GPT(GPTConfig.preset("base"))
    llm = LLM(Tokenizer.from_state({"words": words, "scores": [-8.0] * 2700}), gpt, AdamW(gpt))
    rng = np.random.default_rng(0)
    for array in gpt.arena.require_moments():
        for entry in gpt.arena.entries:
            array[entry.offset:entry.offset + entry.size] = 1e-3 * rng.random(entry.size)
    save_model_json(llm, sys.argv[2])
else:
    load_model_json(sys.argv[2])
# Not ru_maxrss: it begins with what the process that forked this one had.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak of a process")
def test_a_base_model_takes_less_than_300_mb_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    for what in ("save", "load"):
        done = subprocess.run(
            [sys.executable, "-c", BASE, what, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) < 300e6
    assert path.stat().st_size > 300e6


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_the_longest_text_of_a_number_has_room(n: int) -> None:
    """Nine digits behind a sign and four zeros, whatever the number of numbers."""
    values = np.full(n, np.uint32(0xB7601A48)).view(np.float32)
    text = bytes(format_floats(values))
    assert text == b"-0.0000133575595," * n
