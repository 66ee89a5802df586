"""Weights that are stored as float16 or int8: how they are rounded, and that readers agree."""

from __future__ import annotations

import math
from pathlib import Path

import independent_reader
import numpy as np
import pytest
from checkpoint_helpers import code_of, same_bits
from make_fixtures import DATA, rounded_llm, tiny_llm
from small_llm import small_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.loading import load_stored_weights
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CheckpointError, ConfigError
from cgpt.llm import load_model_binary
from cgpt.nn.quantized import GROUPS, dequantize, quantize

WEIGHT_DTYPES = ("float16", "int8")


def in_float64(x: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """(what int8 in groups makes of x, the scale of every number), one group at a time."""
    back, scales = np.zeros(x.shape), np.zeros(x.shape)
    for row in range(x.shape[0]):
        for start in range(0, x.shape[1], group):
            part = x[row, start : start + group].astype(np.float64)
            scale = float(np.float32(np.abs(part).max()) / np.float32(127))
            scales[row, start : start + group] = scale
            if scale:
                back[row, start : start + group] = np.round(part / scale) * scale
    return back, scales


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("columns", [1, 31, 32, 33, 64, 65, 200])
def test_int8_is_the_nearest_multiple_of_the_scale(group: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    x = (rng.standard_normal((17, columns)) * 10.0 ** rng.integers(-6, 3, (17, 1))).astype("f4")
    x[3], x[4, :1] = 0, 1e-44
    q, scales = quantize(x, group)
    assert q.dtype == np.int8 and q.shape == x.shape and q.min() >= -127
    assert scales.shape == (17, -(-columns // group))
    back = np.empty_like(x)
    dequantize(q, scales, group, back)
    wanted, steps = in_float64(x, group)
    # Half a step, and the rounding of x / scale (2 ulp of 127) where it comes to a tie.
    assert (np.abs(back - x.astype(np.float64)) <= steps * (0.5 + 127 * 2.0**-22) + 1e-44).all()
    assert np.mean(np.abs(back - wanted) > steps * 1e-4) < 1e-2
    assert not back[3].any()


def test_large_matrices_are_turned_in_parts() -> None:
    x = np.random.default_rng(0).standard_normal((3, 700_001)).astype("f4")
    q, scales = quantize(x, 32)
    parts = [quantize(x[i : i + 1], 32) for i in range(3)]
    assert (q == np.concatenate([part[0] for part in parts])).all()
    assert (scales == np.concatenate([part[1] for part in parts])).all()


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_what_is_stored_is_what_is_loaded(tmp_path: Path, form: str) -> None:
    llm = small_llm(seed=3)
    path = save_model_binary(llm, tmp_path / "m.bin", optimizer=False, weights=form)
    stored = load_stored_weights(path)
    loaded = load_model_binary(path, training=False)
    trained = load_model_binary(path)
    assert trained.gpt.arena.data.flags.writeable
    for name, value in loaded.gpt.parameters().items():
        assert same_bits(value, trained.gpt.parameters()[name])
    again = load_model_binary(path, training=False, weights="float32")
    assert same_bits(again.gpt.arena.data, trained.gpt.arena.data)
    assert not again.gpt.arena.data.flags.writeable
    # As it is, or as the float32 that it stands for.
    for optimizer in (True, False):
        again = save_model_binary(loaded, tmp_path / "again.bin", optimizer=optimizer)
        assert again.read_bytes() == path.read_bytes()
    again = load_model_binary(save_model_binary(loaded, tmp_path / "f.bin", weights="float32"))
    assert same_bits(again.gpt.arena.data, trained.gpt.arena.data)
    assert stored.keys() == llm.gpt.parameters().keys()
    for name, tensor in stored.items():
        matrix = tensor.data.ndim == 2 and (form == "float16" or name != "wpe.weight")
        assert tensor.data.dtype.name == (form if matrix else "float32")
        assert not tensor.data.flags.writeable and tensor.data.ctypes.data % 64 == 0
        assert (tensor.scales is not None) == (matrix and form == "int8")
        assert tensor.group == (64 if tensor.scales is not None else 0)
        assert same_bits(tensor.floats(), loaded.gpt.parameters()[name])
        error = np.abs(tensor.floats() - llm.gpt.parameters()[name]).max()
        largest = np.abs(llm.gpt.parameters()[name]).max()
        assert error <= largest * (2.0**-11 if form == "float16" else 0.502 / 127)
        assert (error == 0) == (not matrix)
    assert loaded.optimizer is None
    assert describe(path, verify=True)["verified"]


def test_sizes(tmp_path: Path) -> None:
    llm = small_llm(n_embd=256, n_head=4)
    sizes = {
        form: save_model_binary(llm, tmp_path / form, optimizer=False, weights=form).stat().st_size
        for form in ("float32", *WEIGHT_DTYPES)
    }
    assert sizes["float16"] < 0.52 * sizes["float32"]
    assert sizes["int8"] < 0.29 * sizes["float32"]


def test_float32_weights_can_be_taken_as_they_are_too(tmp_path: Path) -> None:
    llm = tiny_llm()
    path = save_model_binary(llm, tmp_path / "m.bin")
    for name, tensor in load_stored_weights(path).items():
        assert same_bits(tensor.data, llm.gpt.parameters()[name]) and tensor.scales is None


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_an_independent_reader_reads_the_same(tmp_path: Path, form: str) -> None:
    for number, llm in enumerate((rounded_llm(), small_llm(seed=5))):
        for group in GROUPS:
            path = save_model_binary(
                llm, tmp_path / f"{number}", optimizer=False, weights=form, group=group
            )
            model = independent_reader.read(str(path))
            assert model.weights == (
                {"form": form} if form == "float16" else {"form": form, "group": group}
            )
            for name, array in load_model_binary(path).gpt.parameters().items():
                assert same_bits(np.frombuffer(model.tensors[name], "f4"), array.reshape(-1))


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_the_golden_file(form: str) -> None:
    path = DATA / f"tiny_v1_{form}.bin"
    wanted, found = rounded_llm(), load_model_binary(path)
    assert found.config == wanted.config
    model = independent_reader.read(str(path))
    for name, array in wanted.gpt.parameters().items():
        back = found.gpt.parameters()[name]
        assert same_bits(np.frombuffer(model.tensors[name], "f4"), back.reshape(-1))
        rounding = array.astype("f2") if form == "float16" else array
        if array.ndim == 1:
            assert same_bits(back, array)
        elif form == "float16":
            assert same_bits(back, rounding.astype("f4"))
        elif name != "wpe.weight":
            groups = np.abs(array[:, :32]).max(axis=1) / np.float32(127)
            assert (np.abs(back - array)[:, :32] <= groups[:, None] * 0.5001).all()


def test_a_golden_file_written_again_has_the_same_bytes(tmp_path: Path) -> None:
    for form in WEIGHT_DTYPES:
        path = save_model_binary(
            rounded_llm(), tmp_path / form, optimizer=False, weights=form, group=32
        )
        assert path.read_bytes() == (DATA / f"tiny_v1_{form}.bin").read_bytes()


def test_options_that_cannot_be(tmp_path: Path) -> None:
    for pattern, options in (
        ("optimizer=False", {"weights": "int8"}),
        ("unknown form", {"weights": "int4", "optimizer": False}),
        ("32 or 64", {"weights": "int8", "optimizer": False, "group": 48}),
    ):
        with pytest.raises(ConfigError, match=pattern):
            save_model_binary(tiny_llm(), tmp_path / "m", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_numbers_that_a_form_lacks_are_refused(tmp_path: Path, form: str) -> None:
    llm = rounded_llm()
    for value in (math.nan, math.inf, 7e4 if form == "float16" else math.nan):
        llm.gpt.arena.data[7] = value
        with pytest.raises(CheckpointError, match=r"wte\.weight.*float32") as info:
            save_model_binary(llm, tmp_path / "m", optimizer=False, weights=form)
        assert info.value.code == "write" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path: Path, form: str) -> None:
    path = tmp_path / "m.bin"
    data = bytearray((DATA / f"tiny_v1_{form}.bin").read_bytes())
    for record in describe(DATA / f"tiny_v1_{form}.bin")["records"]:
        if record["kind"] in ("tensor", "scale"):
            at = record["offset"] + record["bytes"] // 2
            data[at] ^= 16
            path.write_bytes(data)
            assert code_of(path) == code_of(path, training=False) == "damaged"
            with pytest.raises(CheckpointError, match=record["name"]):
                load_stored_weights(path)
            data[at] ^= 16


def test_json_of_rounded_weights_is_float32(tmp_path: Path) -> None:
    loaded = load_model_binary(DATA / "tiny_v1_int8.bin")
    path = save_model_json(loaded, tmp_path / "m.json", optimizer=False)
    assert code_of(path) == "none"
