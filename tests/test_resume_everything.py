"""A training with everything on is stopped after each of its steps and goes on to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import independent_reader
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import TrainConfig
from cgpt.kernels import get_num_threads, set_num_threads
from cgpt.llm import LLM, load_model_auto, load_with_adapter
from cgpt.optim.lora import Lora
from cgpt.training.trainer import Trainer

EVERYTHING = TrainConfig(
    epochs=6,
    batch_tokens=48,
    grad_accum=2,
    lr=3e-3,
    warmup=3,
    dropout=0.2,
    val_fraction=0.2,
    patience=3,
    seed=7,
    freeze=("wpe*",),
    join_dialogues=2,
    recompute=True,
    schedule="wsd",
    embedding_lr=0.5,
    label_smoothing=0.1,
    ema=0.8,
    clip=0.5,
    momentum=0.9,
)
FORMS: dict[str, TrainConfig] = {
    "muon": replace(EVERYTHING, optimizer="muon"),
    "adamw": replace(EVERYTHING, optimizer="adamw"),
    "lora": replace(EVERYTHING, optimizer="adamw", lora_rank=2, freeze=()),
}
PHASES: dict[str, list] = {"pretrain": [*TEXTS, *TEXTS[::-1]], "finetune": DIALOGUES * 2}


def after(llm: LLM, config: TrainConfig, phase: str, steps: int = 0) -> LLM:
    """The model after so many steps of the phase, or at its end."""
    Trainer(llm, config, phase).fit(
        PHASES[phase], should_stop=lambda: steps and llm.training_state.step >= steps
    )
    return llm


def outcome(llm: LLM) -> dict[str, Any]:
    """All that a training comes to but the time that it took."""
    state = llm.training_state.to_dict()
    state.pop("seconds")
    moments = llm.optimizer.arena if llm.optimizer else llm.gpt.arena
    return {
        "state": state,
        "optimizer": llm.optimizer
        and {key: one for key, one in llm.optimizer.to_dict().items() if key != "base"},
        "arrays": [
            None if one is None else one.tobytes()
            for one in (
                llm.gpt.arena.data,
                moments.data,
                moments.m,
                moments.v,
                llm.best_weights,
                llm.average,
            )
        ],
    }


def saved(llm: LLM, folder: Path, save: Callable[..., Path]) -> LLM:
    """What comes back from a file; the reader of the specification has read it too."""
    path = save(llm, folder / "m")
    if save is save_model_binary:
        model = independent_reader.read(str(path))
        assert model.training_state == llm.training_state.to_dict()
        assert bool(model.live) == (llm.average is not None)
        assert bool(model.best) == (llm.best_weights is not None)
    assert describe(path, verify=True)["verified"]
    if isinstance(llm.optimizer, Lora):
        return load_with_adapter(folder / "base", path)
    return load_model_auto(path)


@pytest.mark.parametrize(
    ("form", "save"),
    [
        ("muon", save_model_binary),
        ("muon", save_model_json),
        ("adamw", save_model_binary),
        ("adamw", save_model_json),
        ("lora", save_model_binary),
    ],
)  # JSON holds whole models only
@pytest.mark.parametrize("phase", PHASES)
def test_every_step_can_be_the_last_before_a_restart(
    tmp_path: Path, phase: str, form: str, save: Callable[..., Path]
) -> None:
    config = FORMS[form]
    base = save_model_binary(small_llm(), tmp_path / "base")
    whole = after(load_model_auto(base), config, phase)
    expected, threads = outcome(whole), get_num_threads()
    steps = whole.training_state.step
    assert steps > 8 and whole.training_state.history
    llm = load_model_auto(base)
    for step in range(1, steps):  # stopped, saved and loaded after each, in one chain
        set_num_threads(1 + step % 3)
        llm = saved(after(llm, config, phase, step), tmp_path, save)
        assert llm.training_state.step == step
    set_num_threads(threads)
    assert outcome(after(llm, config, phase)) == expected
