"""Own validation documents, evaluations every N steps, which documents were held out; callbacks."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm

import cgpt
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import TrainConfig
from cgpt.corpus.documents import encode_in_memory
from cgpt.errors import ConfigError, DataError
from cgpt.evaluation.perplexity import evaluate
from cgpt.llm import LLM, load_model_auto
from cgpt.training.callbacks import Callback, FitResult, Progress, StopTraining
from cgpt.training.trainer import Trainer

TRAINED, OWN = TEXTS[:4] * 4, TEXTS[4:]
CONFIG = TrainConfig(epochs=3, batch_tokens=48, lr=3e-3, dropout=0.1, seed=5)


def outcome(llm: LLM) -> dict[str, Any]:
    state = llm.training_state.to_dict()
    state.pop("seconds")
    arena = llm.gpt.arena
    return {
        "state": state,
        "arrays": [one.tobytes() for one in (arena.data, arena.m, arena.v)],
        "kept": [one is None or one.tobytes() for one in (llm.best_weights, llm.average)],
    }


def evaluated(llm: LLM) -> list[int]:
    return [step for _, step, _, loss in llm.training_state.history if loss is not None]


def stop_after(steps: int):
    left = count(1)
    return lambda: next(left) >= steps


def test_own_documents_are_evaluated_on_and_not_trained_on() -> None:
    llm, plain = small_llm(), small_llm()
    result = Trainer(llm, CONFIG).fit(TRAINED, validation=OWN)
    Trainer(plain, CONFIG).fit(TRAINED)
    losses = [entry[3] for entry in llm.training_state.history if entry[3] is not None]
    assert len(losses) == 3 and result.val_loss == min(losses)
    assert evaluate(llm, OWN).loss == pytest.approx(result.val_loss, rel=1e-6)
    assert (result.held_out, result.validation_documents) == ((), 2)
    assert result.tokens == plain.training_state.tokens
    if losses[-1] == min(losses):  # the best weights are the last ones
        assert llm.gpt.arena.data.tobytes() == plain.gpt.arena.data.tobytes()


def test_which_documents_a_split_held_out() -> None:
    result = Trainer(small_llm(), replace(CONFIG, val_fraction=0.25)).fit(TRAINED)
    assert len(result.held_out) == result.validation_documents == 4
    rest = [text for number, text in enumerate(TRAINED) if number not in result.held_out]
    own = [TRAINED[number] for number in result.held_out]
    other = small_llm()
    again = Trainer(other, CONFIG).fit(rest, validation=own)
    assert again.val_loss == result.val_loss
    assert "held_out" not in result.to_dict() and result.to_dict()["validation_documents"] == 4


@pytest.mark.parametrize("every", [1, 3])
def test_evaluations_come_every_so_many_steps(every: int) -> None:
    llm = small_llm()
    result = Trainer(llm, CONFIG).fit(TRAINED, validation=OWN, eval_every=every)
    expected = [*range(every, result.steps + 1, every)]
    if expected[-1] != result.steps:
        expected.append(result.steps)  # the weights that it ends with are looked at too
    assert evaluated(llm) == expected
    other = small_llm()
    Trainer(other, replace(CONFIG, eval_every=every)).fit(TRAINED, validation=OWN)
    assert outcome(other) == outcome(llm)


def test_patience_counts_evaluations_and_the_best_weights_come_back() -> None:
    llm = small_llm()
    config = replace(CONFIG, epochs=60, lr=3e-2, patience=4, eval_every=1, dropout=0.0)
    result = Trainer(llm, config).fit(TRAINED, validation=OWN)
    state = llm.training_state
    losses = [entry[3] for entry in state.history if entry[3] is not None]
    assert result.stopped == "early" and losses.index(min(losses)) == len(losses) - 5
    assert result.val_loss == state.best_loss == min(losses) < losses[-1]
    assert result.steps < state.total_steps and state.best_step == result.steps - 4
    assert evaluate(llm, OWN).loss == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize(
    "config", [replace(CONFIG, eval_every=2, patience=9), replace(CONFIG, eval_every=3, ema=0.9)]
)
def test_every_step_goes_on_to_the_bit(config: TrainConfig, tmp_path: Path) -> None:
    whole = small_llm()
    steps = Trainer(whole, config).fit(TRAINED, validation=OWN).steps
    llm = small_llm()
    for _ in range(1, steps):
        Trainer(llm, config).fit(TRAINED, validation=OWN, should_stop=stop_after(1))
        llm = load_model_auto(save_model_binary(llm, tmp_path / "m.bin"))
    Trainer(llm, config).fit(TRAINED, validation=OWN)
    assert outcome(llm) == outcome(whole)


@pytest.mark.parametrize("validation", [OWN[:1], OWN[::-1], None])
def test_other_validation_documents_are_refused_in_the_middle(validation: Any) -> None:
    llm = small_llm()
    Trainer(llm, CONFIG).fit(TRAINED, validation=OWN, should_stop=stop_after(1))
    with pytest.raises(DataError, match="step 1 was reached with other documents"):
        Trainer(llm, CONFIG).fit(TRAINED, validation=validation)


def test_encoded_documents_of_another_store_are_checked_too() -> None:
    llm = small_llm()
    train = encode_in_memory(llm.tokenizer, TRAINED)
    train.store.digests[:] = ["known"]
    for own in (OWN, encode_in_memory(llm.tokenizer, OWN)):
        Trainer(llm, CONFIG).fit(train, validation=own, should_stop=stop_after(1))
        with pytest.raises(DataError, match="other documents"):
            Trainer(llm, CONFIG).fit(train, validation=OWN[:1])
        Trainer(llm, CONFIG).fit(train, validation=OWN)


@pytest.mark.parametrize(
    ("config", "named", "error", "message"),
    [
        (replace(CONFIG, patience=2), {}, ConfigError, "patience=2 needs held-out documents"),
        (CONFIG, {"eval_every": 5}, ConfigError, "eval_every=5 needs held-out documents"),
        (
            replace(CONFIG, val_fraction=0.2),
            {"validation": OWN},
            ConfigError,
            "give one of the two",
        ),
        (CONFIG, {"validation": []}, DataError, "no token of the held-out documents"),
        (CONFIG, {"validation": "山"}, DataError, "found one string"),
        (CONFIG, {"eval_every": -1}, ConfigError, "eval_every must be"),
        (CONFIG, {"callbacks": print}, ConfigError, "expected a list of callbacks"),
        (CONFIG, {"callbacks": [7]}, ConfigError, "expected functions, or objects with a method"),
        (
            CONFIG,
            {"callbacks": [type("Mine", (), {"on_batch": print})()]},
            ConfigError,
            "Mine has a method on_batch, which nothing calls",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_changes(
    config: TrainConfig, named: Any, error: type[Exception], message: str
) -> None:
    llm = small_llm()
    with pytest.raises(error, match=message):
        Trainer(llm, config).fit(TRAINED, **named)
    assert not llm.training_state.phase and llm.optimizer is None


class Recorder(Callback):
    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.seen: list[tuple[str, Any]] = []

    def on_step(self, progress: Progress) -> None:
        assert progress.step == self.llm.training_state.step
        self.seen.append(("step", progress.step))

    def on_evaluation(self, progress: Progress) -> None:
        assert self.llm.training_state.history[-1][3] == progress.val_loss
        self.seen.append(("evaluation", progress.step))

    def on_epoch_end(self, progress: Progress) -> None:
        self.seen.append(("epoch", progress.epoch))

    def on_end(self, result: FitResult) -> None:
        assert not self.llm.training_state.unfinished
        self.seen.append(("end", result.stopped))


def test_callbacks_are_called_in_order() -> None:
    llm = small_llm()
    recorder, steps = Recorder(llm), []
    config = replace(CONFIG, epochs=2, batch_tokens=120, eval_every=2, max_steps=5)
    result = Trainer(llm, config).fit(
        TRAINED, validation=OWN, callbacks=[recorder, lambda progress: steps.append(progress.step)]
    )
    assert steps == [1, 2, 3, 4, 5] and result.stopped == "budget"
    per_epoch = next(at for kind, at in recorder.seen if kind == "epoch")
    assert per_epoch == 1
    expected: list[tuple[str, Any]] = []
    for step in range(1, 6):
        expected += [("evaluation", step)] if step % 2 == 0 else []
        expected.append(("step", step))
        expected += [("epoch", 1)] if step == llm.training_state.total_steps // 2 else []
    assert recorder.seen == [*expected, ("evaluation", 5), ("end", "budget")]


def test_a_callback_can_end_the_training_after_a_step() -> None:
    llm = small_llm()

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopTraining

    recorder = Recorder(llm)
    result = Trainer(llm, CONFIG).fit(TRAINED, callbacks=[stop, recorder])
    assert (result.stopped, result.steps) == ("interrupted", 3) and llm.training_state.unfinished
    assert "end" not in dict(recorder.seen)
    whole = small_llm()
    Trainer(whole, CONFIG).fit(TRAINED)
    Trainer(llm, CONFIG).fit(TRAINED)
    assert outcome(llm) == outcome(whole)


@pytest.mark.parametrize("method", ["on_step", "on_evaluation", "on_epoch_end", "on_end"])
def test_what_a_callback_raises_leaves_a_model_that_goes_on(method: str) -> None:
    whole, llm = small_llm(), small_llm()
    expected = Trainer(whole, CONFIG).fit(TRAINED, validation=OWN)

    def fail(about: object) -> None:
        raise OSError("no space")

    failing = Callback()
    setattr(failing, method, fail)
    with pytest.raises(OSError, match="no space"):
        Trainer(llm, CONFIG).fit(TRAINED, validation=OWN, callbacks=[failing])
    assert llm.training_state.unfinished and llm.training_state.step
    result = Trainer(llm, CONFIG).fit(TRAINED, validation=OWN)
    assert outcome(llm) == outcome(whole)
    assert replace(result, seconds=0.0) == replace(expected, seconds=0.0)


def test_the_best_checkpoints_are_those_of_the_evaluations(tmp_path: Path) -> None:
    llm = small_llm()
    manager = CheckpointManager(tmp_path, "best", keep=100)
    Trainer(llm, CONFIG).fit(
        TRAINED,
        validation=OWN,
        eval_every=2,
        on_checkpoint=lambda one: manager.step_done(one) and manager.wait(),
    )
    manager.close()
    found = {load_model_auto(path).training_state.step for path in tmp_path.glob("*.bin")}
    steps = llm.training_state.step
    assert found == {*range(2, steps + 1, 2)} and steps > 4


def test_dialogues_are_validated_on_dialogues() -> None:
    llm = small_llm()
    result = Trainer(llm, CONFIG, "finetune").fit(DIALOGUES[:4], validation=DIALOGUES[4:])
    assert evaluate(llm, DIALOGUES[4:]).loss == pytest.approx(result.val_loss, rel=1e-6)


def test_the_names_are_public() -> None:
    assert cgpt.Callback is Callback and cgpt.StopTraining is StopTraining
    assert cgpt.FitResult is FitResult and cgpt.Progress is Progress
    assert issubclass(cgpt.CgptWarning, UserWarning)
    assert np.isfinite(cgpt.Trainer(small_llm(), CONFIG).fit(TEXTS, validation=OWN).val_loss)
