"""Format v1: what is saved comes back to the bit, here and in a reader of the specification."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import independent_reader
import numpy as np
import pytest
from checkpoint_helpers import assert_same, same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_fixtures import DATA, WORDS, tiny_llm
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt import kernels
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import TrainConfig
from cgpt.errors import CheckpointError
from cgpt.llm import LLM, load_model_auto, load_model_binary
from cgpt.models.gpt2 import GPT
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.trainer import Trainer


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


def test_for_chat_the_weights_are_read_only(tiny: Path) -> None:
    llm = load_model_binary(tiny, training=False)
    data = llm.gpt.arena.data
    assert not data.flags.writeable
    assert data.ctypes.data % 64 == 0
    assert llm.optimizer is None and llm.best_weights is None
    assert_same(tiny_llm(optimizer=False), llm)


def test_saving_over_the_loaded_file_keeps_what_was_loaded(tmp_path: Path) -> None:
    path = save_model_binary(small_llm(seed=1), tmp_path / "m.bin")
    loaded = load_model_binary(path, training=False)
    before = loaded.gpt.arena.data.copy()
    save_model_binary(small_llm(seed=2), path)
    assert same_bits(loaded.gpt.arena.data, before)
    save_model_binary(loaded, path)  # the old weights over the new file
    assert same_bits(load_model_binary(path).gpt.arena.data, before)


def test_progress_is_told_once_a_layer(tiny: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    load_model_binary(tiny, progress=lambda i, n, layer: calls.append((i, n, layer.type)))
    assert calls == [(1, 4, "Embedding"), (2, 4, "Block"), (3, 4, "LayerNorm"), (4, 4, "TiedHead")]


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_training_goes_on_to_the_bit(tmp_path: Path, phase: str, save: object, stop: int) -> None:
    """Schedule, dropout, order, accumulation, early stopping and best weights; other threads."""
    config = TrainConfig(
        epochs=4,
        batch_tokens=24,
        grad_accum=2,
        lr=1e-2,
        warmup=2,
        val_fraction=0.2,
        patience=2,
        dropout=0.1,
    )
    documents = TEXTS if phase == "pretrain" else DIALOGUES
    straight = small_llm()
    before = kernels.get_num_threads()
    try:
        kernels.set_num_threads(1)
        Trainer(straight, config, phase).fit(documents)
        stopped = small_llm()
        Trainer(stopped, config, phase).fit(
            documents, should_stop=lambda: stopped.training_state.step >= stop
        )
        assert 0 < stopped.training_state.step < straight.training_state.step
        resumed = load_model_auto(save(stopped, tmp_path / "m"))  # type: ignore[operator]
        kernels.set_num_threads(3)
        Trainer(resumed, config, phase).fit(documents)
    finally:
        kernels.set_num_threads(before)
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
        layer.type for layer in llm.gpt.layer_records()
    ]
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
    assert same_bits(
        load_model_auto(path, training=False).gpt.arena.data, tiny_llm().gpt.arena.data
    )


def test_the_golden_file_holds_known_values() -> None:
    model = independent_reader.read(str(DATA / "tiny_v1.bin"))
    wte = model.tensors["wte.weight"]
    assert struct.pack("<f", wte[0]) == b"\0\0\0\x80" and struct.pack("<f", wte[1]) == b"\1\0\0\0"
    assert wte[5] == (6 * 7919 % 10007 - 5003) / 8192
    assert model.adam_m["ln_f.bias"][1] == pytest.approx(
        model.tensors["ln_f.bias"][1] ** 2 / 10, rel=1e-6
    )
    assert model.words[262:] == WORDS and model.scores[1] == -1.6
    assert model.optimizer is not None and model.optimizer["step_count"] == 412
    assert model.training_state["phase"] == "finetune"
    assert load_model_binary(DATA / "tiny_v1.bin").gpt.arena.view("wte.weight")[2, 1] == wte[5]


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


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda one: (
        st.lists(one, max_size=4)
        | st.dictionaries(
            st.text(max_size=3)
            | st.integers(0, 2)
            | st.booleans()
            | st.sampled_from(["data", "1", "true", "crc32", "shape"]),
            one,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON, depth=st.sampled_from([0, 0, 30, 58, 61, 62, 63, 64, 65, 80, 3000]))
def test_what_is_saved_can_be_read(
    tmp_path: Path, save: Callable[..., Path], value: object, depth: int
) -> None:
    """Metadata as odd as can be is refused before anything is written, or comes back."""
    for _ in range(depth):
        value = [value]
    llm = tiny_llm(optimizer=False)
    llm.metadata = {"x": value}
    try:
        path = save(llm, tmp_path / "m")
    except CheckpointError as error:
        assert error.code == "write" and not isinstance(value, (int, str))
        return
    assert json.dumps(load_model_auto(path).metadata) == json.dumps(llm.metadata)


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_no_file_is_saved_that_is_refused_when_it_is_read(
    tmp_path: Path, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more words, or more JSON, than a reader takes memory for."""
    llm = small_llm(n_embd=2, n_layer=1, n_head=1, vocab_size=20_000)
    llm.tokenizer = Tokenizer([chr(0x4E00 + n) for n in range(15_000)], [-9.0] * 15_000)
    save(llm, tmp_path / "m")
    assert load_model_auto(tmp_path / "m").tokenizer.to_state() == llm.tokenizer.to_state()
    old = (tmp_path / "m").read_bytes()
    monkeypatch.setattr("cgpt.fileio.strict_json.PARSED_ROOM", 1_000_000)
    with pytest.raises(CheckpointError, match=r"in a file of this size.*wider") as info:
        save(llm, tmp_path / "m")
    assert info.value.code == "write" and (tmp_path / "m").read_bytes() == old
    with pytest.raises(CheckpointError, match="damaged"):
        load_model_auto(tmp_path / "m")
    llm = tiny_llm()
    llm.metadata = {"x": [[]] * 20_000}
    with pytest.raises(CheckpointError, match="shorten metadata"):
        save(llm, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_size_a_parameter(tmp_path: Path) -> None:
    llm = small_llm(n_embd=128, n_layer=4)
    Trainer(llm, TrainConfig(epochs=1)).fit(TEXTS)
    path = save_model_binary(llm, tmp_path / "m.bin")
    assert path.stat().st_size < 12.2 * GPT(llm.config).n_parameters
