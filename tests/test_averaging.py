"""The moving average of the weights: its formula, evaluation, saving and going on to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import assert_same, same_bits
from small_llm import TEXTS, small_llm, split

from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import TrainConfig
from cgpt.llm import LLM, load_model_auto
from cgpt.optim.adamw import AdamW
from cgpt.optim.moving_average import averaging, with_average
from cgpt.training.trainer import Trainer

CONFIG = TrainConfig(epochs=6, batch_tokens=64, ema=0.9, warmup=2)


def weights_of_a_run(llm: LLM, config: TrainConfig) -> list[np.ndarray]:
    """The weights after every step."""
    found: list[np.ndarray] = []
    Trainer(llm, config).fit(
        TEXTS, on_checkpoint=lambda one: found.append(one.gpt.arena.data.copy())
    )
    return found


def test_a_run_ends_with_the_average() -> None:
    """average := d average + (1 - d) weights, d = min(0.9, (1 + n) / (10 + n)) in step n."""
    llm = small_llm()
    expected = llm.gpt.arena.data.astype(np.float64)
    for number, weights in enumerate(weights_of_a_run(llm, CONFIG), 1):
        kept = min(0.9, (1 + number) / (10 + number))
        expected = kept * expected + (1 - kept) * weights
    assert number > 8
    np.testing.assert_allclose(llm.gpt.arena.data, expected, atol=1e-6)
    assert llm.average is None and not np.array_equal(llm.gpt.arena.data, weights)


def test_without_it_nothing_changes() -> None:
    plain, kept = small_llm(), small_llm()
    first = weights_of_a_run(plain, TrainConfig(**{**CONFIG.to_dict(), "ema": 0.0}))
    second = weights_of_a_run(kept, CONFIG)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(plain.gpt.arena.data, first[-1])


def test_it_is_what_is_evaluated() -> None:
    """With a share of 1 - 1e-9 the average stays near the first weights, whose loss is known."""
    llm = small_llm()
    optimizer = AdamW(llm.gpt)
    average = np.zeros_like(llm.gpt.arena.data)
    before = llm.gpt.arena.data.copy()
    found = with_average(average, optimizer, lambda: llm.loss(TEXTS))
    assert found == pytest.approx(np.log(llm.config.vocab_size), rel=1e-6)
    assert np.array_equal(llm.gpt.arena.data, before)
    averaging(average, optimizer, 0.5)()
    np.testing.assert_allclose(average, 9 / 11 * before, rtol=1e-6)  # behind the first step


def test_held_out_loss_is_that_of_the_average() -> None:
    llm = small_llm()
    config = TrainConfig(**{**CONFIG.to_dict(), "val_fraction": 0.25, "epochs": 2})
    result = Trainer(llm, config).fit(TEXTS)

    held_out = split(TEXTS, 0.25, config.seed, "pretrain")[1]
    assert llm.loss(held_out) == pytest.approx(result.val_loss, rel=1e-6)


@pytest.mark.parametrize("suffix", [".bin", ".json"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_goes_on_to_the_bit(tmp_path: Path, suffix: str, optimizer: str) -> None:
    config = TrainConfig(**{**CONFIG.to_dict(), "optimizer": optimizer})
    whole, stopped = small_llm(), small_llm()
    Trainer(whole, config).fit(TEXTS)
    calls = iter(range(100))
    Trainer(stopped, config).fit(TEXTS, should_stop=lambda: next(calls) == 4)
    save = save_model_binary if suffix == ".bin" else save_model_json
    path = save(stopped, tmp_path / f"stopped{suffix}")
    again = load_model_auto(path)
    assert_same(stopped, again)
    assert same_bits(stopped.average, again.average) and stopped.average is not None
    Trainer(again, config).fit(TEXTS)
    again.training_state.seconds = whole.training_state.seconds
    assert_same(whole, again)


@pytest.mark.parametrize("suffix", [".bin", ".json"])
def test_a_file_of_a_stopped_run_has_the_average_as_its_weights(
    tmp_path: Path, suffix: str
) -> None:
    llm = small_llm()
    calls = iter(range(100))
    Trainer(llm, CONFIG).fit(TEXTS, should_stop=lambda: next(calls) == 4)
    save = save_model_binary if suffix == ".bin" else save_model_json
    for optimizer in (True, False):
        path = save(llm, tmp_path / f"model{suffix}", optimizer=optimizer)
        for_chat = load_model_auto(path, training=False)
        assert same_bits(np.asarray(for_chat.gpt.arena.data), llm.average)
