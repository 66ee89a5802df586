"""The Trainer: the same bits again, after a stop too; budgets, early stopping, bad steps."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import chain, count, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_llm import DIALOGUES, TEXTS, small_llm, small_tokenizer, split

from cgpt.config import TrainConfig
from cgpt.corpus import _packing
from cgpt.corpus.documents import Samples, encode_in_memory
from cgpt.corpus.encoding import Sample, encode_dialogue
from cgpt.corpus.packing import pack
from cgpt.errors import CgptError, ConfigError, DataError
from cgpt.evaluation.perplexity import evaluate
from cgpt.training.epochs import Epochs, batch_offsets, group_offsets
from cgpt.training.trainer import Trainer

DOCUMENTS = {"pretrain": TEXTS * 2, "finetune": DIALOGUES * 2}
# Several micro-batches a step, several steps an epoch, and everything that is random.
CONFIG = TrainConfig(
    epochs=3,
    batch_tokens=48,
    grad_accum=2,
    lr=3e-3,
    warmup=2,
    dropout=0.1,
    join_dialogues=3,
    val_fraction=0.2,
    seed=5,
)


def after(steps: int):
    """should_stop that says so after so many steps."""
    left = count(1)
    return lambda: next(left) >= steps


def snapshot(llm):
    """All that must be equal to the bit; seconds are not."""
    state = llm.training_state.to_dict()
    state.pop("seconds")
    arena = llm.gpt.arena
    arrays = [arena.data, arena.m, arena.v]
    return (
        [array.tobytes() for array in arrays],
        state,
        llm.optimizer.step_count,
        None if llm.best_weights is None else llm.best_weights.tobytes(),
    )


def test_training_lowers_the_loss_and_tells_how():
    llm, seen = small_llm(), []
    config = TrainConfig(epochs=30, batch_tokens=64, lr=1e-2, warmup=3)
    result = Trainer(llm, config).fit(TEXTS, on_progress=seen.append)
    state = llm.training_state
    assert result.stopped == "done" and result.loss < 0.5 * seen[0].loss
    assert [one.step for one in seen] == list(range(1, result.steps + 1))
    assert seen[-1].steps == seen[-1].step == state.total_steps == state.step
    assert (seen[0].epoch, seen[-1].epoch, seen[-1].epochs) == (1, 30, 30)
    assert seen[-1].lr == pytest.approx(1e-3) and max(one.lr for one in seen) <= 1.001e-2
    assert seen[-1].tokens == result.tokens == 30 * sum(len(text) + 1 for text in TEXTS)
    assert all(one.seconds_left >= 0 and one.tokens_per_second > 0 for one in seen)
    assert state.history == [["pretrain", one.step, one.loss, None] for one in seen]
    assert state.done == ["pretrain"] and not state.unfinished


def test_reported_loss_is_the_mean_over_tokens():
    llm = small_llm()
    config = TrainConfig(epochs=1, batch_tokens=40, lr=1e-30, warmup=0)
    before = llm.loss(TEXTS)
    result = Trainer(llm, config).fit(TEXTS)
    assert result.steps > 1
    assert result.loss == pytest.approx(before, rel=1e-6)  # float32 losses, other batches


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_same_seed_same_bits(phase):
    first, second, other = small_llm(), small_llm(), small_llm()
    for llm, config in ((first, CONFIG), (second, CONFIG), (other, replace(CONFIG, seed=6))):
        Trainer(llm, config, phase).fit(DOCUMENTS[phase])
    assert snapshot(first) == snapshot(second)
    assert snapshot(first)[0] != snapshot(other)[0]


def test_recompute_changes_no_bit():
    kept, again = small_llm(), small_llm()
    Trainer(kept, CONFIG).fit(DOCUMENTS["pretrain"])
    Trainer(again, replace(CONFIG, recompute=True)).fit(DOCUMENTS["pretrain"])
    assert again.gpt.recompute and not kept.gpt.recompute
    assert snapshot(kept) == snapshot(again)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_stopping_after_any_step_changes_nothing(phase):
    whole = small_llm()
    steps = Trainer(whole, CONFIG, phase).fit(DOCUMENTS[phase]).steps
    assert steps > 2 * CONFIG.epochs
    for stop in range(1, steps):
        llm = small_llm()
        trainer = Trainer(llm, CONFIG, phase)
        result = trainer.fit(DOCUMENTS[phase], should_stop=after(stop))
        assert (result.stopped, result.steps) == ("interrupted", stop)
        assert llm.training_state.unfinished
        assert trainer.fit(DOCUMENTS[phase]).stopped == "done"
        assert snapshot(llm) == snapshot(whole)


RESUME = """
import sys
from cgpt import load_model_binary, save_model_binary
from cgpt.training.trainer import Trainer
from test_train import CONFIG, DOCUMENTS, after
phase, path, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
llm = load_model_binary(path)
Trainer(llm, CONFIG, phase).fit(DOCUMENTS[phase], should_stop=after(steps) if steps else None)
save_model_binary(llm, path)
"""


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_resume_in_new_processes_is_exact(phase, tmp_path):
    from cgpt.checkpoint.saving import save_model_binary
    from cgpt.llm import load_model_binary

    whole, llm, path = small_llm(), small_llm(), tmp_path / "model.bin"
    for one in (whole, llm):  # a finished earlier phase, whose moments must not leak
        if phase == "finetune":
            Trainer(one, replace(CONFIG, epochs=1)).fit(DOCUMENTS["pretrain"])
    Trainer(whole, CONFIG, phase).fit(DOCUMENTS[phase])
    # Past the first evaluation and inside the second epoch: best weights have to come along.
    state = llm.training_state
    Trainer(llm, CONFIG, phase).fit(
        DOCUMENTS[phase], should_stop=lambda: state.epoch == 1 and state.batch > 0
    )
    assert llm.best_weights is not None and state.batch > 0
    save_model_binary(llm, path)
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    for left in (1, 0):  # one step in one process, the rest in another
        subprocess.run(
            [sys.executable, "-c", RESUME, phase, str(path), str(left)], check=True, env=environment
        )
    assert snapshot(load_model_binary(path)) == snapshot(whole)


@pytest.mark.parametrize(
    ("config", "stopped"),
    [
        (replace(CONFIG, epochs=40, lr=2e-2, patience=2, dropout=0.0), "early"),
        (CONFIG, "done"),
        (replace(CONFIG, max_steps=4), "budget"),
    ],
)
def test_a_phase_that_was_cut_off_before_its_end_is_only_ended(config, stopped):
    whole, llm = small_llm(), small_llm()
    result = Trainer(whole, config).fit(DOCUMENTS["pretrain"])
    assert result.stopped == stopped and result.epochs < 40

    def crash(one):
        if one.training_state.step == result.steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(llm, config).fit(DOCUMENTS["pretrain"], on_checkpoint=crash)
    assert llm.training_state.unfinished
    again = Trainer(llm, config).fit(DOCUMENTS["pretrain"])
    assert replace(again, seconds=0) == replace(result, seconds=0)
    assert snapshot(llm) == snapshot(whole)


def test_early_stopping_returns_the_best_weights():
    llm = small_llm()
    config = TrainConfig(
        epochs=60, batch_tokens=64, lr=2e-2, warmup=2, val_fraction=0.3, patience=3, seed=1
    )
    result = Trainer(llm, config).fit(TEXTS)
    state = llm.training_state
    losses = [entry[3] for entry in state.history if entry[3] is not None]
    assert result.stopped == "early" and len(losses) == result.epochs
    assert losses[-1] > min(losses) == state.best_loss == result.val_loss
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    held_out = split(TEXTS, 0.3, 1, "pretrain")[1]
    assert evaluate(llm, held_out).loss == pytest.approx(state.best_loss, rel=1e-6)
    assert llm.best_weights is None


def test_budget_in_the_middle_of_an_epoch_evaluates_and_keeps_the_best():
    llm = small_llm()
    config = TrainConfig(
        epochs=9, batch_tokens=20, lr=1e-2, warmup=1, val_fraction=0.2, max_steps=3
    )
    result = Trainer(llm, config).fit(TEXTS)
    assert (result.stopped, result.steps, result.epochs) == ("budget", 3, 0)
    held_out = split(TEXTS, 0.2, 0, "pretrain")[1]
    assert result.val_loss == pytest.approx(llm.loss(held_out), rel=1e-6)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_larger_budget_goes_on_exactly(phase):
    """k steps and then N - k equal N, in the weights, the moments and the history."""
    whole, parts, config = small_llm(), small_llm(), replace(CONFIG, val_fraction=0.0, patience=0)
    Trainer(whole, replace(config, max_steps=5), phase).fit(DOCUMENTS[phase])
    for steps in (2, 3, 5):
        result = Trainer(parts, replace(config, max_steps=steps), phase).fit(DOCUMENTS[phase])
        assert (result.stopped, result.steps) == ("budget", steps)
    assert snapshot(parts) == snapshot(whole)
    again = Trainer(parts, replace(config, max_steps=5), phase).fit(DOCUMENTS[phase])
    assert again.steps == 5 and snapshot(parts) != snapshot(whole)  # it began anew


def test_minutes_are_a_budget():
    result = Trainer(small_llm(), TrainConfig(epochs=500, max_minutes=1e-9)).fit(TEXTS)
    assert (result.stopped, result.steps) == ("budget", 1)


def test_accumulated_steps_equal_one_large_batch():
    small, large = small_llm(), small_llm()
    for llm, tokens, accumulated in ((small, 24, 1000), (large, 4096, 1)):
        config = TrainConfig(
            epochs=3, batch_tokens=tokens, grad_accum=accumulated, lr=1e-3, warmup=0, eps=1e-4
        )
        assert Trainer(llm, config, "finetune").fit(DIALOGUES).steps == 3
    # Float32 sums in another order; eps keeps Adam from blowing up the noise of tiny gradients.
    assert np.allclose(small.gpt.arena.data, large.gpt.arena.data, rtol=1e-4, atol=2e-6)
    losses = [[entry[2] for entry in llm.training_state.history] for llm in (small, large)]
    assert np.allclose(*losses, rtol=1e-5)


def test_only_answers_carry_loss_in_dialogues():
    llm = small_llm()
    result = Trainer(llm, TrainConfig(epochs=1), "finetune").fit(DIALOGUES)
    answers = sum(len(answer.content) + 1 for _, answer in DIALOGUES)
    assert llm.training_state.loss_tokens == answers
    assert result.tokens > answers


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_a_step_that_is_not_finite_is_not_applied(what, monkeypatch):
    good, llm = small_llm(), small_llm()
    config = replace(CONFIG, grad_accum=1, val_fraction=0.0)
    Trainer(good, config).fit(TEXTS, should_stop=after(2))
    forward, backward, calls = llm.gpt.forward, llm.gpt.backward, count()

    def bad_forward(*given, **named):
        loss = forward(*given, **named)
        return math.nan if next(calls) == 2 and what == "loss" else loss

    def bad_backward():
        backward()
        if llm.training_state.step == 2 and what == "gradient norm":
            llm.gpt.arena.grad[7] = np.inf

    monkeypatch.setattr(llm.gpt, "forward", bad_forward)
    monkeypatch.setattr(llm.gpt, "backward", bad_backward)
    with pytest.raises(CgptError, match=rf"pretrain: the {what} is (nan|inf) at step 3") as caught:
        Trainer(llm, config).fit(TEXTS)
    assert caught.value.code == "diverged"
    assert snapshot(llm) == snapshot(good)
    monkeypatch.undo()
    for one in (good, llm):  # nothing of the bad step is left in the gradients either
        Trainer(one, config).fit(TEXTS)
    assert snapshot(llm) == snapshot(good)


def test_other_documents_are_refused_in_the_middle_of_a_phase():
    llm = small_llm()
    Trainer(llm, CONFIG).fit(DOCUMENTS["pretrain"], should_stop=after(1))
    before = snapshot(llm)
    with pytest.raises(DataError, match="step 1 was reached with other documents"):
        Trainer(llm, CONFIG).fit(DOCUMENTS["pretrain"][1:])
    assert snapshot(llm) == before
    llm.training_state.begin("pretrain")
    assert Trainer(llm, CONFIG).fit(DOCUMENTS["pretrain"][1:]).stopped == "done"


@pytest.mark.parametrize("change", [dict(seed=6), dict(batch_tokens=1000), dict(join_dialogues=1)])
def test_another_order_is_refused_in_the_middle_of_a_phase(change):
    config = replace(CONFIG, val_fraction=0.0)
    llm = small_llm()
    Trainer(llm, config, "finetune").fit(DIALOGUES, should_stop=after(2))
    with pytest.raises(DataError, match="seed, batch_tokens or join_dialogues"):
        Trainer(llm, replace(config, **change), "finetune").fit(DIALOGUES)


def test_a_new_phase_starts_with_fresh_moments():
    llm, other = small_llm(), small_llm()
    Trainer(llm, CONFIG).fit(TEXTS)
    other.gpt.arena.data[:] = llm.gpt.arena.data
    for one in (llm, other):
        Trainer(one, CONFIG, "finetune").fit(DIALOGUES)
    assert snapshot(llm)[0] == snapshot(other)[0]
    assert llm.training_state.done == ["pretrain", "finetune"]


def test_fitting_a_finished_phase_again_trains_again():
    llm = small_llm()
    trainer = Trainer(llm, TrainConfig(epochs=2))
    first = trainer.fit(TEXTS)
    weights = llm.gpt.arena.data.copy()
    assert trainer.fit(TEXTS).steps == first.steps
    assert not np.array_equal(llm.gpt.arena.data, weights)
    assert llm.training_state.done == ["pretrain"]
    assert len(llm.training_state.history) == 2 * first.steps


def test_frozen_parameters_do_not_move():
    llm, fresh = small_llm(), small_llm()
    Trainer(llm, TrainConfig(epochs=2, freeze=("h.0.*",))).fit(TEXTS)
    before = fresh.gpt.parameters()
    moved = {
        name
        for name, array in llm.gpt.parameters().items()
        if not np.array_equal(array, before[name])
    }
    assert moved == {name for name in before if not name.startswith("h.0.")}


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, join_dialogues=1, grad_accum=3)])
def test_planned_steps_are_those_that_are_taken(config):
    llm = small_llm()
    result = Trainer(llm, config, "finetune").fit(DIALOGUES * 7)
    assert result.steps == llm.training_state.total_steps


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(12, 40))
def test_batches_are_counted_as_they_are_packed(lengths, batch_tokens):
    samples = [Sample(np.zeros(n, np.int32), np.zeros(n, np.int32)) for n in lengths]
    borders = batch_offsets(lengths, batch_tokens)
    packed = pack(samples, batch_tokens)
    assert np.diff(borders).tolist() == [len(batch.offsets) - 1 for batch in packed]


def test_every_epoch_holds_every_document_once_in_another_order():
    tokenizer = small_tokenizer()
    samples = Samples(encode_in_memory(tokenizer, TEXTS), 64)
    epochs = Epochs(samples, tokenizer, TrainConfig(batch_tokens=1000), "pretrain", 64)
    orders = [epochs.batches(epoch)[0].ids.tolist() for epoch in range(4)]
    assert orders == [epochs.batches(epoch)[0].ids.tolist() for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_joined_dialogues_are_encoded_as_one():
    tokenizer = small_tokenizer()
    samples = Samples(encode_in_memory(tokenizer, DIALOGUES), 64)
    config = TrainConfig(batch_tokens=64, join_dialogues=4)
    epochs = Epochs(samples, tokenizer, config, "finetune", 64)
    plan = epochs.plan(0)
    assert sorted(plan.order) == list(range(len(samples))) and np.diff(plan.groups).max() > 1
    for number, (start, end) in enumerate(pairwise(plan.groups)):
        expected = encode_dialogue(
            tokenizer, tuple(chain(*(DIALOGUES[i] for i in plan.order[start:end])))
        )
        found = epochs.batches(0).group(number)
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.targets, expected.targets)
        assert len(found) <= 64


def joined(
    joinable: list[bool], lengths: list[int], rng: np.random.Generator, most: int, longest: int
) -> list[int]:
    """The rule of `group_borders`: first groups of neighbours, then each cut into parts."""
    groups: list[list[int]] = []
    left = 0
    for number, one in enumerate(joinable):
        if one and left:
            groups[-1].append(number)
            left -= 1
        else:
            groups.append([number])
            left = int(rng.integers(1, most + 1)) - 1 if one else 0
    borders = [0]
    for group in groups:
        room = longest
        for number in group:
            if number != group[0] and lengths[number] > room:
                borders.append(number)
                room = longest
            room -= lengths[number]
        borders.append(group[-1] + 1)
    return borders


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=60),
    st.integers(2, 9),
    st.integers(20, 60),
    st.integers(0, 99),
)
def test_groups_of_dialogues(items, most, longest, seed):
    joinable, lengths = [one for one, _ in items], [length for _, length in items]
    found = group_offsets(
        np.array(joinable, bool),
        np.array(lengths, np.int64),
        np.random.default_rng(seed),
        most,
        longest,
    )
    assert found.tolist() == joined(joinable, lengths, np.random.default_rng(seed), most, longest)


def test_borders_need_room():
    numbers, flags = np.ones(3, np.int64), np.ones(3, np.uint8)
    with pytest.raises(ValueError, match="expected 4"):
        _packing.batch_borders(numbers, 5, numbers)
    with pytest.raises(ValueError, match="3, 3 and 4"):
        _packing.group_borders(flags, numbers, numbers, 5, numbers)


def test_split_holds_out_whole_documents_by_seed():
    documents = [str(i) for i in range(40)]
    train, held_out = split(documents, 0.25, 3, "pretrain")
    assert len(held_out) == 10 and sorted(train + held_out) == sorted(documents)
    assert split(documents, 0.25, 3, "pretrain") == (train, held_out)
    assert split(documents, 0.25, 4, "pretrain") != (train, held_out)
    assert [len(part) for part in split(["a", "b"], 0.01, 0, "pretrain")] == [1, 1]
    assert [len(part) for part in split(["a", "b"], 0.99, 0, "pretrain")] == [1, 1]


@pytest.mark.parametrize(
    ("documents", "fraction", "message"),
    [
        ([], 0.0, "no documents"),
        (["山"], 0.1, "needs at least 2"),
        ("山水", 0.0, "found one string"),
    ],
)
def test_too_little_data_is_told(documents, fraction, message):
    with pytest.raises(DataError, match=message):
        Trainer(small_llm(), TrainConfig(val_fraction=fraction)).fit(documents)


def test_unknown_phase_is_told():
    with pytest.raises(ConfigError, match="unknown phase 'warmup'"):
        Trainer(small_llm(), TrainConfig(), "warmup")


def test_long_histories_are_thinned(monkeypatch):
    import cgpt.training.trainer

    monkeypatch.setattr(cgpt.training.trainer, "_HISTORY", 4)
    llm = small_llm()
    result = Trainer(llm, TrainConfig(epochs=9, batch_tokens=64)).fit(TEXTS)
    steps = [entry[1] for entry in llm.training_state.history]
    assert result.steps > 9 and len(steps) <= 5 and steps[-1] == result.steps


def test_evaluation_counts_characters_and_bytes():
    llm = small_llm()
    result = evaluate(llm, ["长江é"])  # é is not in the vocabulary: two byte tokens
    assert (result.tokens, result.characters, result.bytes) == (5, 3, 8)
    assert result.loss == pytest.approx(llm.loss(["长江é"]))
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    bits = result.loss * 5 / math.log(2)
    assert result.bits_per_character == pytest.approx(bits / 3)
    assert result.bits_per_byte == pytest.approx(bits / 8)
    assert evaluate(llm, DIALOGUES).characters == sum(len(one.content) for _, one in DIALOGUES)
    assert evaluate(llm, llm.samples(TEXTS)) == evaluate(llm, TEXTS)
    with pytest.raises(DataError, match="no text to predict"):
        evaluate(llm, [])
