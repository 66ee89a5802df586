"""Several trainings in one folder: none replaces, links over or prunes what another needs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoint_helpers import assert_same
from small_llm import TEXTS, small_llm

from cgpt.checkpoint.latest import CheckpointSummary, read
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import RunConfig, TrainConfig
from cgpt.errors import CheckpointError
from cgpt.language_model import TrainingState
from cgpt.llm import LLM, load_model_auto, load_model_binary
from cgpt.training.trainer import Trainer

CONFIG = TrainConfig(epochs=6, batch_tokens=40, lr=1e-2, warmup=2)


def trained(
    folder: Path,
    until: int = 0,
    llm: LLM | None = None,
    strategy: str = "last",
    keep: int = 3,
    **changes: Any,
) -> tuple[LLM, CheckpointManager]:
    """A training that stops after the step `until` (0 for none) and saves every step."""
    llm = small_llm() if llm is None else llm
    every = 0 if "best" in strategy or "periodic" in strategy else 1
    manager = CheckpointManager(folder, strategy, keep, every)
    Trainer(llm, TrainConfig(**{**vars(CONFIG), **changes})).fit(
        TEXTS, on_checkpoint=manager.step_done, should_stop=lambda: llm.training_state.step == until
    )
    manager.close()
    return llm, manager


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.bin"))


def test_one_after_another(tmp_path: Path) -> None:
    first, one = trained(tmp_path, 5)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    second, two = trained(tmp_path, 3, lr=3e-3)
    tag = second.training_state.run_id[:8]
    assert names(tmp_path) == [
        "checkpoint_last.bin",
        f"checkpoint_last_{tag}.bin",
        "checkpoint_previous.bin",
        f"checkpoint_previous_{tag}.bin",
    ]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert one.latest() == tmp_path / "checkpoint_last.bin"
    assert two.latest() == tmp_path / f"checkpoint_last_{tag}.bin"
    fresh = CheckpointManager(tmp_path)
    for llm, manager in ((first, one), (second, two)):
        found = manager.latest()
        assert found is not None
        assert_same(llm, load_model_binary(found))
        assert fresh.latest(run_id=llm.training_state.run_id) == found
        about = json.loads(found.with_suffix(".json").read_text())
        assert about["run_id"] == llm.training_state.run_id and about["file"] == found.name
    with pytest.raises(CheckpointError, match="several trainings can go on") as info:
        fresh.latest()
    assert info.value.code == "several" and f"checkpoint_last_{tag}.bin" in str(info.value)


def test_at_the_same_time_and_both_resumed(tmp_path: Path) -> None:
    """Step by step in turn, then both go on from where they were, under the same names."""
    llms = [small_llm(seed=seed) for seed in (1, 2)]
    managers = [CheckpointManager(tmp_path, "best+last", 1, 1) for _ in llms]
    for until in (4, 7, 11):
        for number, llm in enumerate(llms):
            Trainer(llm, CONFIG).fit(
                TEXTS,
                on_checkpoint=managers[number].step_done,
                should_stop=lambda llm=llm, until=until: llm.training_state.step == until,
            )
            managers[number].wait()
        for number, manager in enumerate(managers):
            found = manager.latest()
            assert found is not None and read(found).state.step == until
            llms[number] = load_model_binary(found)
            managers[number] = CheckpointManager(tmp_path, "best+last", 1, 1)
            managers[number].save_last(llms[number])
    assert len([name for name in names(tmp_path) if "last" in name]) == 2
    assert len([name for name in names(tmp_path) if "best" in name]) == 2
    whole = small_llm(seed=2)
    Trainer(whole, CONFIG).fit(TEXTS, should_stop=lambda: whole.training_state.step == 11)
    whole.training_state.seconds = llms[1].training_state.seconds = 0.0
    assert_same(whole, llms[1])


@pytest.mark.parametrize("strategy", ["best", "periodic"])
def test_pruning_leaves_other_trainings_alone(tmp_path: Path, strategy: str) -> None:
    """Even with the same model, seed and data."""
    trained(tmp_path, strategy=strategy, keep=2)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    second, _ = trained(tmp_path, strategy=strategy, keep=1, lr=9e-3)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    more = set(names(tmp_path)) - set(before)
    assert len(before) == 2 and len(more) == 1
    tag = second.training_state.run_id[:8]
    assert strategy == "best" or more == {f"checkpoint_epoch_6_{tag}.bin"}
    assert read(tmp_path / more.pop()).state.run_id == second.training_state.run_id


def test_two_trainings_from_copies_of_one_file(tmp_path: Path) -> None:
    """They have the same identity; what they came to since tells them apart."""
    trained(tmp_path, 4)
    copy = shutil.copy(tmp_path / "checkpoint_last.bin", tmp_path / "copy.bin")
    shutil.rmtree(tmp_path / "folder", ignore_errors=True)
    llms = [load_model_binary(copy) for _ in range(2)]
    managers = [CheckpointManager(tmp_path / "folder", "last", every=1) for _ in llms]
    for until in (5, 6, 7, 8, 9):
        for llm, manager, lr in zip(llms, managers, (1e-2, 2e-3), strict=True):
            Trainer(llm, TrainConfig(**{**vars(CONFIG), "lr": lr})).fit(
                TEXTS,
                on_checkpoint=manager.step_done,
                should_stop=lambda llm=llm, until=until: llm.training_state.step == until,
            )
            manager.wait()
    for llm, manager in zip(llms, managers, strict=True):
        found = manager.latest()
        assert found is not None
        assert_same(llm, load_model_binary(found))
        manager.close()


def test_going_back_does_not_replace_what_is_further(tmp_path: Path) -> None:
    trained(tmp_path, 5)
    copy = shutil.copy(tmp_path / "checkpoint_last.bin", tmp_path / "early.bin")
    trained(tmp_path, 9, load_model_binary(copy))
    further = (tmp_path / "checkpoint_last.bin").read_bytes()
    back, manager = trained(tmp_path, 6, load_model_binary(copy), lr=1e-3)
    assert (tmp_path / "checkpoint_last.bin").read_bytes() == further
    assert manager.latest() == tmp_path / f"checkpoint_last_{back.training_state.run_id[:8]}.bin"


def test_a_damaged_last_state_is_replaced(tmp_path: Path) -> None:
    """The one before it is gone on with, under the same name again."""
    trained(tmp_path, 5)
    last = tmp_path / "checkpoint_last.bin"
    data = bytearray(last.read_bytes())
    data[-100] ^= 1
    last.write_bytes(data)
    found = CheckpointManager(tmp_path).latest()
    assert found == tmp_path / "checkpoint_previous.bin"
    manager = CheckpointManager(tmp_path)
    assert manager.save_last(load_model_binary(found)) == last
    assert manager.latest() == last


def recorded(llm: LLM, out: Path, *done: str) -> LLM:
    """As if a command had trained it whose model goes to `out`."""
    llm.training_state.run = RunConfig(pretrain=("a.txt",), pretrain_train=CONFIG).to_dict()
    llm.training_state.done = [*done]
    llm.metadata["out"] = str(out)
    return llm


@pytest.mark.parametrize("kept", ["whole", "missing", "of another", "the checkpoint itself"])
def test_a_finished_training_gives_way_where_its_model_is_kept(tmp_path: Path, kept: str) -> None:
    folder, out = tmp_path / "run", tmp_path / "out.bin"
    llm, manager = trained(folder, 5)
    if kept == "the checkpoint itself":
        out = folder / "checkpoint_last.bin"
    manager.save_last(recorded(llm, out, "pretrain"))
    if kept == "whole":
        save_model_json(llm, out)  # whichever format it has
    if kept == "of another":
        save_model_binary(trained(tmp_path / "x", 3)[0], out)
    other, two = trained(folder, 2, lr=1e-3)
    found = two.latest()
    assert found is not None
    assert_same(other, load_model_binary(found))
    if kept == "whole":
        assert names(folder) == ["checkpoint_last.bin", "checkpoint_previous.bin"]
        assert {read(path).state.run_id for path in folder.glob("*.bin")} == {
            other.training_state.run_id
        }
        assert CheckpointManager(folder).latest() == folder / "checkpoint_last.bin"
    else:
        assert read(folder / "checkpoint_last.bin").state.run_id == llm.training_state.run_id
        assert found.name != "checkpoint_last.bin"


def test_the_only_unfinished_training_is_taken(tmp_path: Path) -> None:
    llm, _ = trained(tmp_path / "x", 5)
    for name, done in (("model_final", ["pretrain"]), ("other", ["pretrain"])):
        save_model_binary(recorded(llm, tmp_path / "out.bin", *done), tmp_path / f"{name}.bin")
        llm.training_state.run_id = ""
        llm.training_state.identify()
    with pytest.raises(CheckpointError, match="several"):
        CheckpointManager(tmp_path).latest()
    unfinished, _ = trained(tmp_path, 2)
    found = CheckpointManager(tmp_path).latest()
    assert found == tmp_path / "checkpoint_last.bin"
    assert read(found).state.run_id == unfinished.training_state.run_id


def without_run_id(path: Path) -> None:
    """As earlier versions wrote it."""
    llm = load_model_auto(path)
    llm.training_state.run_id = ""
    save_model_binary(llm, path)
    assert read(path).state.run_id == ""


def test_files_of_earlier_versions_go_on_under_their_names(tmp_path: Path) -> None:
    trained(tmp_path, 5)
    for name in names(tmp_path):
        without_run_id(tmp_path / name)
    found = CheckpointManager(tmp_path).latest()
    assert found == tmp_path / "checkpoint_last.bin"
    llm, manager = trained(tmp_path, 7, load_model_binary(found))
    assert llm.training_state.run_id and manager.latest() == found
    assert names(tmp_path) == ["checkpoint_last.bin", "checkpoint_previous.bin"]
    without_run_id(found)
    trained(tmp_path, 3, lr=1e-3)  # a stranger
    assert read(found).state.step == 7


def test_a_manager_knows_its_training_before_it_has_saved(tmp_path: Path) -> None:
    llm, _ = trained(tmp_path, 5)
    trained(tmp_path, 3, lr=1e-3)
    manager = CheckpointManager(tmp_path, "last", every=1000)
    llm = load_model_binary(tmp_path / "checkpoint_last.bin")
    Trainer(llm, CONFIG).fit(TEXTS, on_checkpoint=manager.step_done, should_stop=lambda: True)
    assert manager.latest() == tmp_path / "checkpoint_last.bin"


def test_the_identity_of_a_run(tmp_path: Path) -> None:
    a, b = small_llm(), small_llm()
    assert a.training_state.run_id == ""
    for llm in (a, b):
        Trainer(llm, CONFIG).fit(TEXTS, should_stop=lambda: True)
    ids = [llm.training_state.run_id for llm in (a, b)]
    assert ids[0] != ids[1] and all(len(one) == 16 for one in ids)
    assert (a.gpt.arena.data == b.gpt.arena.data).all()
    for save, name in ((save_model_binary, "a.bin"), (save_model_json, "a.json")):
        llm = load_model_auto(save(a, tmp_path / name))
        Trainer(llm, CONFIG).fit(TEXTS)
        llm.training_state.begin("finetune")
        assert llm.training_state.run_id == ids[0]
    assert "run_id" not in a.training_state.to_dict()


def test_what_descends_from_what() -> None:
    def found(run_id: str, *losses: float, step: int = 0, config: int = 0) -> CheckpointSummary:
        history: list[list[Any]] = [["pretrain", i, loss, None] for i, loss in enumerate(losses)]
        return CheckpointSummary(
            Path("x"),
            {"n": config},
            TrainingState("pretrain", step=step or len(losses), history=history, run_id=run_id),
        )

    one = found("a", 3.0, 2.0)
    assert one.descends_from(one) and found("a", 3.0, 2.0, 1.0).descends_from(one)
    assert found("a", 3.0, 2.5, 1.0).descends_from(one)  # the last may have been noted anew
    assert not one.descends_from(found("a", 3.0, 2.0, 1.0))
    assert not found("a", 3.5, 2.0, 1.0).descends_from(one)
    assert not found("b", 3.0, 2.0, 1.0).descends_from(one)
    assert not found("a", 3.0, 2.0, 1.0, config=1).descends_from(one)
    assert found("", 3.0, 2.0, 1.0).descends_from(one) and not found("").descends_from(one)
    assert found("a", 3.0, 2.0, step=9).descends_from(one)  # between two entries
