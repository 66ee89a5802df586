"""AdamW over the arena: clipping, decay, freezing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.errors import ConfigError
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ff=20, vocab_size=30, block_size=10)


def with_gradients(scale: float = 1.0) -> GPT:
    gpt = GPT(CONFIG, seed=1)
    rng = np.random.default_rng(2)
    for gradient in gpt.gradients().values():
        gradient[...] = scale * rng.standard_normal(gradient.shape)
    return gpt


def test_step_returns_the_norm_and_clears() -> None:
    gpt = with_gradients()
    expected = math.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in gpt.gradients().values()))
    optimizer = AdamW(gpt)
    assert optimizer.step(lr=1e-3, clip=1.0) == pytest.approx(expected, rel=1e-6)
    assert not gpt.arena.grad.any() and optimizer.step_count == 1


def test_clipping_is_by_the_global_norm() -> None:
    """Clipped to 1, a gradient has the moments of itself divided by its norm."""
    gpt, big = with_gradients(), with_gradients(64.0)
    norm = AdamW(gpt).step(lr=1e-3, clip=1.0)
    AdamW(big).step(lr=1e-3, clip=1.0)
    np.testing.assert_allclose(big.arena.m, gpt.arena.m, rtol=1e-5, atol=1e-12)
    raw = with_gradients()
    AdamW(raw).step(lr=1e-3, clip=0)
    np.testing.assert_allclose(raw.arena.m, gpt.arena.m * norm, rtol=1e-5, atol=1e-9)


def test_only_matrices_decay() -> None:
    gpt = GPT(CONFIG, seed=1)
    gpt.gradients()
    before = {name: array.copy() for name, array in gpt.parameters().items()}
    AdamW(gpt, weight_decay=0.5).step(lr=0.1, clip=1.0)
    for name, array in gpt.parameters().items():
        factor = 0.95 if array.ndim > 1 else 1.0
        np.testing.assert_allclose(array, before[name] * np.float32(factor), rtol=1e-6)


def test_a_norm_that_is_not_finite_changes_nothing() -> None:
    gpt = with_gradients()
    gpt.gradients()["ln_f.weight"][3] = np.nan
    before = gpt.arena.data.copy()
    optimizer = AdamW(gpt)
    assert math.isnan(optimizer.step(lr=1e-3, clip=1.0))
    assert np.array_equal(gpt.arena.data, before) and optimizer.step_count == 0
    assert not gpt.arena.m.any()


def test_frozen_parameters_stay() -> None:
    gpt = with_gradients()
    before = {name: array.copy() for name, array in gpt.parameters().items()}
    optimizer = AdamW(gpt, freeze=["h.*.attn.*", "wpe.weight"])
    norm = optimizer.step(lr=1e-3, clip=1.0)
    for name, array in gpt.parameters().items():
        frozen = ".attn." in name or name == "wpe.weight"
        assert np.array_equal(array, before[name]) == frozen, name
    assert norm < AdamW(with_gradients()).step(lr=1e-3)
    assert not gpt.arena.grad.any()
    again = AdamW.from_dict(gpt, optimizer.to_dict())
    assert again.to_dict() == optimizer.to_dict()
    with pytest.raises(ConfigError, match="no parameter is named like 'nothing'"):
        AdamW(gpt, freeze=["nothing"])


@pytest.mark.parametrize(
    "freeze",
    [["wte.weight", "wpe.weight"], ["h.*.mlp.*"], ["h.0.attn.c_attn.weight"], ["h.*", "ln_f.*"]],
    ids=str,
)
def test_products_for_frozen_parameters_are_left_out(
    freeze: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients of the others have the bits that they have without any freezing."""
    ids = np.random.default_rng(3).integers(0, 30, (2, 10), dtype=np.int32)

    def pass_through(gpt: GPT) -> tuple[dict[str, np.ndarray], int]:
        calls = []
        for name in ("linear_backward_weight", "embedding_backward"):
            kernel = getattr(K, name)
            monkeypatch.setattr(K, name, lambda *a, kernel=kernel: calls.append(1) or kernel(*a))
        gpt.forward(ids, ids)
        gpt.backward()
        monkeypatch.undo()
        return gpt.gradients(), len(calls)

    expected, all_calls = pass_through(GPT(CONFIG, seed=1))
    gpt = GPT(CONFIG, seed=1)
    optimizer = AdamW(gpt, freeze=freeze)
    found, calls = pass_through(gpt)
    assert calls < all_calls or freeze == ["h.0.attn.c_attn.weight"]  # its bias is trained
    for name, gradient in found.items():
        if not optimizer._frozen(name):
            assert np.array_equal(gradient, expected[name]), name
    AdamW(gpt)
    gpt.arena.grad.fill(0)
    again, calls = pass_through(gpt)
    assert calls == all_calls
    assert all(np.array_equal(again[name], gradient) for name, gradient in expected.items())


@pytest.mark.parametrize(
    "wrong",
    [
        dict(betas=(1.0, 0.9)),
        dict(eps=0.0),
        dict(eps=math.nan),
        dict(weight_decay=-1.0),
        dict(betas=(0.9, math.nan)),
        dict(embedding_lr=0.0),
        dict(embedding_lr=math.inf),
    ],
)
def test_wrong_settings_get_a_sentence(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="AdamW: "):
        AdamW(GPT(CONFIG), **wrong)


def test_a_new_optimizer_starts_afresh_and_a_saved_one_goes_on() -> None:
    gpt = with_gradients()
    first = AdamW(gpt)
    first.step(lr=1e-3)
    moments = gpt.arena.m.copy()
    assert AdamW.from_dict(gpt, first.to_dict()).step_count == 1
    assert np.array_equal(gpt.arena.m, moments) and moments.any()
    AdamW(gpt)
    assert not gpt.arena.m.any() and not gpt.arena.v.any()


@pytest.mark.parametrize(
    "wrong",
    [
        dict(lr=math.nan),
        dict(lr=-1e-3),
        dict(lr=math.inf),
        dict(lr=1e-3, clip=math.nan),
        dict(lr=1e-3, clip=-1.0),
    ],
)
def test_a_step_that_would_spoil_the_weights_is_refused(wrong: dict) -> None:
    gpt = with_gradients()
    before, gradient = gpt.arena.data.copy(), gpt.arena.grad.copy()
    optimizer = AdamW(gpt)
    with pytest.raises(ConfigError, match=r"AdamW\.step: (lr|clip) must be"):
        optimizer.step(**wrong)
    assert np.array_equal(gpt.arena.data, before) and np.array_equal(gpt.arena.grad, gradient)
    assert optimizer.step_count == 0


def test_embeddings_may_learn_faster() -> None:
    """Three times the rate moves them three times as far and lets them decay as before."""
    gpt, plain = with_gradients(), with_gradients()
    before = {name: array.copy() for name, array in gpt.parameters().items()}
    AdamW(gpt, weight_decay=0.0, embedding_lr=3.0).step(lr=1e-3)
    AdamW(plain, weight_decay=0.0).step(lr=1e-3)
    for name, array in gpt.parameters().items():
        factor = 3 if name in ("wte.weight", "wpe.weight") else 1
        np.testing.assert_allclose(
            array - before[name],
            factor * (plain.parameters()[name] - before[name]),
            rtol=1e-3,
            atol=1e-7,
        )
    gpt = GPT(CONFIG, seed=1)
    gpt.gradients()
    AdamW(gpt, weight_decay=0.5, embedding_lr=3.0).step(lr=0.1)
    np.testing.assert_allclose(
        gpt.parameters()["wte.weight"], before["wte.weight"] * np.float32(0.95), rtol=1e-6
    )
    assert AdamW.from_dict(gpt, AdamW(gpt, embedding_lr=3.0).to_dict()).embedding_lr == 3.0


def test_an_eps_that_is_zero_in_float32_is_refused() -> None:
    """0 / 0 would make NaN of every weight that has had no gradient."""
    with pytest.raises(ConfigError, match="eps must be a finite number in"):
        AdamW(GPT(CONFIG), eps=1e-50)
    gpt = GPT(CONFIG)
    gpt.gradients()
    AdamW(gpt, eps=1e-37).step(lr=1e-3)
    assert np.isfinite(gpt.arena.data).all()
