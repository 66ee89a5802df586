"""The graph: layout, arenas, gradients, inference, misuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cgpt import kernels as K
from cgpt.config import GPTConfig
from cgpt.errors import ConfigError, DataError
from cgpt.models.gpt2 import GPT
from cgpt.models.registry import family_named
from cgpt.nn.arena import ALIGNMENT, arena_size
from cgpt.optim.adamw import AdamW

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ff=32, vocab_size=50, block_size=40)


def noisy(config: GPTConfig = CONFIG, seed: int = 1) -> GPT:
    """A model none of whose parameters is zero or one."""
    gpt = GPT(config, seed=seed)
    rng = np.random.default_rng(seed)
    for array in gpt.parameters().values():
        array += 0.1 * rng.standard_normal(array.shape, dtype=np.float32)
    return gpt


def packed(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return dict(
        ids=rng.integers(0, 50, 70).astype(np.int32),
        targets=rng.integers(-1, 50, 70).astype(np.int32),
        offsets=np.array([0, 3, 4, 40, 70], np.int32),
    )


def test_names_shapes_and_alignment() -> None:
    gpt = GPT(CONFIG)
    shapes = {name: array.shape for name, array in gpt.parameters().items()}
    assert shapes["wte.weight"] == (50, 32) and shapes["wpe.weight"] == (40, 32)
    assert shapes["h.1.attn.c_attn.weight"] == (96, 32)
    assert shapes["h.0.mlp.c_proj.bias"] == (32,) and shapes["ln_f.weight"] == (32,)
    assert len(shapes) == 2 + 2 * 12 + 2
    assert gpt.arena.data.ctypes.data % ALIGNMENT == 0
    assert all(entry.offset * 4 % ALIGNMENT == 0 for entry in gpt.arena.entries)
    assert GPT.layout(CONFIG) == gpt.arena.entries
    assert arena_size(gpt.arena.entries) == gpt.arena.size
    assert gpt.n_parameters == sum(array.size for array in gpt.parameters().values())
    decayed = {e.name for e in gpt.arena.entries if e.offset < gpt.arena.decay_end}
    assert decayed == {name for name, shape in shapes.items() if len(shape) == 2}


def test_base_preset_has_the_promised_size() -> None:
    size = arena_size(GPT.layout(GPTConfig.preset("base"))) * 12
    assert 95e6 < size < 110e6


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("every", [1, 4])
def test_gradients_against_differences(dropout: float, every: int) -> None:
    """With a target at every row or every fourth, along a random unit direction of each parameter;
    float32 losses carry about 1e-7 of noise, a step of 0.03 makes that 3e-6, against slopes of
    about 1e-2."""
    gpt, batch, rng = noisy(), packed(), np.random.default_rng(3)
    batch["targets"][np.arange(70) % every != 0] = -1

    def loss() -> float:
        return gpt.forward(**batch, dropout=dropout, dropout_key=9)

    loss()
    gpt.backward()
    gradients = {name: array.copy() for name, array in gpt.gradients().items()}
    for name, array in gpt.parameters().items():
        direction = rng.standard_normal(array.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        before = array.copy()
        array[...] = before + 0.03 * direction
        above = loss()
        array[...] = before - 0.03 * direction
        slope = (above - loss()) / 0.06
        array[...] = before
        expected = float((gradients[name] * direction).sum())
        assert abs(slope - expected) < 3e-5 + 1e-3 * abs(expected), name


@pytest.mark.parametrize("kind", ["gpt2", "rustgpt"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("counted", [slice(1, None, 3), slice(69, None), slice(0, 1)])
def test_rows_without_target_leave_the_last_block_early(
    counted: slice, recompute: bool, kind: str
) -> None:
    """Some rows and then the others give what all give at once, which pass the block whole."""
    family, batch = family_named(kind), packed()
    gpt = family.model(family.config.from_dict(CONFIG.to_dict()), seed=1)
    gpt.recompute = recompute
    targets, left = batch["ids"], np.array(batch["ids"])
    left[counted] = -1
    found = []
    for parts in ([targets], [np.where(left < 0, targets, -1), left]):
        gpt.gradients()
        gpt.arena.grad.fill(0)
        loss = 0.0
        for part in parts:
            rows = np.count_nonzero(part >= 0)
            loss += rows * gpt.forward(**{**batch, "targets": part}, scale=1.0)
            assert len(gpt._pending.run.x) == rows
            gpt.backward()
        found.append((loss, gpt.arena.grad.copy()))
    (loss, grad), (narrow, parts) = found
    assert narrow == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(parts, grad, rtol=1e-4, atol=1e-5 * np.abs(grad).max())


def test_packed_documents_are_apart() -> None:
    gpt, batch = noisy(), packed()
    losses = gpt.losses(**batch)
    for first, last in zip(batch["offsets"][:-1], batch["offsets"][1:], strict=True):
        alone = gpt.losses(batch["ids"][None, first:last], batch["targets"][None, first:last])
        np.testing.assert_allclose(losses[first:last], alone, atol=2e-6)
    counted = batch["targets"] >= 0
    assert gpt.forward(**batch) == pytest.approx(losses[counted].mean(), abs=1e-6)
    assert np.all(losses[~counted] == 0)


def test_backward_adds_up() -> None:
    gpt, batch = noisy(), packed()
    gpt.forward(**batch, scale=0.5)
    gpt.backward()
    once = gpt.arena.grad.copy()
    gpt.forward(**batch, scale=0.5)
    gpt.backward()
    np.testing.assert_allclose(gpt.arena.grad, 2 * once, rtol=1e-5, atol=1e-9)


def test_nothing_counted_gives_zero() -> None:
    gpt, batch = noisy(), packed()
    batch["targets"][:] = -1
    assert gpt.forward(**batch) == 0
    gpt.backward()
    assert not gpt.arena.grad.any()


def test_cache_gives_what_the_whole_pass_gives() -> None:
    gpt = noisy()
    ids = packed()["ids"][:40]
    whole = gpt.logits(ids[None])[0]
    cache = gpt.new_cache()
    found = [gpt.infer(ids[:7], cache).copy()]
    found += [gpt.infer(ids[i : i + 1], cache).copy() for i in range(7, 40)]
    np.testing.assert_allclose(np.array(found), whole[6:], atol=1e-5)
    assert cache.length == cache.capacity
    with pytest.raises(DataError, match="do not fit"):
        gpt.infer(ids[:1], cache)
    other = cache.copy()
    cache.truncate(20)
    np.testing.assert_allclose(gpt.infer(ids[20:25], cache), whole[24], atol=1e-5)
    assert other.length == 40


def test_any_number_of_threads_gives_the_same_bits() -> None:
    found = set()
    before = K.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            K.set_num_threads(threads)
            gpt = noisy()
            optimizer = AdamW(gpt)
            for _ in range(2):
                gpt.forward(**packed(), dropout=0.2, dropout_key=4)
                gpt.backward()
                optimizer.step(lr=1e-3, clip=0.1)
            found.add(gpt.arena.data.tobytes())
    finally:
        K.set_num_threads(before)
    assert len(found) == 1


def test_weights_are_used_without_copying() -> None:
    gpt = noisy()
    flat = gpt.arena.data.copy()
    flat.flags.writeable = False
    other = GPT(CONFIG, weights=flat)
    assert np.shares_memory(other.parameters()["wte.weight"], flat)
    ids = packed()["ids"][None, :40]
    assert np.array_equal(other.logits(ids), gpt.logits(ids))
    with pytest.raises(ConfigError, match="read-only"):
        AdamW(other)
    with pytest.raises(ConfigError, match="expected contiguous float32"):
        GPT(CONFIG, weights=flat[1:])


def test_interleaved_passes_do_not_disturb_each_other() -> None:
    gpt, batch = noisy(), packed()
    gpt.forward(**batch)
    gpt.backward()
    expected = gpt.arena.grad.copy()
    gpt.arena.grad.fill(0)
    gpt.logits(batch["ids"][None, :9])
    gpt.forward(**batch, backward=False)
    gpt.forward(**batch)
    gpt.backward()
    assert np.array_equal(gpt.arena.grad, expected)
    gpt.forward(**batch)
    gpt.logits(batch["ids"][None, :9])
    with pytest.raises(ConfigError, match="forward"):
        gpt.backward()


def test_load_parameters_checks_before_it_changes() -> None:
    gpt = noisy()
    before = gpt.arena.data.copy()
    values = {name: array.copy() + 1 for name, array in gpt.parameters().items()}
    for change, message in (
        (lambda v: v.pop("ln_f.bias"), "'ln_f.bias' is missing"),
        (lambda v: v.update(extra=np.ones(2)), "no parameter 'extra'"),
        (lambda v: v.update({"ln_f.bias": np.ones(3)}), r"shape \(3,\), expected \(32,\)"),
    ):
        wrong = dict(values)
        change(wrong)
        with pytest.raises(ConfigError, match=message):
            gpt.load_parameters(wrong)
        assert np.array_equal(gpt.arena.data, before)
    gpt.load_parameters(values)
    assert np.array_equal(gpt.parameters()["ln_f.bias"], values["ln_f.bias"])


@pytest.mark.parametrize(
    ("ids", "more", "message"),
    [
        (np.zeros((2, 41), int), {}, "a document of 41 tokens, expected 1 to 40"),
        (np.full((1, 3), 50), {}, "found 50, expected 0 to 49"),
        (np.full((1, 3), -1), {}, "found -1"),
        (np.zeros(4, int), {}, r"expected \(B, T\)"),
        (np.zeros(4, int), {"offsets": [0, 3]}, "must run from 0 to the 4 tokens"),
        (np.zeros(4, int), {"offsets": [0, 2, 2, 4]}, "a document of"),
        (np.zeros((0, 4), int), {}, "at least"),
    ],
)
def test_wrong_batches_get_a_sentence(ids: np.ndarray, more: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        noisy().forward(ids, np.zeros_like(ids), **more)


def test_config_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="n_head must divide n_embd, found n_head=3"):
        GPTConfig(n_embd=32, n_head=3)
    with pytest.raises(ConfigError, match="unknown preset 'huge'; known: tiny"):
        GPTConfig.preset("huge")
    with pytest.raises(ConfigError, match="n_layer must be between 1"):
        GPTConfig(n_layer=0)
    with pytest.raises(ConfigError, match="unknown field 'width'"):
        GPTConfig.from_dict({"width": 3})
    assert GPTConfig(n_embd=32, n_head=2).n_ff == 128
    assert GPTConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_a_larger_reservation_ends_what_backward_could_use() -> None:
    gpt, batch = noisy(), packed()
    gpt.forward(**batch)
    gpt.reserve(500)  # other buffers, which hold nothing of that pass
    with pytest.raises(ConfigError, match="forward"):
        gpt.backward()
    gpt.forward(**batch)
    gpt.reserve(500)
    gpt.backward()


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_dropout_that_is_no_probability_is_told(wrong: float) -> None:
    with pytest.raises(ConfigError, match="GPT: dropout must be"):
        noisy().forward(**packed(), dropout=wrong)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_seeds_that_are_none_are_told(seed: object) -> None:
    with pytest.raises(ConfigError, match="GPT: seed must be"):
        GPT(CONFIG, seed=seed)


def steps(gpt: GPT, dropout: float = 0.0) -> bytes:
    """The weights after some steps of unlike batches, accumulated and given up ones too."""
    optimizer = AdamW(gpt)
    for seed in range(3):
        for key in range(2):
            gpt.forward(**packed(seed), dropout=dropout, dropout_key=key)
            gpt.backward()
        gpt.forward(**packed(seed + 7))
        optimizer.step(lr=1e-2)
    return gpt.arena.data.tobytes()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_blocks_give_the_same_bits(dropout: float) -> None:
    config = replace(CONFIG, n_layer=4)
    kept, again = noisy(config), noisy(config)
    again.recompute = True
    assert steps(kept, dropout) == steps(again, dropout)
    assert again._training.nbytes < 0.6 * kept._training.nbytes


def test_recompute_may_change_between_steps() -> None:
    config = replace(CONFIG, n_layer=3)
    one, other = noisy(config), noisy(config)
    for recompute in (True, False, True):
        other.recompute = recompute
        assert steps(one) == steps(other)
        other.forward(**packed())
        other.recompute = not recompute  # for the next forward, not for this backward
        other.backward()
        one.forward(**packed())
        one.backward()


def accumulated(gpt: GPT, batches: int, between: bool = False) -> dict[str, np.ndarray]:
    """The gradients of some batches; with `between`, a forward pass is given up before each."""
    gpt.gradients()
    gpt.arena.grad.fill(0)
    gpt.arena.clean = True
    for seed in range(batches):
        if between:
            gpt.forward(**packed(seed + 7))
        gpt.forward(**packed(seed))
        gpt.backward()
    return {name: array.copy() for name, array in gpt.gradients().items()}


@pytest.mark.parametrize("batches", [1, 2])
def test_the_head_in_blocks_of_rows(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks give the loss and gradients of one block, but for the order of float32 sums."""
    whole, blocks = noisy(), noisy()
    expected, loss = accumulated(whole, batches), whole.forward(**packed(0))
    monkeypatch.setattr("cgpt.nn.heads._LOGITS", 1)
    monkeypatch.setattr("cgpt.nn.heads._LEAST_ROWS", 16)
    found = accumulated(blocks, batches)
    assert blocks._training.bind(70, 64).head.logits.shape == (16, 50)
    assert blocks.forward(**packed(0)) == pytest.approx(loss, rel=1e-6)
    for name, array in expected.items():
        assert np.allclose(found[name], array, rtol=1e-5, atol=1e-6), name
    given_up = accumulated(noisy(), batches, between=True)
    assert all(np.array_equal(given_up[name], array) for name, array in found.items())


def test_a_forward_pass_that_is_given_up_leaves_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cgpt.nn.heads._LOGITS", 1)
    monkeypatch.setattr("cgpt.nn.heads._LEAST_ROWS", 16)
    gpt = noisy()
    optimizer = AdamW(gpt, weight_decay=0.0)
    for give_up in (
        lambda: gpt.logits(packed()["ids"][None, :9]),
        lambda: optimizer.step(lr=1.0),
        optimizer.zero_grad,
        gpt.abandon,
    ):
        before = gpt.arena.data.copy()
        gpt.forward(**packed())
        assert np.any(gpt.arena.grad)
        give_up()
        assert not np.any(gpt.arena.grad)
        assert np.array_equal(gpt.arena.data, before)
        with pytest.raises(ConfigError, match="call forward"):
            gpt.backward()
