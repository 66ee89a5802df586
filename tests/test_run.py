"""Whole runs: started, stopped, resumed to the bit, refused on other data, continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_llm import FACTS, TEXTS, small_llm, small_tokenizer

from cgpt.config import RunConfig, TrainConfig
from cgpt.errors import CgptError, ConfigError, DataError
from cgpt.language_model import TrainingState
from cgpt.llm import LLM
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.recipe import default_run
from cgpt.training.run import TrainingRun, continue_training

PRETRAIN = TrainConfig(epochs=2, batch_tokens=48, grad_accum=2, warmup=2, dropout=0.1)
FINETUNE = TrainConfig(epochs=2, batch_tokens=48, warmup=2, val_fraction=0.2, join_dialogues=2)


@pytest.fixture
def small_vocabulary(monkeypatch):
    """Spare the second that jieba takes to read its dictionary."""
    monkeypatch.setattr(
        Tokenizer, "train", lambda texts, size, kind: (list(texts), small_tokenizer())[1]
    )


@pytest.fixture
def config(tmp_path, monkeypatch, small_vocabulary) -> RunConfig:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    chats = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in FACTS
    ]
    (tmp_path / "chats.json").write_text(json.dumps(chats), encoding="utf-8")
    return RunConfig(
        pretrain=("texts.json",),
        chat=("chats.json",),
        preset="tiny",
        seed=3,
        pretrain_train=PRETRAIN,
        finetune_train=FINETUNE,
    )


def fit_all(run: TrainingRun, stop_after: int = 0) -> list[str]:
    """Train what is left; after so many steps in all (0: never) stop. How the phases stopped."""
    left, stopped = [stop_after], []

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] == 0

    for name in run.phases:
        stopped.append(run.fit_phase(name, should_stop=should_stop).stopped)
        if stopped[-1] == "interrupted":
            break
    return stopped


def reloaded(llm: LLM) -> LLM:
    """As a checkpoint gives it back, without a file."""
    state = TrainingState.from_dict(json.loads(json.dumps(llm.training_state.to_dict())))
    gpt = type(llm.gpt)(llm.config, weights=llm.gpt.arena.data.copy())
    for name, array in zip("mv", gpt.arena.require_moments(), strict=True):
        array[:] = getattr(llm.gpt.arena, name)
    optimizer = type(llm.optimizer).from_dict(gpt, llm.optimizer.to_dict())
    other = LLM(llm.tokenizer, gpt, optimizer, state)
    other.best_weights = None if llm.best_weights is None else llm.best_weights.copy()
    return other


def test_a_run_trains_both_phases(config):
    run = TrainingRun.start(config)
    assert run.phases == ["pretrain", "finetune"]
    assert [(one.n_documents, one.n_dialogues) for one in run.sources.values()] == [
        (len(FACTS), 0),
        (0, len(FACTS)),
    ]
    assert run.llm.config.n_embd == 64 and run.llm.config.vocab_size == len(small_tokenizer())
    assert fit_all(run) == ["done", "done"]
    assert run.phases == [] and run.llm.training_state.done == ["pretrain", "finetune"]
    assert {entry[0] for entry in run.llm.training_state.history} == {"pretrain", "finetune"}
    assert TrainingRun.resume(run.llm).phases == []


def test_a_run_stopped_anywhere_resumes_to_the_bit(config):
    whole = TrainingRun.start(config)
    fit_all(whole)
    steps = len(whole.llm.training_state.history)
    assert steps > 8
    for stop in range(1, steps):
        run = TrainingRun.start(config)
        fit_all(run, stop)
        resumed = TrainingRun.resume(reloaded(run.llm))
        fit_all(resumed)
        states = [one.llm.training_state.to_dict() for one in (resumed, whole)]
        for state in states:
            state.pop("seconds")
        assert states[0] == states[1]
        for name in ("data", "m", "v"):
            assert np.array_equal(
                getattr(resumed.llm.gpt.arena, name), getattr(whole.llm.gpt.arena, name)
            )


def test_run_config_round_trip(config):
    values = json.loads(json.dumps(config.to_dict()))
    assert RunConfig.from_dict(values) == config
    assert config.pretrain_train.seed == config.finetune_train.seed == 3
    assert values["pretrain"] == ["texts.json"]


def test_runs_of_one_phase(config):
    assert TrainingRun.start(replace(config, pretrain=())).phases == ["finetune"]
    assert TrainingRun.start(replace(config, chat=())).phases == ["pretrain"]
    skipped = replace(config, pretrain_train=replace(PRETRAIN, epochs=0))
    assert TrainingRun.start(skipped).phases == ["finetune"]
    with pytest.raises(DataError, match="no data to train on"):
        TrainingRun.start(RunConfig())


def test_changed_or_missing_data_is_refused(config, tmp_path):
    run = TrainingRun.start(config)
    fit_all(run, 1)
    (tmp_path / "chats.json").write_text('["用户：你好助手：你好"]', encoding="utf-8")
    with pytest.raises(DataError, match=r"the finetune data \(chats\.json\) is not that"):
        TrainingRun.resume(run.llm)
    (tmp_path / "chats.json").unlink()
    with pytest.raises(DataError, match=r"chats\.json: no such file"):
        TrainingRun.resume(run.llm)


def test_data_of_finished_phases_is_not_needed(config, tmp_path):
    run = TrainingRun.start(config)
    run.fit_phase("pretrain")
    (tmp_path / "texts.json").unlink()
    resumed = TrainingRun.resume(run.llm)
    assert resumed.phases == ["finetune"]
    with pytest.raises(ConfigError, match="no data for the phase 'pretrain'"):
        resumed.fit_phase("pretrain")


def test_resume_overrides(config):
    run = TrainingRun.start(config)
    fit_all(run, 1)
    resumed = TrainingRun.resume(run.llm, epochs=5, lr=0.5)
    assert (resumed.config.pretrain_train.epochs, resumed.config.pretrain_train.lr) == (5, 0.5)
    assert resumed.config.finetune_train == run.config.finetune_train
    assert resumed.llm.training_state.run == resumed.config.to_dict()
    with pytest.raises(ConfigError, match="lr must be"):
        TrainingRun.resume(run.llm, lr=-1.0)
    with pytest.raises(ConfigError, match="epochs must be"):
        TrainingRun.resume(run.llm, epochs=0)


def test_more_epochs_reopen_the_last_phase(config):
    run = TrainingRun.start(replace(config, finetune_train=replace(FINETUNE, max_steps=3)))
    assert fit_all(run) == ["done", "budget"]
    with pytest.raises(ConfigError, match="give more than"):
        TrainingRun.resume(reloaded(run.llm), epochs=run.llm.training_state.epoch or 1)
    resumed = TrainingRun.resume(run.llm, epochs=6)
    assert resumed.phases == ["finetune"]
    result = resumed.fit_phase("finetune")
    assert (result.stopped, result.epochs) == ("done", 6) and result.steps > 3


def test_a_run_that_a_budget_ended_goes_on_without_it(config):
    plain = replace(FINETUNE, val_fraction=0.0)
    whole = TrainingRun.start(replace(config, finetune_train=plain))
    run = TrainingRun.start(replace(config, finetune_train=replace(plain, max_steps=3)))
    assert fit_all(whole) == ["done", "done"] and fit_all(run) == ["done", "budget"]
    resumed = TrainingRun.resume(reloaded(run.llm))
    assert fit_all(resumed) == ["done"]
    assert np.array_equal(resumed.llm.gpt.arena.data, whole.llm.gpt.arena.data)
    assert TrainingRun.resume(resumed.llm).phases == []


def test_runs_that_cannot_be_resumed_say_why(config):
    with pytest.raises(DataError, match="does not say on which data"):
        TrainingRun.resume(small_llm())
    run = TrainingRun.start(config)
    fit_all(run, 1)
    run.llm.optimizer = None
    with pytest.raises(CgptError, match="without the optimizer's state"):
        TrainingRun.resume(run.llm)


def test_chat_data_without_dialogues_is_told(config, tmp_path):
    with pytest.raises(DataError, match=r"texts\.json: no dialogues .*, only 6 texts"):
        TrainingRun.start(replace(config, chat=("texts.json",)))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"seed": -1}, "seed must be"),
        ({"preset": "huge"}, "unknown preset"),
        ({"vocab_size": 0}, "vocab_size must be"),
        ({"pretrain_train": 3}, "must be a TrainConfig"),
    ],
)
def test_run_configs_that_cannot_work_are_told(named, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**named)


def test_continued_training_has_a_constant_rate_and_can_be_resumed(config):
    run = TrainingRun.start(config)
    fit_all(run)
    seen = []
    result = continue_training(run.llm, 30, 5e-5, chat=["chats.json"], on_progress=seen.append)
    assert (result.stopped, result.epochs) == ("done", 30)
    assert seen[-1].lr == pytest.approx(5e-5) and seen[-1].loss < seen[0].loss
    stops = iter([False, True])
    llm = run.llm
    continue_training(llm, 30, 5e-5, chat=["chats.json"], should_stop=lambda: next(stops))
    assert llm.training_state.step == 2
    resumed = TrainingRun.resume(llm)
    assert resumed.phases == ["finetune"]
    assert resumed.config.finetune_train.epochs == 30
    assert resumed.fit_phase("finetune").epochs == 30


def test_continued_training_on_given_documents(config):
    llm = small_llm()
    run = TrainingRun.start(config)
    result = continue_training(llm, 2, 1e-3, run.documents("finetune"))
    assert result.stopped == "done" and llm.training_state.run == {}
    for epochs, lr in ((0, 1e-3), (2, float("nan")), (2, -1.0)):
        with pytest.raises(ConfigError):
            continue_training(llm, epochs, lr, run.documents("finetune"))


def test_the_default_run_is_that_of_the_packaged_data():
    config = default_run()
    assert config.preset == "small" and config.pretrain_train.epochs > 0
    assert [Path(path).name for path in (*config.pretrain, *config.chat)] == [
        "pretraining_data.json",
        "chat_training_data.json",
    ]


def test_new_data_begins_the_phase_anew_from_the_weights(config, tmp_path):
    run = TrainingRun.start(config)
    fit_all(run, 1)
    assert run.llm.training_state.phase == "pretrain" and not run.changed
    weights = run.llm.gpt.arena.data.copy()
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS[1:]), encoding="utf-8")
    with pytest.raises(DataError, match="new_data=True"):
        TrainingRun.resume(reloaded(run.llm))
    again = TrainingRun.resume(reloaded(run.llm), new_data=True)
    state = again.llm.training_state
    assert again.changed == ["pretrain"]
    assert (state.step, state.batch, state.documents) == (0, 0, "")
    assert np.array_equal(again.llm.gpt.arena.data, weights)
    fit_all(again, 1)
    later = TrainingRun.resume(reloaded(again.llm))  # the new data is now the run's
    assert later.changed == [] and later.llm.training_state.step == 1
    assert fit_all(later) == ["done", "done"]


def test_new_data_of_a_later_phase_leaves_the_one_under_way_alone(config, tmp_path):
    run = TrainingRun.start(config)
    fit_all(run, 1)
    chats = json.loads((tmp_path / "chats.json").read_text("utf-8"))
    (tmp_path / "chats.json").write_text(json.dumps(chats[1:]), encoding="utf-8")
    again = TrainingRun.resume(reloaded(run.llm), new_data=True)
    assert again.changed == ["finetune"] and again.llm.training_state.step == 1
    assert fit_all(again) == ["done", "done"]
