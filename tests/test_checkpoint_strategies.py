"""Which checkpoints a training leaves behind, and what `latest` makes of them."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoint_helpers import assert_same
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt.checkpoint import binary_writer
from cgpt.checkpoint.latest import read
from cgpt.checkpoint.manager import STRATEGIES, CheckpointManager, epoch_loss
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import TrainConfig
from cgpt.errors import CheckpointError, ConfigError
from cgpt.llm import LLM, load_model_binary
from cgpt.training.trainer import Trainer

CONFIG = TrainConfig(epochs=6, batch_tokens=40, lr=1e-2, warmup=2, val_fraction=0.2)
NAME = re.compile(
    r"checkpoint_(last|previous|epoch_\d+|best_epoch_\d+_loss_\d+\.\d{4})"
    r"(_finetune)?(_[0-9a-f]{8})?\.(bin|json)"
)


def trained(
    manager: CheckpointManager, llm: LLM | None = None, phase: str = "pretrain", **changes: Any
) -> LLM:
    """A training with this manager; losses by epoch and their ends lie in llm.metadata."""
    llm = small_llm() if llm is None else llm
    losses: dict[str, float | None] = {}
    ends = [0]

    def step_done(found: LLM) -> None:
        if found.training_state.batch == 0:
            ends.append(found.training_state.step)
            losses[str(found.training_state.epoch)] = epoch_loss(found.training_state)
        manager.step_done(found, 0.5)

    Trainer(llm, TrainConfig(**{**vars(CONFIG), **changes}), phase).fit(
        TEXTS if phase == "pretrain" else DIALOGUES, on_checkpoint=step_done
    )
    manager.close()
    llm.metadata.update(losses=losses, ends=ends)
    return llm


def names(folder: Path) -> list[str]:
    """The checkpoints of a folder, each with its description beside it; nothing else is there."""
    found = sorted(os.listdir(folder))
    assert all(NAME.fullmatch(name) for name in found)
    stems = [name[:-4] for name in found if name.endswith(".bin")]
    assert [name[:-5] for name in found if name.endswith(".json")] == stems
    return stems


def test_last(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "last"))
    assert names(tmp_path) == ["checkpoint_last", "checkpoint_previous"]
    assert read(tmp_path / "checkpoint_last.bin").state.epoch == 6
    assert read(tmp_path / "checkpoint_previous.bin").state.epoch == 5
    assert llm.training_state.epoch == 6


def test_last_every_so_many_steps(tmp_path: Path) -> None:
    steps = trained(CheckpointManager(tmp_path, "last", every=4)).training_state.step
    assert steps > 9
    assert read(tmp_path / "checkpoint_last.bin").state.step == steps - steps % 4
    assert read(tmp_path / "checkpoint_previous.bin").state.step == steps - steps % 4 - 4


def test_best_of_a_phase(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "best", keep=2), lr=3e-2, epochs=9)
    losses = {int(epoch): loss for epoch, loss in llm.metadata["losses"].items()}
    best = sorted(losses, key=lambda epoch: losses[epoch])[:2]
    assert names(tmp_path) == sorted(
        f"checkpoint_best_epoch_{epoch}_loss_{losses[epoch]:.4f}" for epoch in best
    )
    assert max(losses.values()) not in [losses[epoch] for epoch in best]


def test_best_without_a_held_out_split_goes_by_the_training_loss(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "best", keep=1), val_fraction=0.0)
    losses = llm.metadata["losses"]
    best = min(losses, key=lambda epoch: losses[epoch])
    assert names(tmp_path) == [f"checkpoint_best_epoch_{best}_loss_{losses[best]:.4f}"]


def test_best_is_kept_a_phase(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "best", keep=1))
    before = names(tmp_path)
    assert len(before) == 1
    trained(CheckpointManager(tmp_path, "best", keep=1), llm, "finetune")
    after = names(tmp_path)
    assert len(after) == 2 and before[0] in after
    assert {read(tmp_path / f"{name}.bin").state.phase for name in after} == {
        "pretrain",
        "finetune",
    }


def test_periodic(tmp_path: Path) -> None:
    trained(CheckpointManager(tmp_path, "periodic", keep=3))
    assert names(tmp_path) == [f"checkpoint_epoch_{epoch}" for epoch in (4, 5, 6)]


def test_periodic_after_so_many_steps(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "periodic", keep=99, every=4))
    ends = llm.metadata["ends"]
    wanted = [epoch for epoch in range(1, 7) if ends[epoch] // 4 > ends[epoch - 1] // 4]
    assert 1 < len(wanted) < 6
    assert names(tmp_path) == [f"checkpoint_epoch_{epoch}" for epoch in wanted]


def test_a_second_phase_leaves_the_first_one_alone(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, "periodic", keep=2)
    llm = trained(manager)
    trained(manager, llm, "finetune")
    assert names(tmp_path) == [
        "checkpoint_epoch_5",
        "checkpoint_epoch_5_finetune",
        "checkpoint_epoch_6",
        "checkpoint_epoch_6_finetune",
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_can_be_resumed_to_the_bit(tmp_path: Path, strategy: str) -> None:
    whole = trained(CheckpointManager(tmp_path / "whole", strategy))
    stopped = small_llm()
    manager = CheckpointManager(tmp_path / "run", strategy)
    Trainer(stopped, CONFIG).fit(
        TEXTS,
        on_checkpoint=manager.step_done,
        should_stop=lambda: stopped.training_state.step == 11,
    )
    manager.close()
    found = manager.latest()
    assert found is not None
    resumed = load_model_binary(found)
    assert 0 < resumed.training_state.step <= 11
    Trainer(resumed, CONFIG).fit(TEXTS)
    whole.training_state.seconds = resumed.training_state.seconds = 0.0
    whole.metadata.clear()
    assert_same(whole, resumed)


def test_both(tmp_path: Path) -> None:
    trained(CheckpointManager(tmp_path / "a", "best+last", keep=1))
    assert [name.split("_")[1] for name in names(tmp_path / "a")] == ["best", "last", "previous"]
    trained(CheckpointManager(tmp_path / "b", "best+periodic", keep=1))
    assert [name.split("_")[1] for name in names(tmp_path / "b")] == ["best", "epoch"]


def test_the_description_beside_it(tmp_path: Path) -> None:
    llm = trained(CheckpointManager(tmp_path, "best+last"))
    about = json.loads((tmp_path / "checkpoint_last.json").read_text("ascii"))
    state = llm.training_state
    assert about["file"] == "checkpoint_last.bin" and about["phase"] == "pretrain"
    assert (about["epoch"], about["step"]) == (6, state.step)
    assert about["held_out_loss"] == state.history[-1][3] and 0 < about["loss"] < 10
    assert about["learning_rate"] == 0.5 and about["time"].endswith("+00:00")
    assert {"preset", "data_fingerprint", "parameters", "config"} <= about.keys()


def test_without_links_the_bytes_are_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", lambda *args: (_ for _ in ()).throw(OSError("no links")))
    trained(CheckpointManager(tmp_path, "best+last", keep=1))
    assert [name.split("_")[1] for name in names(tmp_path)] == ["best", "last"]


# Beside training


def test_a_snapshot_is_the_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = trained(CheckpointManager(tmp_path / "x", "last"))
    llm.metadata.clear()
    before = load_model_binary(save_model_binary(llm, tmp_path / "before.bin"))
    go_on = threading.Event()
    write = binary_writer.Packed.write

    def slow(self: Any, path: Any) -> Any:
        assert go_on.wait(10)
        return write(self, path)

    monkeypatch.setattr(binary_writer.Packed, "write", slow)
    manager = CheckpointManager(tmp_path / "run", "last", every=1)
    llm.training_state.step += 1
    assert manager.step_done(llm) == [tmp_path / "run" / "checkpoint_last.bin"]
    assert not (tmp_path / "run" / "checkpoint_last.bin").exists()  # it came back at once
    before.training_state.step += 1
    llm.gpt.arena.data[:] = 7
    llm.gpt.arena.require_moments()[0][:] = 8
    llm.training_state.history.clear()
    llm.metadata["x"] = 1
    go_on.set()
    manager.close()
    assert_same(before, load_model_binary(tmp_path / "run" / "checkpoint_last.bin"))


def test_a_failed_write_is_told_once_and_the_next_one_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = trained(CheckpointManager(tmp_path / "x", "last"))
    manager = CheckpointManager(tmp_path / "run", "last", every=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
        manager.step_done(llm)
        with pytest.raises(CheckpointError, match="full disk"):
            manager.wait()
    manager.wait()
    manager.step_done(llm)
    manager.close()
    assert names(tmp_path / "run") == ["checkpoint_last"]


def test_the_old_one_is_pruned_only_after_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = trained(CheckpointManager(tmp_path, "best", keep=1))
    before = names(tmp_path)
    llm.training_state.step += 1
    llm.training_state.history.append(
        [*llm.training_state.history[-1][:1], llm.training_state.step, 0.5, 0.25]
    )
    manager = CheckpointManager(tmp_path, "best", keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
        manager.step_done(llm)
        with pytest.raises(CheckpointError):
            manager.close()
    assert names(tmp_path) == before
    manager.step_done(llm)
    manager.close()
    assert names(tmp_path) == ["checkpoint_best_epoch_6_loss_0.2500"]


def test_two_managers_of_one_folder_take_turns(tmp_path: Path) -> None:
    """Each training has its own files, and each manager finds its own again."""
    llms = [small_llm(seed=seed) for seed in (1, 2)]
    managers = [CheckpointManager(tmp_path, "last", every=1) for _ in llms]
    stop = time.monotonic() + 0.5

    def work(llm: LLM, manager: CheckpointManager) -> None:
        while time.monotonic() < stop:
            llm.training_state.step += 1
            manager.step_done(llm)
        manager.close()

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(llms, managers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(tmp_path)) == 4
    for llm, manager in zip(llms, managers, strict=True):
        found = manager.latest(lambda error: pytest.fail(str(error)))
        assert found is not None
        assert_same(load_model_binary(found), llm, optimizer=False)


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    for settings in ({"strategy": "newest"}, {"keep": 0}, {"every": -1}, {"keep": True}):
        with pytest.raises(ConfigError, match="CheckpointManager"):
            CheckpointManager(tmp_path, **settings)  # type: ignore[arg-type]


# Latest


def state_at(step: int, loss: float = 1.0, epoch: int = 0) -> LLM:
    llm = small_llm()
    state = llm.training_state
    state.phase, state.step, state.epoch, state.documents = "pretrain", step, epoch, "d"
    state.history = [["pretrain", one, loss, None] for one in range(1, step + 1)]
    return llm


def test_what_the_same_training_came_to_later_is_the_latest(tmp_path: Path) -> None:
    save_model_binary(state_at(5), tmp_path / "checkpoint_last.bin")
    save_model_binary(state_at(8, epoch=2), tmp_path / "checkpoint_best_epoch_2_loss_1.0000.bin")
    os.utime(tmp_path / "checkpoint_best_epoch_2_loss_1.0000.bin", (1, 1))  # the oldest
    found = CheckpointManager(tmp_path).latest()
    assert found is not None and found.name == "checkpoint_best_epoch_2_loss_1.0000.bin"


def test_a_new_training_is_not_continued_with_an_older_one(tmp_path: Path) -> None:
    save_model_binary(state_at(50, loss=2.0, epoch=9), tmp_path / "checkpoint_epoch_9.bin")
    save_model_binary(state_at(5), tmp_path / "checkpoint_last.bin")
    found = CheckpointManager(tmp_path).latest()
    assert found is not None and found.name == "checkpoint_last.bin"


def test_without_the_last_one_the_furthest_is_taken(tmp_path: Path) -> None:
    for epoch in (9, 10):
        save_model_binary(
            state_at(5 * epoch, epoch=epoch), tmp_path / f"checkpoint_epoch_{epoch}.bin"
        )
    found = CheckpointManager(tmp_path).latest()
    assert found is not None and found.name == "checkpoint_epoch_10.bin"


@pytest.mark.parametrize("where", ["header", "payload"])
def test_a_damaged_one_falls_back_and_says_so(tmp_path: Path, where: str) -> None:
    for name, step in (("last", 9), ("previous", 6), ("epoch_2", 8)):
        save_model_binary(state_at(step), tmp_path / f"checkpoint_{name}.bin")
    last = tmp_path / "checkpoint_last.bin"
    data = bytearray(last.read_bytes())
    data[30 if where == "header" else -100] ^= 1
    last.write_bytes(data)
    warnings: list[CheckpointError] = []
    found = CheckpointManager(tmp_path).latest(warnings.append)
    assert found is not None and found.name == "checkpoint_epoch_2.bin"
    assert [str(last) in str(one) for one in warnings] == [True]
