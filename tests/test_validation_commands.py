"""`cgpt train --validation PATH --eval-every N`: recorded, checked and resumed to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS

from cgpt.config import RunConfig
from cgpt.errors import ConfigError, DataError
from cgpt.llm import load_model_auto
from cgpt.training.callbacks import FitResult
from cgpt.training.config_file import load_toml
from cgpt.training.run import TrainingRun
from cgpt.training.trainer import Trainer

Run = Callable[..., tuple[int, str, str]]


def rows(dialogues: list) -> str:
    return json.dumps(
        [
            {"messages": [{"role": turn.role, "content": turn.content} for turn in one]}
            for one in dialogues
        ],
        ensure_ascii=False,
    )


@pytest.fixture
def run(run_cgpt: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CGPT_LANG", "en")
    Path("texts.json").write_text(json.dumps(TEXTS[:4] * 3), "utf-8")
    Path("chats.json").write_text(rows(DIALOGUES[:4] * 2), "utf-8")
    Path("own.json").write_text(json.dumps(TEXTS[4:]), "utf-8")
    Path("own_chats.json").write_text(rows(DIALOGUES[4:]), "utf-8")
    return run_cgpt


TRAIN = (
    "train",
    "--pretrain",
    "texts.json",
    "--chat",
    "chats.json",
    "--preset",
    "tiny",
    "--vocab-size",
    "400",
    "--batch-size",
    "1",
    "--pretrain-epochs",
    "3",
    "--finetune-epochs",
    "7",
    "--keep-duplicates",
    "--save-minutes",
    "0",
    "--out",
    "m.bin",
)
OWN = ("--validation", "own.json", "own_chats.json", "--eval-every", "2", "--patience", "40")


def evaluated(path: str, phase: str) -> list[int]:
    return [
        entry[1]
        for entry in load_model_auto(path).training_state.history
        if entry[0] == phase and entry[3] is not None
    ]


def test_each_phase_is_evaluated_on_what_is_of_its_kind(run: Run) -> None:
    code, out, err = run(*TRAIN, *OWN, "--json")
    assert code == 0 and "documents to evaluate on: pre-training 2, fine-tuning 2" in err
    phases = json.loads(out)["phases"]
    for name, result in phases.items():
        assert result["validation_documents"] == 2 and result["val_loss"] > 0
        last = result["steps"]
        assert evaluated("m.bin", name) == sorted({*range(2, last + 1, 2), last})
    state = load_model_auto("m.bin").training_state
    assert state.run["validation"] == ["own.json", "own_chats.json"]
    assert state.run["finetune_train"]["eval_every"] == 2
    assert "validation:" in state.data_fingerprint


@pytest.fixture
def stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A whole run as whole.bin, and one that was stopped after the third step of fine-tuning."""
    assert run(*TRAIN[:-1], "whole.bin", *OWN)[0] == 0
    fit = Trainer.fit

    def stopping(trainer: Trainer, *given: object, **named: object) -> FitResult:
        state = trainer.llm.training_state
        stop = given[2]
        return fit(
            trainer,
            *given[:2],
            lambda: (
                stop()
                or (  # type: ignore[arg-type,operator]
                    trainer.phase == "finetune" and state.step == 3
                )
            ),
            *given[3:],
            **named,
        )  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", stopping)
        assert run(*TRAIN, *OWN)[0] == 130
    return run


def test_a_stopped_run_is_resumed_to_the_bit(stopped: Run) -> None:
    assert stopped("resume")[0] == 0
    one, two = load_model_auto("whole.bin"), load_model_auto("m.bin")
    assert np.array_equal(one.gpt.arena.data, two.gpt.arena.data)
    assert one.training_state.history == two.training_state.history
    assert one.training_state.best_loss == two.training_state.best_loss


def test_other_validation_data_is_refused_until_it_is_asked_for(stopped: Run) -> None:
    Path("own_chats.json").write_text(rows(DIALOGUES[3:]), "utf-8")
    code, _, err = stopped("resume")
    assert code == 1 and "the validation data (own.json, own_chats.json) is not that" in err
    code, _, err = stopped("resume", "--new-data")
    assert code == 0 and "beginning anew on it: validation" in err
    assert load_model_auto("m.bin").training_state.done == ["pretrain", "finetune"]


def test_a_run_is_repeated_from_its_toml(run: Run) -> None:
    assert run(*TRAIN, *OWN)[0] == 0
    Path("run.toml").write_text(run("info", "m.bin", "--toml")[1], "utf-8")
    assert load_toml("run.toml")["validation"] == ["own.json", "own_chats.json"]
    assert run("train", "--config", "run.toml", "--save-minutes", "0", "--out", "again.bin")[0] == 0
    one, two = load_model_auto("m.bin"), load_model_auto("again.bin")
    assert np.array_equal(one.gpt.arena.data, two.gpt.arena.data)
    assert one.training_state.run == two.training_state.run


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ("--validation", "own.json"),
            "finetune: the validation data (own.json) has nothing of the "
            "kind that the phase trains on; add texts",
        ),
        (("--validation", "own.json", "--val-fraction", "0.2"), "give one of the two"),
        (("--patience", "3"), "patience=3 needs held-out documents"),
        (("--eval-every", "3"), "eval_every=3 needs held-out documents"),
        (("--validation", "none.json"), "none.json"),
    ],
)
def test_what_cannot_be_is_told_before_the_training(
    run: Run, more: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(*TRAIN, *more)
    assert code == 1 and sentence in " ".join(err.split()) and not Path("m.bin").exists()


def test_phases_of_a_run_in_a_program(run: Run) -> None:
    with pytest.raises(ConfigError, match="pretrain: patience=2 needs"):
        RunConfig(pretrain=("texts.json",), pretrain_train={"patience": 2})
    config = RunConfig(
        pretrain=("texts.json",),
        validation=("own.json",),
        preset="tiny",
        vocab_size=400,
        tokenizer="chars",
    )
    found = TrainingRun.start(config)
    documents = found.validation_documents("pretrain")
    assert documents is not None and len(documents) == 2
    seen: list[float | None] = []
    result = found.fit_phase(
        "pretrain", callbacks=[lambda progress: seen.append(progress.val_loss)]
    )
    assert len(seen) == result.steps and seen[-1] is not None
    assert found.llm.metadata["phases"]["pretrain"]["validation_documents"] == 2
    with pytest.raises(DataError, match="has nothing of the kind"):
        TrainingRun.start(
            RunConfig(
                pretrain=("texts.json",),
                validation=("own_chats.json",),
                preset="tiny",
                vocab_size=400,
                tokenizer="chars",
            )
        )
