"""The moments of a model have one owner: an optimizer made before it is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import same_bits
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt import AdamW, CheckpointError, ConfigError, Muon, TrainConfig, Trainer
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.llm import LLM, load_model_auto
from cgpt.models.gpt2 import GPT
from cgpt.optim.lora import Lora

CONFIG = TrainConfig(epochs=1, batch_tokens=64, warmup=1, lr=1e-2)


def learn(gpt: GPT, optimizer: AdamW, steps: int = 1) -> None:
    ids = np.arange(12, dtype=np.int32)[None] + 262
    for _ in range(steps):
        gpt.forward(ids[:, :-1], ids[:, 1:])
        gpt.backward()
        optimizer.step(lr=1e-2)


def trained() -> LLM:
    llm = small_llm()
    Trainer(llm, CONFIG).fit(TEXTS)
    return llm


@pytest.mark.parametrize("make", [AdamW, Muon, lambda gpt: Lora(gpt, 2, 4.0)])
def test_beside_that_of_an_llm_no_other_is_made(make) -> None:
    """It would have begun with their moments at zero, and a save would have mixed the two."""
    llm = trained()
    optimizer, m = llm.optimizer, llm.gpt.arena.m.copy()
    assert optimizer is not None and m.any()
    with pytest.raises(
        ConfigError,
        match=r"trained by llm\.optimizer \(muon\), which has the "
        r"moments; use that one, or set llm\.optimizer = None",
    ):
        make(llm.gpt)
    assert llm.gpt.arena.m is not None and same_bits(llm.gpt.arena.m, m)
    learn(llm.gpt, optimizer)  # it goes on as if nothing had been asked
    assert not llm.gpt._gradients.frozen


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_one_takes_the_place_of_another_when_that_is_said(tmp_path: Path, save) -> None:
    llm = trained()
    old = llm.optimizer
    llm.optimizer = None
    new = AdamW(llm.gpt, weight_decay=0.25)
    with pytest.raises(ConfigError, match="another optimizer was made for this model later"):
        old.step(lr=1e-3)
    with pytest.raises(ConfigError, match="another optimizer was made for this model later"):
        llm.optimizer = old
    llm.optimizer = new
    learn(llm.gpt, new)
    again = load_model_auto(save(llm, tmp_path / "a"))
    assert type(again.optimizer) is AdamW and again.optimizer.to_dict() == new.to_dict()
    assert same_bits(again.gpt.arena.m, llm.gpt.arena.m)
    # Or at once; the one before is then neither asked for a step nor saved.
    last = Muon(llm.gpt, replaces=llm.optimizer)
    with pytest.raises(CheckpointError, match="an optimizer whose moments belong to one that was"):
        save(llm, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    save(llm, tmp_path / "b", optimizer=False)
    with pytest.raises(ConfigError, match="another optimizer was made"):
        llm.optimizer.step(lr=1e-3)
    llm.optimizer = last
    save(llm, tmp_path / "b")


def test_a_model_of_its_own_takes_the_optimizer_made_last() -> None:
    gpt = small_llm().gpt
    first = AdamW(gpt)
    learn(gpt, first)
    second = AdamW(gpt)  # as where a cell of a notebook is run again
    assert not gpt.arena.m.any()
    with pytest.raises(ConfigError, match="AdamW: another optimizer was made for this model later"):
        first.step(lr=1e-3)
    learn(gpt, second)
    del second
    learn(gpt, Muon(gpt))
    lora = Lora(gpt, 2, 4.0)
    learn(gpt, lora, 2)
    plain = AdamW(gpt)
    with pytest.raises(ConfigError, match="Lora: another optimizer"):
        lora.step(lr=1e-3)
    before = gpt.parameters()["wte.weight"].copy()
    learn(gpt, plain)
    assert not same_bits(before, gpt.parameters()["wte.weight"])


def test_an_llm_that_is_gone_keeps_nothing() -> None:
    llm = trained()
    gpt = llm.gpt
    del llm
    learn(gpt, AdamW(gpt))


def test_the_optimizer_of_another_model_is_refused() -> None:
    llm, other = small_llm(), small_llm()
    with pytest.raises(ConfigError, match="this optimizer trains another model"):
        llm.optimizer = AdamW(other.gpt)
    with pytest.raises(ConfigError, match="this optimizer trains another model"):
        LLM(llm.tokenizer, llm.gpt, AdamW(other.gpt))
    with pytest.raises(ConfigError, match=r"LLM\.optimizer: expected an optimizer"):
        llm.optimizer = "adamw"
    assert llm.optimizer is None


def test_a_training_changes_the_optimizer_of_its_llm() -> None:
    """Phases hand the model on: Muon, an adapter, another adapter, and all weights again."""
    llm = trained()
    for changes in (dict(lora_rank=2), dict(lora_rank=3), dict(optimizer="adamw"), {}):
        old = llm.optimizer
        config = TrainConfig(**{**CONFIG.to_dict(), "optimizer": None, **changes})
        Trainer(llm, config, "finetune").fit(DIALOGUES)
        assert llm.optimizer is not old
        with pytest.raises(ConfigError, match="another optimizer was made"):
            old.step(lr=1e-3)


def test_settings_that_are_refused_change_nothing() -> None:
    llm = trained()
    m = llm.gpt.arena.m.copy()
    with pytest.raises(ConfigError, match="no parameter is named like"):
        AdamW(llm.gpt, freeze=["nothing"], replaces=llm.optimizer)
    assert same_bits(llm.gpt.arena.m, m)
    llm.optimizer.step(lr=0.0)
