"""LoRA: its formulas, what stays, its small file, the model it belongs to, going on to the bit."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import independent_reader
import numpy as np
import pytest
import reference as ref
from checkpoint_helpers import same_bits
from make_fixtures import DATA, adapter_llm, rustgpt_llm
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt import get_num_threads, set_num_threads
from cgpt.checkpoint import binary_writer, loading
from cgpt.checkpoint.adapter import settings_to_save
from cgpt.checkpoint.compare import compare_models
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import TrainConfig
from cgpt.errors import CheckpointError, ConfigError
from cgpt.fileio import strict_json
from cgpt.fileio.format_v1 import place as placed
from cgpt.llm import LLM, load_model_auto, load_weights, load_with_adapter
from cgpt.models.rustgpt import RustGPT
from cgpt.optim.lora import Lora
from cgpt.optim.registry import make_optimizer
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.trainer import Trainer

CONFIG = TrainConfig(epochs=4, batch_tokens=64, warmup=2, lr=1e-2, lora_rank=3, lora_alpha=6.0)
LAYERS = ("h.*.c_attn.*", "h.1.mlp.*")


def changed(**changes: object) -> TrainConfig:
    return TrainConfig(**{**CONFIG.to_dict(), **changes})


def base_model(tmp_path: Path) -> LLM:
    """A model that is saved as base.bin."""
    llm = small_llm()
    Trainer(llm, TrainConfig(epochs=1, batch_tokens=64)).fit(TEXTS)
    save_model_binary(llm, tmp_path / "base.bin")
    return llm


def gradients(llm: LLM, twin: LLM, seed: int) -> dict[str, np.ndarray]:
    """dW of the weights as they are, by the twin; `llm` makes its gradients of the same batch."""
    rng = np.random.default_rng(seed)
    ids, targets = rng.integers(0, len(llm.tokenizer), (2, 3, 40), dtype=np.int32)
    twin.gpt.load_parameters(llm.gpt.parameters())
    twin.gpt.arena.require_grad().fill(0)
    for gpt in (llm.gpt, twin.gpt):
        gpt.forward(ids, targets)
        gpt.backward()
    return {name: array.copy() for name, array in twin.gpt.gradients().items()}


def test_three_steps_are_the_reference() -> None:
    """A and B by AdamW with dA = s B^T dW and dB = s dW A^T; then W = W0 + s B A."""
    llm, twin = small_llm(), small_llm()
    first = {name: array.astype(float) for name, array in llm.gpt.parameters().items()}
    lora = Lora(llm.gpt, 3, 6.0, LAYERS, weight_decay=0.5)
    arena = lora.arena
    numbers = {entry.name: arena.view(entry.name).astype(float) for entry in arena.entries}
    moments = {name: [np.zeros_like(array)] * 2 for name, array in numbers.items()}
    assert {name.rpartition(".")[0] for name in numbers} == {
        "h.0.attn.c_attn.weight",
        "h.1.attn.c_attn.weight",
        "h.1.mlp.c_fc.weight",
        "h.1.mlp.c_proj.weight",
    }
    for step in (1, 2, 3):
        dW = gradients(llm, twin, step)
        found = {}
        for name, array in numbers.items():
            matrix, other = name.rpartition(".")[0], name[:-1] + ("b" if name[-1] == "a" else "a")
            found[name] = 2.0 * (
                numbers[other].T @ dW[matrix] if name[-1] == "a" else dW[matrix] @ numbers[other].T
            )
            assert found[name].shape == array.shape
        norm = np.sqrt(sum((one**2).sum() for one in found.values()))
        assert norm > 2e-3
        assert lora.step(lr=1e-2, clip=1e-3) == pytest.approx(norm, rel=1e-5)
        for name, gradient in found.items():
            new, _, m, v = ref.adamw(
                numbers[name].ravel(),
                gradient.ravel(),
                *(one.ravel() for one in moments[name]),
                1e-2,
                0.9,
                0.95,
                1e-8,
                0.5,
                step,
                1e-3 / norm,
                gradient.size,
            )
            numbers[name] = new.reshape(gradient.shape)
            moments[name] = [m.reshape(gradient.shape), v.reshape(gradient.shape)]
            np.testing.assert_allclose(arena.view(name), numbers[name], atol=2e-5, err_msg=name)
        assert not lora.arena.grad.any()
    for name, array in llm.gpt.parameters().items():
        if name + ".lora_a" in numbers:
            expected = first[name] + 2.0 * numbers[name + ".lora_b"] @ numbers[name + ".lora_a"]
            np.testing.assert_allclose(array, expected, atol=1e-5, err_msg=name)
            assert not np.array_equal(array, first[name])
        else:
            assert np.array_equal(array, first[name].astype(np.float32)), name


def test_it_begins_with_the_base_and_learns() -> None:
    llm = small_llm()
    before = llm.gpt.arena.data.copy()
    make_optimizer(llm.gpt, CONFIG)
    assert np.array_equal(llm.gpt.arena.data, before)
    loss = llm.loss(DIALOGUES)
    Trainer(llm, changed(epochs=60), "finetune").fit(DIALOGUES)
    assert llm.loss(DIALOGUES) < loss - 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        dict(lora_rank=-1),
        dict(lora_alpha=0.0),
        dict(lora_layers="h.*"),
        dict(freeze=("h.0.*",)),
        dict(optimizer="muon"),
    ],
)
def test_wrong_settings_get_a_sentence(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="lora"):
        changed(**wrong)


@pytest.mark.parametrize("pattern", ["wte.weight", "h.7.*", "h.0.attn.ln.weight"])
def test_a_pattern_that_fits_no_matrix_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="lora_layers: no matrix"):
        Lora(small_llm().gpt, 2, 4.0, ["h.*", pattern])


@pytest.mark.parametrize(
    "settings",
    [dict(rank=0), dict(rank=33), dict(rank=True), dict(alpha=float("nan")), dict(layers=())],
    ids=str,
)
def test_settings_of_the_optimizer_are_checked(settings: dict) -> None:
    with pytest.raises(ConfigError, match="lora_"):
        Lora(small_llm().gpt, **{"rank": 2, "alpha": 4.0, **settings})


def trained(tmp_path: Path, **changes: object) -> tuple[LLM, Path]:
    """A model with a trained adapter, and the adapter's file."""
    llm = base_model(tmp_path)
    Trainer(llm, changed(**changes), "finetune").fit(DIALOGUES)
    return llm, save_model_binary(llm, tmp_path / "lora.bin")


def test_its_file_is_small_and_gives_the_model_back(tmp_path: Path) -> None:
    llm, path = trained(tmp_path, lora_layers=("h.0.attn.*",))
    assert path.stat().st_size < (tmp_path / "base.bin").stat().st_size / 4
    for training in (True, False):
        again = load_model_auto(path, training=training)
        assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
        assert again.training_state == llm.training_state and again.metadata == llm.metadata
        assert again.generate("长江", 8) == llm.generate("长江", 8)
        assert isinstance(again.optimizer, Lora) == training
    found = describe(path, verify=True)
    assert found["graph"] == "gpt2+lora" and found["verified"]
    assert found["optimizer"]["rank"] == 3 and found["config"] == llm.config.to_dict()


def test_the_model_is_found_beside_the_adapter(tmp_path: Path) -> None:
    llm, path = trained(tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "base.bin").rename(moved / "base.bin")
    with pytest.raises(CheckpointError, match=r"base\.bin of this adapter is not there") as error:
        load_model_auto(path)
    assert error.value.code == "missing"
    path.rename(moved / "lora.bin")
    again = load_model_auto(moved / "lora.bin")
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
    # From another folder the path to the model is noted as it is from there.
    save_model_binary(again, tmp_path / "elsewhere" / "lora.bin")
    assert describe(tmp_path / "elsewhere" / "lora.bin")["optimizer"]["base"] == "../moved/base.bin"
    assert same_bits(
        load_model_auto(tmp_path / "elsewhere" / "lora.bin").gpt.arena.data, llm.gpt.arena.data
    )


def test_no_adapter_is_left_without_its_model(tmp_path: Path) -> None:
    """It neither takes the place of the model that it needs nor goes without one."""
    llm, _ = trained(tmp_path, epochs=1)
    before = (tmp_path / "base.bin").read_bytes()
    manager = CheckpointManager(tmp_path, "last")
    (tmp_path / "base.bin").rename(tmp_path / "checkpoint_last.bin")
    llm.optimizer.base = str(tmp_path / "checkpoint_last.bin")
    for save in (
        lambda: save_model_binary(llm, tmp_path / "." / "checkpoint_last.bin"),
        lambda: manager.save_last(llm),
        lambda: manager.step_done(llm),
    ):
        with pytest.raises(CheckpointError, match="the model that the adapter needs") as error:
            save()
        assert error.value.code == "write"
    assert (tmp_path / "checkpoint_last.bin").read_bytes() == before


def test_an_adapter_whose_model_is_in_no_file_carries_it(tmp_path: Path) -> None:
    """Never saved, since changed, overwritten, or removed: what is saved can be loaded."""

    def unsaved(llm: LLM) -> None:
        llm.base = ""

    def overwritten(llm: LLM) -> None:
        save_model_binary(small_llm(seed=3), tmp_path / "base.bin")
        assert llm.base

    def damaged(llm: LLM) -> None:
        (tmp_path / "base.bin").write_bytes((tmp_path / "base.bin").read_bytes()[:-64])

    def removed(llm: LLM) -> None:
        (tmp_path / "base.bin").unlink()

    for number, change in enumerate((unsaved, overwritten, damaged, removed)):
        llm, fresh = base_model(tmp_path), small_llm(seed=7)
        fresh.gpt.load_parameters(llm.gpt.parameters())
        change(llm)
        Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES)
        path = save_model_binary(llm, tmp_path / f"{number}.bin")
        found = describe(path, verify=True)
        assert found["optimizer"]["base"] == "" and found["graph"] == "gpt2+lora"
        assert found["words"] == len(llm.tokenizer) and found["layers"]
        for training in (True, False):
            again = load_model_auto(path, training=training)
            assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
        again = load_model_auto(path)
        assert Tokenizer.load(path).words == llm.tokenizer.words
        # It is carried on, and the copy trains on to the same bits.
        for one in (again, llm):
            Trainer(one, changed(epochs=1), "finetune").fit(DIALOGUES)
        assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
        last = load_model_auto(save_model_binary(again, tmp_path / "again.bin"))
        assert same_bits(last.gpt.arena.data, llm.gpt.arena.data)
        # A file of the model may be named again, and then it is not carried any more.
        other = save_model_binary(fresh, tmp_path / "found.bin")
        named = load_with_adapter(other, tmp_path / "again.bin")
        small = save_model_binary(named, tmp_path / "small.bin")
        assert describe(small)["optimizer"]["base"] == "found.bin"
        assert small.stat().st_size < path.stat().st_size / 2


def test_a_model_that_changes_while_its_adapter_is_trained_is_noticed(tmp_path: Path) -> None:
    """The file is compared again when its size, time or inode is another."""
    llm, path = trained(tmp_path, epochs=1)
    assert describe(path)["optimizer"]["base"] == "base.bin"
    save_model_binary(small_llm(seed=3), tmp_path / "base.bin")
    save_model_binary(llm, path)
    assert describe(path)["optimizer"]["base"] == ""
    assert same_bits(load_model_auto(path).gpt.arena.data, llm.gpt.arena.data)


def test_a_model_that_has_changed_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again by every checkpoint of a long training."""
    llm, path = trained(tmp_path, epochs=1)
    save_model_binary(small_llm(seed=3), tmp_path / "base.bin")
    reads, read = [], loading.load_whole
    monkeypatch.setattr(loading, "load_whole", lambda path: reads.append(path) or read(path))
    for _ in range(3):
        save_model_binary(llm, path)
    assert len(reads) == 1


def test_a_model_is_carried_as_it_was_when_the_checkpoint_was_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written beside a training that may already change all weights."""
    go, write = threading.Event(), binary_writer.Packed.write

    def later(packed: binary_writer.Packed, path: Path) -> Path:
        assert go.wait(30)
        return write(packed, path)

    llm = small_llm()
    Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES)
    manager = CheckpointManager(tmp_path, "last", every=1)
    before = llm.gpt.arena.data.copy()
    monkeypatch.setattr(binary_writer.Packed, "write", later)
    path = manager.step_done(llm)[0]
    llm.gpt.arena.data += 1
    go.set()
    manager.close()
    assert same_bits(load_model_auto(path).gpt.arena.data, before)


def test_of_another_graph_a_model_is_carried_too(tmp_path: Path) -> None:
    llm = rustgpt_llm()
    Trainer(llm, changed(lora_rank=2), "finetune").fit(["山水。", "用户：山"] * 4)
    path = save_model_binary(llm, tmp_path / "lora.bin")
    again = load_model_auto(path)
    assert type(again.gpt) is RustGPT and again.tokenizer.words == llm.tokenizer.words
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)


@pytest.mark.parametrize(
    ("kind", "sentence"), [(2, "vocabulary"), (3, "layer"), (22, "base_tensor")]
)
def test_a_model_that_is_carried_in_part_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, sentence: str
) -> None:
    llm = small_llm()
    Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES)
    monkeypatch.setattr(
        binary_writer.Packed, "write", binary_writer.Packed.write.__wrapped__
    )  # unchecked
    packed = binary_writer.pack(llm, "x", binary_writer.arrays_of(llm), binary_writer.Storage())
    out = next(i for i, record in enumerate(packed.records) if record.kind == kind)
    records, size = placed(
        [replace(one, offset=0) for i, one in enumerate(packed.records) if i != out]
    )
    path = binary_writer.Packed(
        records, [one for i, one in enumerate(packed.payloads) if i != out], size
    ).write(tmp_path / "lora.bin")
    with pytest.raises(CheckpointError, match=sentence) as error:
        load_model_auto(path)
    assert error.value.code == "damaged"


def test_a_training_that_begins_anew_keeps_its_adapter(tmp_path: Path) -> None:
    llm, path = trained(tmp_path, epochs=1)
    Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES[:1])
    save_model_binary(llm, path)
    again = load_model_auto(path)
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
    assert again.optimizer.step_count == again.training_state.step > 0


@pytest.mark.parametrize(
    ("begun", "going_on"),
    [
        ({}, {"lora_rank": 2}),
        ({}, {"lora_rank": 0}),
        ({"lora_rank": 0}, {}),
        ({}, {"lora_alpha": 5.0}),
        ({}, {"lora_layers": ("h.0.*",)}),
    ],
    ids=str,
)
def test_a_phase_does_not_go_on_with_another_adapter(begun: dict, going_on: dict) -> None:
    llm, calls = small_llm(), iter(range(100))
    Trainer(llm, changed(**begun), "finetune").fit(DIALOGUES, should_stop=lambda: next(calls) == 1)
    with pytest.raises(
        ConfigError,
        match=f"the phase was begun with {'optimizer=muon' if begun else 'lora_rank=3'}",
    ):
        Trainer(llm, changed(**going_on), "finetune").fit(DIALOGUES)


def test_a_checkpoint_inside_a_phase_talks_with_the_average(tmp_path: Path) -> None:
    llm, calls = base_model(tmp_path), iter(range(100))
    Trainer(llm, changed(ema=0.9, lr=0.1), "finetune").fit(
        DIALOGUES, should_stop=lambda: next(calls) == 2
    )
    chat = load_model_auto(save_model_binary(llm, tmp_path / "lora.bin"), training=False)
    whole = load_model_auto(save_model_binary(llm, tmp_path / "w.bin", optimizer=False))
    assert same_bits(chat.gpt.arena.data, whole.gpt.arena.data)
    assert not same_bits(chat.gpt.arena.data, llm.gpt.arena.data)


def test_differences_of_adapters_are_told(tmp_path: Path) -> None:
    llm, path = trained(tmp_path, val_fraction=0.3)
    assert compare_models(path, path)["same"]
    Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES)
    kinds = {
        row["kind"]
        for row in compare_models(path, save_model_binary(llm, tmp_path / "b.bin"))["tensors"]
    }
    assert kinds == {"weights", "adapter", "m", "v"}


def test_another_model_is_refused(tmp_path: Path) -> None:
    _, path = trained(tmp_path)
    for other in (small_llm(seed=3), small_llm(n_embd=16)):
        save_model_binary(other, tmp_path / "base.bin")
        with pytest.raises(CheckpointError, match="name the model that it was trained on"):
            load_model_auto(path)
        with pytest.raises(CheckpointError, match="name the model that it was trained on"):
            load_with_adapter(tmp_path / "base.bin", path)


def test_merging(tmp_path: Path) -> None:
    llm, path = trained(tmp_path)
    (tmp_path / "base.bin").rename(tmp_path / "other name.bin")
    merged = load_with_adapter(tmp_path / "other name.bin", path, training=False)
    assert same_bits(merged.gpt.arena.data, llm.gpt.arena.data) and merged.optimizer is None
    whole = load_model_auto(save_model_binary(merged, tmp_path / "whole.bin"), training=False)
    assert same_bits(np.asarray(whole.gpt.arena.data), llm.gpt.arena.data)
    with pytest.raises(CheckpointError, match="a whole model where an adapter is wanted"):
        load_with_adapter(tmp_path / "other name.bin", tmp_path / "whole.bin")
    for read in (load_weights, Tokenizer.load):
        with pytest.raises(CheckpointError, match="an adapter where a whole model is wanted"):
            read(path)


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_without_the_optimizer_a_file_holds_the_whole_model(tmp_path: Path, save) -> None:
    llm, _ = trained(tmp_path)
    suffix = "bin" if save is save_model_binary else "json"
    again = load_model_auto(save(llm, tmp_path / f"whole.{suffix}", optimizer=False))
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data) and again.optimizer is None


def test_json_holds_the_whole_model(tmp_path: Path) -> None:
    llm, _ = trained(tmp_path)
    again = load_model_auto(save_model_json(llm, tmp_path / "whole.json"))
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data) and again.optimizer is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9},
        {"val_fraction": 0.3, "epochs": 6},
        {"val_fraction": 0.3, "epochs": 6, "ema": 0.9},
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, changes: dict) -> None:
    """Where a split is held out, the adapter of the best epoch is what remains."""
    config = changed(lora_layers=LAYERS, **changes)
    whole, stopped = base_model(tmp_path), base_model(tmp_path)
    result = Trainer(whole, config, "finetune").fit(DIALOGUES)
    calls = iter(range(100))
    Trainer(stopped, config, "finetune").fit(DIALOGUES, should_stop=lambda: next(calls) == 2)
    again = load_model_auto(save_model_binary(stopped, tmp_path / "stopped.bin"))
    for name in ("best_weights", "average"):
        assert same_bits(getattr(stopped, name), getattr(again, name))
    assert same_bits(stopped.gpt.arena.data, again.gpt.arena.data) or config.ema
    Trainer(again, config, "finetune").fit(DIALOGUES)
    assert same_bits(whole.gpt.arena.data, again.gpt.arena.data)
    for name in ("data", "m", "v"):
        assert same_bits(getattr(whole.optimizer.arena, name), getattr(again.optimizer.arena, name))
    assert result.steps == again.training_state.step


def test_damage_is_seen(tmp_path: Path) -> None:
    whole, path = (DATA / "tiny_v1_lora.bin").read_bytes(), tmp_path / "lora.bin"
    for place in range(8, len(whole), 5):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        for data in (flipped, whole[:place]):
            path.write_bytes(data)
            with pytest.raises(CheckpointError) as error:
                load_with_adapter(DATA / "tiny_v1.bin", path)
            assert error.value.code == "damaged"


@pytest.mark.parametrize(
    ("golden", "base"), [("tiny_v1_lora.bin", "tiny_v1.bin"), ("tiny_v1_lora_carries.bin", "")]
)
def test_the_golden_adapters_still_load(golden: str, base: str, tmp_path: Path) -> None:
    """docs/format_v1.md describes them: a reader of that page alone merges to the same weights."""
    expected, path = adapter_llm(base and str(DATA / base)), DATA / golden
    if not base:  # which needs nothing beside it
        path = tmp_path / golden
        path.write_bytes((DATA / golden).read_bytes())
    again = load_model_auto(path)
    assert describe(path, verify=True)["optimizer"]["base"] == base
    assert again.optimizer.to_dict() == expected.optimizer.to_dict()
    assert again.training_state == expected.training_state and again.metadata == expected.metadata
    for name in ("data", "m", "v"):
        assert same_bits(
            getattr(again.optimizer.arena, name), getattr(expected.optimizer.arena, name)
        )
    assert same_bits(again.best_weights, expected.best_weights)
    assert same_bits(again.average, expected.average)
    assert same_bits(again.gpt.arena.data, expected.gpt.arena.data)
    chat = load_model_auto(path, training=False).gpt.parameters()
    model, adapter = (independent_reader.read(str(DATA / one)) for one in ("tiny_v1.bin", golden))
    if not base:
        model.tensors = adapter.base
    merged = independent_reader.merged(model, adapter)
    assert {name for name, one in merged.items() if one != model.tensors[name]} == {
        "h.0.attn.c_attn.weight",
        "h.0.attn.c_proj.weight",
        "h.0.mlp.c_fc.weight",
    }
    for name, numbers in merged.items():
        np.testing.assert_allclose(
            chat[name].reshape(-1),
            np.frombuffer(numbers, np.float32),
            rtol=1e-6,
            atol=1e-7,
            err_msg=name,
        )
    other = independent_reader.read(str(DATA / "tiny_v1_weights.bin"))
    other.tensors["wte.weight"][3] += 1
    with pytest.raises(independent_reader.FormatError, match="other weights"):
        independent_reader.merged(other, adapter)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rank": 2}, "tensors of kind"),
        ({"rank": 0}, "between 1 and"),
        ({"rank": "x"}, "whole"),
        ({"alpha": -1.0}, "lora_alpha"),
        ({"alpha": None}, "cannot be"),
        ({"layers": 3}, "cannot be"),
        ({"layers": ["x.*"]}, "no matrix"),
        ({"step_count": -1}, "step_count"),
        ({"base": 5}, "path"),
        ({"kind": "adamw"}, "cannot be"),
        ({"betas": [2.0, 0.9]}, "beta1"),
        ({"fingerprint": "00"}, "other weights"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict, sentence: str
) -> None:
    llm, _ = trained(tmp_path, epochs=1)
    settings = {**settings_to_save(llm.optimizer, tmp_path / "lora.bin"), **wrong}
    monkeypatch.setattr(binary_writer, "settings_to_save", lambda lora, path: settings)
    monkeypatch.setattr(
        binary_writer.Packed, "write", binary_writer.Packed.write.__wrapped__
    )  # unchecked
    with pytest.raises(CheckpointError, match=sentence):
        load_model_auto(save_model_binary(llm, tmp_path / "lora.bin"))


@pytest.mark.parametrize("carries", [False, True])
def test_an_adapter_has_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carries: bool
) -> None:
    """Neither none nor two: a path, or the model itself."""
    llm, _ = trained(tmp_path, epochs=1)
    if carries:
        llm.optimizer.base = ""
    to_dict, base = Lora.to_dict, "base.bin" if carries else ""
    monkeypatch.setattr(
        binary_writer.Packed, "write", binary_writer.Packed.write.__wrapped__
    )  # unchecked
    monkeypatch.setattr(
        binary_writer,
        "dump_json",
        lambda path, what, value: strict_json.dump_json(
            path, what, {**value, "base": base} if what == "optimizer" else value
        ),
    )
    path = save_model_binary(llm, tmp_path / "x" / "lora.bin")
    assert to_dict(llm.optimizer)["base"] != base
    for read in (load_model_auto, lambda path: load_with_adapter(tmp_path / "base.bin", path)):
        with pytest.raises(CheckpointError, match=r"without a model, or with two|the path of its"):
            read(path)


def test_an_adapter_that_names_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, path = trained(tmp_path, epochs=1)
    settings = {**llm.optimizer.to_dict(), "base": "lora.bin"}
    monkeypatch.setattr(binary_writer, "settings_to_save", lambda lora, path: settings)
    save_model_binary(llm, path)
    with pytest.raises(CheckpointError, match="an adapter where a whole model is wanted"):
        load_model_auto(path)


def test_a_merged_model_has_all_its_gradients_again(tmp_path: Path) -> None:
    _, path = trained(tmp_path, epochs=1)
    gpt = load_model_auto(path, training=False).gpt
    ids = np.ones((1, 4), np.int32)
    gpt.forward(ids, ids)
    gpt.backward()
    assert all(gradient.any() for name, gradient in gpt.gradients().items())


def test_another_graph_and_a_model_in_json(tmp_path: Path) -> None:
    """The file's graph is that of its model; the model may be of either format."""
    llm = rustgpt_llm()
    save_model_json(llm, tmp_path / "base.json")
    Trainer(llm, changed(lora_rank=2), "finetune").fit(["山水。", "用户：山"] * 4)
    path = save_model_binary(llm, tmp_path / "lora.bin")
    assert describe(path)["graph"] == "rustgpt+lora"
    assert independent_reader.read(str(path)).optimizer["base"] == "base.json"
    for training in (True, False):
        again = load_model_auto(path, training=training)
        assert type(again.gpt) is RustGPT and again.tokenizer.words == llm.tokenizer.words
        assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)


def test_the_same_bits_with_any_number_of_threads() -> None:
    found, before = [], get_num_threads()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            llm = small_llm()
            Trainer(llm, changed(epochs=2), "finetune").fit(DIALOGUES)
            found.append(llm.gpt.arena.data.copy())
    finally:
        set_num_threads(before)
    assert same_bits(found[0], found[1]) and same_bits(found[0], found[2])


def test_rounded_weights_of_a_model_with_an_adapter(tmp_path: Path) -> None:
    """A chat may take them as int8; an adapter may be trained on what an int8 file stands for."""
    _, path = trained(tmp_path, epochs=1)
    assert load_model_auto(path, training=False, weights="int8").gpt.form == "int8"
    save_model_binary(small_llm(), tmp_path / "int8.bin", optimizer=False, weights="int8")
    llm = load_weights(tmp_path / "int8.bin")
    Trainer(llm, changed(epochs=1), "finetune").fit(DIALOGUES)
    again = load_model_auto(save_model_binary(llm, path))
    assert same_bits(again.gpt.arena.data, llm.gpt.arena.data)
