"""Muon: orthogonal updates against the float64 reference, freezing, saving and going on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import reference as ref
from checkpoint_helpers import assert_same
from small_llm import TEXTS, small_llm

from cgpt import kernels
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import GPTConfig, TrainConfig
from cgpt.errors import CheckpointError, ConfigError
from cgpt.llm import LLM, load_model_auto
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW
from cgpt.optim.muon import Muon
from cgpt.optim.registry import make_optimizer, restore_optimizer
from cgpt.training.run import continue_training
from cgpt.training.trainer import Trainer

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, n_ff=20, vocab_size=30, block_size=10)
SETTINGS = {"lr": 1e-2, "clip": 1.0}


def with_gradients(seed: int = 2) -> GPT:
    gpt = GPT(CONFIG, seed=1)
    fill_gradients(gpt, seed)
    return gpt


def fill_gradients(gpt: GPT, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for gradient in gpt.gradients().values():
        gradient[...] = rng.standard_normal(gradient.shape)
    gpt.arena.clean = False


def turned(u: np.ndarray) -> np.ndarray:
    """What the kernel makes of the direction u (rows, columns)."""
    data, m = np.zeros(u.size, np.float32), np.zeros(u.size, np.float32)
    rate = 0.2 * math.sqrt(max(u.shape))
    kernels.muon(data, u.reshape(-1).copy(), m, np.array([[0, *u.shape]]), 1 / rate, 0.0, 0.0, 1.0)
    return -data.reshape(u.shape)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(17, 17), (65, 16), (128, 300)])
def test_any_scale_of_the_gradient_gives_the_same(shape: tuple[int, int], scale: float) -> None:
    u = (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    np.testing.assert_allclose(turned(u), ref.newton_schulz(u), atol=5e-6)


def test_small_singular_values_grow_as_they_should() -> None:
    """Three directions and the rest 1e-4 of them, where errors of the rounds are largest: they
    stay below a thousandth of the greatest singular value."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal((65, 3)) @ rng.standard_normal((3, 200))
    u = (u + 1e-4 * rng.standard_normal(u.shape)).astype(np.float32)
    assert np.linalg.norm(turned(u) - ref.newton_schulz(u), 2) < 1e-3


def test_a_matrix_without_gradient_stays_finite() -> None:
    assert not turned(np.zeros((4, 6), np.float32)).any()


def test_a_matrix_past_the_end_is_refused() -> None:
    flat = [np.zeros(20, np.float32) for _ in range(3)]
    for place in ((0, 3, 7), (5, 4, 4), (-1, 2, 2), (0, -2, 2), (0, 2**40, 2**40)):
        with pytest.raises(ValueError, match=r"matrices: row 0 .* inside 20 numbers"):
            kernels.muon(*flat, np.array([place]), 0.1, 0.9, 0.0, 1.0)


def reference_step(
    gpt: GPT, m: dict[str, np.ndarray], lr: float, decay: float, factor: float
) -> dict[str, np.ndarray]:
    """The matrices of the blocks after a step, by the formulas of the class; m is changed."""
    found = {}
    for name, weight in gpt.parameters().items():
        if not name.startswith("h.") or weight.ndim < 2:
            continue
        _, m[name], u = ref.momentum(gpt.gradients()[name], m[name], 0.95, factor)
        parts = np.split(u, 3) if name.endswith("c_attn.weight") else [u]
        update = np.concatenate([ref.newton_schulz(part) for part in parts])
        rate = lr * 0.2 * math.sqrt(max(parts[0].shape))
        found[name] = ref.axpby(weight, update, rate, 1 - lr * decay)
    return found


def test_three_steps_are_the_reference() -> None:
    gpt, twin = with_gradients(), with_gradients()
    optimizer, adam = Muon(gpt, weight_decay=0.5), AdamW(twin, weight_decay=0.5)
    m = {name: np.zeros(array.shape) for name, array in gpt.parameters().items()}
    for seed in (3, 4, 5):
        fill_gradients(gpt, seed)
        fill_gradients(twin, seed)
        norm = math.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in gpt.gradients().values()))
        expected = reference_step(gpt, m, 1e-2, 0.5, 1 / norm)
        assert optimizer.step(**SETTINGS) == pytest.approx(norm, rel=1e-6)
        adam.step(**SETTINGS)
        assert not gpt.arena.grad.any()
        for name, weight in gpt.parameters().items():
            if name in expected:
                np.testing.assert_allclose(weight, expected[name], atol=2e-6, err_msg=name)
            else:
                assert np.array_equal(weight, twin.parameters()[name]), name
    assert not gpt.arena.view("h.0.mlp.c_fc.weight", gpt.arena.v).any()


def test_an_update_has_the_size_of_adams() -> None:
    """About 0.2 lr root mean square, whatever the shape: hence one learning rate for both."""
    gpt = with_gradients()
    before = {name: array.copy() for name, array in gpt.parameters().items()}
    Muon(gpt, weight_decay=0.0).step(lr=1.0)
    for name in (
        "h.0.attn.c_attn.weight",
        "h.0.attn.c_proj.weight",
        "h.1.mlp.c_fc.weight",
        "h.1.mlp.c_proj.weight",
    ):
        moved = gpt.parameters()[name] - before[name]
        assert 0.14 < np.sqrt((moved**2).mean()) < 0.26, name


def test_frozen_matrices_stay_and_count_for_nothing() -> None:
    gpt = with_gradients()
    before = {name: array.copy() for name, array in gpt.parameters().items()}
    frozen = ("h.0.mlp.*", "wte.weight", "h.1.attn.c_attn.weight")
    optimizer = Muon(gpt, freeze=frozen)
    norm = optimizer.step(**SETTINGS)
    for name, array in gpt.parameters().items():
        still = name.startswith("h.0.mlp.") or name in frozen
        assert np.array_equal(array, before[name]) == still, name
    assert norm < Muon(with_gradients()).step(**SETTINGS)
    assert not gpt.arena.grad.any()


def test_any_number_of_threads_gives_the_same_bits() -> None:
    found = []
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        gpt = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=128, vocab_size=300, block_size=8))
        fill_gradients(gpt, 7)
        Muon(gpt).step(**SETTINGS)
        found.append(gpt.arena.data.copy())
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_settings_go_through_a_dict() -> None:
    gpt = with_gradients()
    config = TrainConfig(optimizer="muon", momentum=0.9, embedding_lr=2.0, freeze=("wpe.weight",))
    optimizer = make_optimizer(gpt, config)
    optimizer.step(**SETTINGS)
    again = restore_optimizer(gpt, optimizer.to_dict())
    assert type(again) is Muon and again.to_dict() == optimizer.to_dict()
    assert again.momentum == 0.9 and again.embedding_lr == 2.0 and again.step_count == 1
    assert type(make_optimizer(gpt, TrainConfig(optimizer="adamw"))) is AdamW
    old = {"betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "freeze": [], "step_count": 3}
    assert type(restore_optimizer(gpt, old)) is AdamW
    with pytest.raises(ConfigError, match="unknown kind 'sgd'"):
        restore_optimizer(gpt, {**old, "kind": "sgd"})
    with pytest.raises(ConfigError, match="momentum"):
        Muon(gpt, momentum=1.0)


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_a_saved_muon_goes_on_to_the_bit(tmp_path: Path, save) -> None:
    llm = LLM.from_texts(["天地玄黄，宇宙洪荒。" * 3], CONFIG.preset("tiny"))
    llm.optimizer = Muon(llm.gpt)
    fill_gradients(llm.gpt, 8)
    llm.optimizer.step(**SETTINGS)
    path = save(llm, tmp_path / ("model.bin" if save is save_model_binary else "model.json"))
    again = load_model_auto(path)
    assert_same(llm, again)
    for one in (llm, again):
        fill_gradients(one.gpt, 9)
        one.optimizer.step(**SETTINGS)
    assert_same(llm, again)


def test_a_model_that_brings_muon_along_goes_on_with_its_settings() -> None:
    """As one with Adam's state from elsewhere does; with other settings it starts anew."""

    def fitted(momentum: float) -> LLM:
        llm = small_llm()
        llm.optimizer = Muon(llm.gpt, momentum=0.9)
        fill_gradients(llm.gpt, 8)
        llm.optimizer.step(**SETTINGS)
        config = TrainConfig(optimizer="muon", momentum=momentum, epochs=1)
        Trainer(llm, config).fit(TEXTS[:1])
        return llm

    assert fitted(0.9).optimizer.step_count == 2 and fitted(0.95).optimizer.step_count == 1
    llm = small_llm()
    llm.optimizer = Muon(llm.gpt, momentum=0.9)
    continue_training(llm, 1, 1e-3, TEXTS[:1])
    assert type(llm.optimizer) is Muon and llm.optimizer.momentum == 0.9


def test_a_file_with_settings_that_cannot_be_is_damaged(tmp_path: Path) -> None:
    llm = LLM.from_texts(["天地玄黄"], CONFIG.preset("tiny"))
    llm.optimizer = Muon(llm.gpt)
    for number, wrong in enumerate((1.5, "x", None)):
        llm.optimizer.momentum = wrong
        path = save_model_binary(llm, tmp_path / f"{number}.bin")
        with pytest.raises(CheckpointError) as error:
            load_model_auto(path)
        assert error.value.code == "damaged"
