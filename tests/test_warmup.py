"""The warm-up follows from the steps where none is given; one that does not fit is reported."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from small_llm import TEXTS, small_llm

from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import main
from cgpt.cli.run_config import run_config
from cgpt.config import EARLIER_WARMUP, MOST_WARMUP, TrainConfig, default_warmup
from cgpt.corpus.files import packaged_data
from cgpt.errors import CgptWarning, ConfigError
from cgpt.language_model import TrainingState
from cgpt.llm import load_model_auto
from cgpt.training.recipe import PRETRAIN, default_run
from cgpt.training.trainer import Trainer

CONFIG = TrainConfig(epochs=10, batch_tokens=64, lr=1e-2)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CgptWarning)
        yield


def test_a_share_of_the_steps_with_a_least_and_a_most() -> None:
    found = {steps: default_warmup(steps) for steps in (0, 1, 2, 9, 10, 19, 20, 499, 500, 10**6)}
    assert found == {0: 0, 1: 0, 2: 1, 9: 1, 10: 1, 19: 1, 20: 2, 499: 49, 500: 50, 10**6: 50}
    assert MOST_WARMUP == EARLIER_WARMUP == 50  # so long runs have the bits that they had
    with pytest.raises(ConfigError, match="warmup must be between 0 and"):
        TrainConfig(warmup=-1)


def test_a_short_training_learns() -> None:
    short, long = small_llm(), small_llm()
    Trainer(short, CONFIG).fit(TEXTS)
    steps = short.training_state.step
    assert steps < 50 and short.training_state.warmup == steps // 10
    with pytest.warns(
        CgptWarning,
        match=f"a warm-up of 50 steps in a training of {steps}: the "
        "learning rate does not reach 0.01; give a smaller",
    ):
        Trainer(long, replace(CONFIG, warmup=50)).fit(TEXTS)
    assert short.loss(TEXTS) < 0.7 * long.loss(TEXTS)


def test_it_follows_from_the_steps_in_which_the_rate_falls() -> None:
    llm = small_llm()
    Trainer(llm, replace(CONFIG, schedule_steps=90)).fit(TEXTS)
    assert llm.training_state.warmup == 9


def test_a_budget_that_ends_within_the_warm_up_is_reported_but_changes_nothing() -> None:
    whole, parts = small_llm(), small_llm()
    config = replace(CONFIG, epochs=30)
    Trainer(whole, config).fit(TEXTS)
    with pytest.warns(CgptWarning, match="schedule_steps for as many as there will be"):
        Trainer(parts, replace(config, max_steps=3)).fit(TEXTS)
    Trainer(parts, config).fit(TEXTS)
    assert parts.gpt.arena.data.tobytes() == whole.gpt.arena.data.tobytes()


def stop_after(steps: int):
    left = count(1)
    return lambda: next(left) >= steps


def test_a_resumed_phase_has_the_warm_up_that_it_began_with(tmp_path: Path) -> None:
    """Also one of more epochs, and one that was given explicitly and is not given again."""
    for begun in (CONFIG, replace(CONFIG, warmup=7)):
        llm = small_llm()
        Trainer(llm, begun).fit(TEXTS, should_stop=stop_after(3))
        warmup = llm.training_state.warmup
        llm = load_model_auto(save_model_binary(llm, tmp_path / "m.bin"))
        Trainer(llm, replace(CONFIG, epochs=200)).fit(TEXTS, should_stop=stop_after(2))
        assert llm.training_state.warmup == warmup and llm.training_state.total_steps >= 200


def test_a_phase_of_an_earlier_version_keeps_its_warm_up() -> None:
    config = replace(CONFIG, epochs=60)
    whole, llm = small_llm(), small_llm()
    Trainer(whole, replace(config, warmup=50)).fit(TEXTS)
    Trainer(llm, replace(config, warmup=50)).fit(TEXTS, should_stop=stop_after(9))
    values = llm.training_state.to_dict()
    del values["warmup"]
    llm.training_state = TrainingState.from_dict(values)
    Trainer(llm, config).fit(TEXTS)
    assert llm.gpt.arena.data.tobytes() == whole.gpt.arena.data.tobytes()


# On the command line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CGPT_LANG", "en")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS * 3), "utf-8")
    return tmp_path


TRAIN = (
    "train",
    "--pretrain",
    "texts.json",
    "--preset",
    "tiny",
    "--vocab-size",
    "400",
    "--pretrain-epochs",
    "4",
    "--batch-size",
    "1",
    "--save-minutes",
    "0",
    "--out",
    "m.bin",
)


def test_own_data_have_a_warm_up_of_their_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN]) == 0
    assert "warning" not in capsys.readouterr().err
    state = load_model_auto("m.bin").training_state
    assert state.run["pretrain_train"]["warmup"] is None
    assert state.warmup == default_warmup(state.total_steps)
    assert main(["info", "m.bin", "--toml"]) == 0
    (here / "run.toml").write_text(capsys.readouterr().out, "utf-8")
    assert main(["train", "--config", "run.toml", "--save-minutes", "0", "--out", "again.bin"]) == 0
    again = load_model_auto("again.bin").training_state
    assert (again.warmup, again.run, again.history) == (state.warmup, state.run, state.history)


def test_the_recipe_of_the_packaged_data_stays(here: Path) -> None:
    assert run_config({}).pretrain_train == PRETRAIN == default_run().pretrain_train
    assert PRETRAIN.warmup == 20
    (here / "data").mkdir()
    for path in packaged_data():
        (here / "data" / path.name).write_bytes(path.read_bytes())
    config = run_config({})
    assert config.pretrain == ("data/pretraining_data.json",) and config.finetune_train.warmup == 20
    (here / "data" / "pretraining_data.json").write_text(json.dumps(TEXTS), "utf-8")
    assert run_config({}).pretrain_train == replace(PRETRAIN, warmup=None)
    assert run_config({"pretrain": ("texts.json",), "warmup": 3}).pretrain_train.warmup == 3
    table = {"pretrain_train": {"epochs": 3}}
    assert run_config({"pretrain": packaged_data()[:1]}, table).pretrain_train.warmup == 20
    table["data_fingerprint"] = {}  # a run that is repeated, which had none of its own
    assert run_config({"pretrain": packaged_data()[:1]}, table).pretrain_train.warmup is None


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "warning: pretrain: a warm-up of 99 steps in a training of"),
        ("zh", "步，而预热为 99 步：学习率达不到"),
    ],
)
def test_the_command_line_reports_one_that_does_not_fit(
    here: Path, capsys: pytest.CaptureFixture[str], language: str, sentence: str
) -> None:
    assert main([*TRAIN, "--warmup", "99", "--lang", language]) == 0
    captured = capsys.readouterr()
    assert sum(sentence in line for line in captured.err.splitlines()) == 1
    assert "CgptWarning" not in captured.err and not captured.out
