"""Which optimizer trains, at which rate: the default, by name, for an adapter, behind a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_llm import FACTS, TEXTS, small_llm

from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import main
from cgpt.config import EMBEDDING_RATES, OPTIMIZERS, RunConfig, TrainConfig, default_lr
from cgpt.errors import ConfigError
from cgpt.llm import LLM, load_model_auto
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.muon import Muon
from cgpt.optim.registry import make_optimizer
from cgpt.training.recipe import default_run, recorded
from cgpt.training.run import TrainingRun, continue_training
from cgpt.training.trainer import Trainer

MODEL = "checkpoints/model_final.bin"
SHORT = TrainConfig(epochs=2, batch_tokens=48, warmup=2)
KINDS = {"adamw": AdamW, "muon": Muon}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts.json and chats.json, current while the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "cgpt.tokenizers.vocabulary._jieba_cut", lambda: list
    )  # which takes a second
    chats = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in FACTS
    ]
    for name, value in (("texts", TEXTS), ("chats", chats)):
        Path(f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def files(**changes: object) -> RunConfig:
    """A short run of both phases over the files of `place`."""
    return replace(
        RunConfig(
            pretrain=("texts.json",),
            chat=("chats.json",),
            preset="tiny",
            pretrain_train=SHORT,
            finetune_train=SHORT,
        ),
        **changes,
    )


def stopped(llm: LLM, config: TrainConfig, steps: int) -> LLM:
    """The model after so many steps of a phase that is still under way."""
    calls = iter(range(1, 100))
    Trainer(llm, config).fit(TEXTS, should_stop=lambda: next(calls) == steps)
    return llm


# ---- what is not named -----------------------------------------------------------------------


def test_new_phases_are_trained_by_muon_at_its_rate() -> None:
    config = TrainConfig().resolved(256)
    assert (config.optimizer, config.lr) == ("muon", default_lr("muon", 256))
    assert config.embedding_lr == EMBEDDING_RATES["muon"] != EMBEDDING_RATES["adamw"]
    assert config.resolved(512) == config  # what is named stays
    assert type(make_optimizer(small_llm().gpt, TrainConfig())) is Muon
    llm = small_llm()
    found = []
    Trainer(llm, replace(SHORT, warmup=0)).fit(TEXTS, lambda progress: found.append(progress.lr))
    assert type(llm.optimizer) is Muon
    assert found[0] == default_lr("muon", llm.config.n_embd)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_is_that_of_the_optimizer_and_falls_with_the_width(name: str) -> None:
    assert TrainConfig(optimizer=name).resolved(256).lr == default_lr(name, 256)
    assert TrainConfig(optimizer=name, lr=7e-4).resolved(256).lr == 7e-4
    assert default_lr(name, 64) == default_lr(name, 256) == 2 * default_lr(name, 512)
    assert default_lr("adamw", 256) != default_lr("muon", 256)


def test_the_default_run_says_what_it_is_trained_by() -> None:
    run = default_run().resolved(512)
    for train in (run.pretrain_train, run.finetune_train):
        assert (train.optimizer, train.lr) == ("muon", default_lr("muon", 512))
    assert RunConfig.from_dict(recorded(run.to_dict())) == run


def test_an_adapter_is_trained_by_adamw() -> None:
    config = TrainConfig(lora_rank=2).resolved(256)
    assert (config.optimizer, config.lr) == ("adamw", default_lr("adamw", 256))
    assert replace(TrainConfig(), lora_rank=2).resolved(256) == config
    assert isinstance(make_optimizer(small_llm().gpt, TrainConfig(lora_rank=2)), Lora)
    with pytest.raises(ConfigError, match="lora_rank=2 is trained by adamw"):
        TrainConfig(lora_rank=2, optimizer="muon")


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ([], ("muon", "muon")),
        (["--optimizer", "adamw"], ("adamw", "adamw")),
        (["--lora-rank", "2", "--save-pretrained", "base.bin"], ("muon", "adamw")),
    ],
    ids=str,
)
def test_the_command_records_optimizer_and_rate(
    place: Path, given: list[str], kinds: tuple[str, str]
) -> None:
    assert (
        main(
            [
                "train",
                "--preset",
                "tiny",
                "--pretrain",
                "texts.json",
                "--chat",
                "chats.json",
                "--max-steps",
                "1",
                *given,
            ]
        )
        == 0
    )
    run = load_model_auto(MODEL).training_state.run
    for phase, kind in zip(("pretrain_train", "finetune_train"), kinds, strict=True):
        train = run[phase]
        assert (train["optimizer"], train["lr"]) == (kind, default_lr(kind, 64))
        assert train["embedding_lr"] == EMBEDDING_RATES[kind]


@pytest.mark.parametrize("freeze", ["wte.weight", "h.0.*", "h.*"])
def test_what_is_frozen_stays_under_muon(freeze: str) -> None:
    llm = small_llm()
    before = {name: array.copy() for name, array in llm.gpt.parameters().items()}
    Trainer(llm, replace(SHORT, freeze=(freeze,))).fit(TEXTS)
    assert type(llm.optimizer) is Muon
    for name, array in llm.gpt.parameters().items():
        frozen = name == freeze or name.startswith(freeze.rstrip("*"))
        assert np.array_equal(array, before[name]) == frozen, name


# ---- what a model was trained by -------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_phase_goes_on_by_what_it_was_begun_with(name: str, tmp_path: Path) -> None:
    """To the bit, where the optimizer is not named the second time."""
    named = replace(SHORT, optimizer=name, lr=1e-3, embedding_lr=2.0)
    whole = small_llm()
    Trainer(whole, named).fit(TEXTS)
    path = save_model_binary(stopped(small_llm(), named, 2), tmp_path / "part.bin")
    part = load_model_auto(path)
    Trainer(part, replace(SHORT, lr=1e-3)).fit(TEXTS)
    assert type(part.optimizer) is KINDS[name] and part.training_state.step > 2
    assert np.array_equal(part.gpt.arena.data, whole.gpt.arena.data)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_phase_does_not_go_on_by_another(name: str) -> None:
    other = next(one for one in OPTIMIZERS if one != name)
    llm = stopped(small_llm(), replace(SHORT, optimizer=name), 2)
    with pytest.raises(
        ConfigError, match=f"begun with optimizer={name} and cannot go on with optimizer={other}"
    ):
        Trainer(llm, replace(SHORT, optimizer=other)).fit(TEXTS)


def test_runs_of_before_there_was_a_choice_are_of_adamw(place: Path) -> None:
    run = TrainingRun.start(
        files(
            pretrain_train=replace(SHORT, optimizer="adamw"),
            finetune_train=replace(SHORT, optimizer="adamw"),
        )
    )
    calls = iter(range(1, 100))
    run.fit_phase("pretrain", should_stop=lambda: next(calls) == 1)
    for name in ("pretrain_train", "finetune_train"):
        for field in ("optimizer", "embedding_lr"):
            del run.llm.training_state.run[name][field]
    again = TrainingRun.resume(load_model_auto(save_model_binary(run.llm, "old.bin")))
    for name in again.phases:
        train = again.config.phase(name)[1]
        assert (train.optimizer, train.embedding_lr) == ("adamw", 1.0)
    for name in tuple(again.phases):
        again.fit_phase(name)
    assert type(again.llm.optimizer) is AdamW


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_model_is_trained_further_by_what_trained_it(place: Path, name: str, whole: bool) -> None:
    run = TrainingRun.start(files(finetune_train=replace(SHORT, optimizer=name)))
    run.fit_phase("finetune")
    save_model_binary(run.llm, "model.bin", optimizer=whole)
    llm = load_model_auto("model.bin")
    continue_training(llm, 1, 1e-3, chat=["chats.json"])
    assert type(llm.optimizer) is KINDS[name]
    assert llm.training_state.run["finetune_train"]["optimizer"] == name
    fresh = small_llm()
    continue_training(fresh, 1, 1e-3, chat=["chats.json"])
    assert type(fresh.optimizer) is Muon
