"""Losses of one's own: weights of tokens, gradients to the logits, packed logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference as ref
from checkpoint_helpers import same_bits
from test_model import CONFIG, packed

from cgpt import get_num_threads, set_num_threads
from cgpt import kernels as K
from cgpt.errors import ConfigError, DataError
from cgpt.models.gpt2 import GPT
from cgpt.models.quantized import with_weights
from cgpt.models.registry import family_named
from cgpt.optim.lora import Lora

KINDS = ("gpt2", "rustgpt")


def model(kind: str = "gpt2", **shape: int) -> GPT:
    """A model none of whose parameters is zero or one."""
    family = family_named(kind)
    gpt = family.model(family.config.from_dict({**CONFIG.to_dict(), **shape}), seed=1)
    rng = np.random.default_rng(1)
    for array in gpt.parameters().values():
        array += 0.1 * rng.standard_normal(array.shape, dtype=np.float32)
    return gpt


def some_weights(seed: int = 5, signed: bool = False) -> np.ndarray:
    """(70,) of very unlike sizes, a few of them 0."""
    weights = np.random.default_rng(seed).gamma(0.5, 2.0, 70).astype(np.float32)
    weights[::9] = 0
    if signed:
        weights[::2] *= -1
    return weights


def slopes_agree(gpt: GPT, loss: Any, gradients: dict[str, np.ndarray]) -> None:
    """Along a random unit direction of each parameter; tolerances as in test_model.

    ReLU has corners, which a long step crosses.
    """
    step, noise = (0.03, 5e-5) if type(gpt) is GPT else (0.004, 3e-4)
    rng = np.random.default_rng(3)
    for name, array in gpt.parameters().items():
        direction = rng.standard_normal(array.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        before = array.copy()
        array[...] = before + step * direction
        above = loss()
        array[...] = before - step * direction
        slope = (above - loss()) / (2 * step)
        array[...] = before
        expected = float((gradients[name] * direction).sum())
        assert abs(slope - expected) < noise + 2e-3 * abs(expected), name


# weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [False, True])
def test_weighted_loss_and_gradients(kind: str, signed: bool) -> None:
    """sum(w nll) / sum(|w|), over what has a target; and against differences."""
    gpt, batch, weights = model(kind), packed(), some_weights(signed=signed)

    def loss() -> float:
        return gpt.forward(**batch, weights=weights)

    counted = batch["targets"] >= 0
    nll, w = gpt.losses(**batch)[counted].astype(float), weights[counted].astype(float)
    assert loss() == pytest.approx((w * nll).sum() / np.abs(w).sum(), rel=1e-6)
    gpt.backward()
    gradients = {name: array.copy() for name, array in gpt.gradients().items()}
    assert gpt.forward(**batch, weights=weights, backward=False) == pytest.approx(loss(), rel=1e-6)
    slopes_agree(gpt, loss, gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_one_and_zero(kind: str) -> None:
    """Ones change nothing to the bit; zeros are tokens without a target."""
    gpt, batch = model(kind), packed()
    kept = np.arange(70) % 3 == 0
    masked = {**batch, "targets": np.where(kept, batch["targets"], -1)}
    for plain, weighted in (
        ({**batch}, {**batch, "weights": np.ones(70)}),
        (masked, {**batch, "weights": kept}),
    ):
        found = []
        for arguments in (plain, weighted):
            gpt.gradients()
            gpt.arena.grad.fill(0)
            gpt.arena.clean = True
            found.append(
                (
                    gpt.forward(**arguments, label_smoothing=0.1),
                    not gpt.backward(),
                    gpt.arena.grad.copy(),
                    gpt.forward(**arguments, backward=False),
                )
            )
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
        assert same_bits(found[0][2], found[1][2])
        assert found[0][3] == pytest.approx(found[1][3], rel=1e-12)


def test_weights_are_scaled_together() -> None:
    """Batches of which each is scaled by the weight of all add up to the gradient of all."""
    gpt, batch, weights = model(), packed(), some_weights()
    total = float(np.abs(weights[batch["targets"] >= 0]).sum())
    gpt.forward(**batch, weights=weights)
    gpt.backward()
    whole = gpt.arena.grad.copy()
    gpt.arena.grad.fill(0)
    for part in (np.arange(70) < 40, np.arange(70) >= 40):
        gpt.forward(**batch, weights=weights * part, scale=1 / total)
        gpt.backward()
    np.testing.assert_allclose(gpt.arena.grad, whole, rtol=1e-4, atol=1e-6)
    assert gpt.forward(**batch, weights=np.zeros(70)) == 0
    gpt.arena.grad.fill(0)
    gpt.backward()
    assert not gpt.arena.grad.any()


def test_weighted_gradients_against_float64() -> None:
    """Those of the logits, which differ from ones by their factor alone."""
    gpt, batch, weights = model(), packed(), some_weights()
    logits = gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
    wanted, _ = ref.cross_entropy(logits, batch["targets"], 1 / 7, 0.0, weights)
    gpt.backward(wanted)
    expected = gpt.arena.grad.copy()
    gpt.arena.grad.fill(0)
    gpt.forward(**batch, weights=weights, scale=1 / 7)
    gpt.backward()
    np.testing.assert_allclose(
        gpt.arena.grad, expected, rtol=2e-4, atol=2e-6 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.ones(69), r"weights: found shape \(69,\), expected \(70,\) as the ids have"),
        (np.ones((7, 10)), "weights: found shape"),
        (np.full(70, np.nan), "weights: found nan"),
        (np.full(70, 1e39), "weights: found 1e\\+39, expected finite numbers that float32"),
        (np.full(70, 1j), "weights: found complex128, expected real numbers"),
        (["a"] * 70, "weights: found <U1"),
        ([[1], [1, 2]], "weights: found rows of unlike length"),
        (None, ""),
    ],
)
def test_wrong_weights_are_refused(wrong: Any, sentence: str) -> None:
    gpt, batch = model(), packed()
    if wrong is None:
        gpt.forward(**batch, weights=None)
        return
    for backward in (True, False):
        with pytest.raises(DataError, match=sentence):
            gpt.forward(**batch, weights=wrong, backward=backward)
    with pytest.raises(ConfigError, match="backward: call forward"):
        gpt.backward()


# gradients to the logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_cross_entropy_by_hand_gives_the_same_bits(kind: str, recompute: bool) -> None:
    gpt, batch = model(kind), packed()
    gpt.recompute = recompute
    batch["targets"] = np.maximum(batch["targets"], 0)  # else the last block does less
    loss = gpt.forward(**batch, dropout=0.1, dropout_key=3)
    gpt.backward()
    expected = gpt.arena.grad.copy()
    gpt.arena.grad.fill(0)
    logits = gpt.logits(
        batch["ids"], offsets=batch["offsets"], keep=True, dropout=0.1, dropout_key=3
    )
    dlogits, losses = logits.copy(), np.empty(70, np.float32)
    K.cross_entropy(dlogits, batch["targets"], losses, 1 / 70)
    gpt.backward(dlogits)
    assert losses.mean() == pytest.approx(loss, rel=1e-6)
    assert same_bits(gpt.arena.grad, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_any_loss_against_differences(kind: str) -> None:
    """Half of the squares of the logits of some rows and columns, those of others masked."""
    gpt, batch = model(kind), packed()
    mask = (np.arange(70) % 3 != 0)[:, None] * (np.arange(50) < 30) / np.float32(700)

    def kept(keep: bool = False) -> np.ndarray:
        return gpt.logits(batch["ids"], offsets=batch["offsets"], keep=keep)

    gpt.backward((mask * kept(True)).astype(np.float32))
    gradients = {name: array.copy() for name, array in gpt.gradients().items()}
    slopes_agree(gpt, lambda: float((0.5 * mask * kept().astype(float) ** 2).sum()), gradients)


def test_gradients_add_up_and_shapes() -> None:
    """(B, T, V) of ids (B, T); float64 and other strides are taken as their values."""
    gpt = model()
    ids = np.random.default_rng(0).integers(0, 50, (3, 11))
    logits = gpt.logits(ids, keep=True)
    assert logits.shape == (3, 11, 50) and same_bits(logits, gpt.logits(ids))
    gpt.logits(ids, keep=True)
    gpt.backward(logits)
    once = gpt.arena.grad.copy()
    gpt.logits(ids, keep=True)
    gpt.backward(np.asfortranarray(logits.astype(float)))
    np.testing.assert_allclose(gpt.arena.grad, 2 * once, rtol=1e-5, atol=1e-6)


def test_an_adapter_learns_by_a_loss_of_ones_own() -> None:
    """dA and dB are those of the same loss by forward(), to the bit."""
    found = []
    for own in (False, True):
        gpt, batch = model(), packed()
        batch["targets"] = np.maximum(batch["targets"], 0)
        lora = Lora(gpt, 2, 4.0, seed=3)
        lora.arena.data[:] += 0.1
        lora.restored()
        before = gpt.parameters()["wte.weight"].copy()
        if own:
            dlogits = gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
            K.cross_entropy(dlogits, batch["targets"], np.empty(70, np.float32), 1 / 70)
            gpt.backward(dlogits)
        else:
            gpt.forward(**batch)
            gpt.backward()
        found.append(lora.arena.grad.copy())
        assert found[-1].any() and lora.step(lr=1e-2) > 0
        assert same_bits(before, gpt.parameters()["wte.weight"])
    assert same_bits(*found)


def test_the_same_bits_with_any_number_of_threads() -> None:
    found, threads = [], get_num_threads()
    batch, weights = packed(), some_weights()
    try:
        for n in (1, 2, 3):
            set_num_threads(n)
            gpt = model(n_embd=64, vocab_size=3000)
            loss = gpt.forward(**batch, weights=weights)
            gpt.backward()
            logits = gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
            gpt.backward(logits)
            found.append((loss, gpt.arena.grad.copy()))
    finally:
        set_num_threads(threads)
    assert all(loss == found[0][0] and same_bits(grad, found[0][1]) for loss, grad in found)


def test_logits_of_packed_documents() -> None:
    gpt, batch = model(), packed()
    logits = gpt.logits(batch["ids"], offsets=batch["offsets"])
    assert logits.shape == (70, 50)
    for form in ("float32", "float16", "int8"):
        other = with_weights(gpt, form)
        packed_logits = other.logits(batch["ids"], offsets=batch["offsets"])
        for first, last in zip(batch["offsets"][:-1], batch["offsets"][1:], strict=True):
            alone = other.logits(batch["ids"][None, first:last])[0]
            np.testing.assert_allclose(packed_logits[first:last], alone, rtol=1e-4, atol=1e-5)
            # Positions may begin elsewhere: as if other tokens had stood before.
            moved = (
                other.logits(batch["ids"][None, first:last], positions=np.arange(last - first) + 5)[
                    0
                ]
                if last - first <= 35
                else None
            )
            assert moved is None or not np.allclose(moved, alone, atol=1e-3)
        assert other.losses(**batch, positions=np.zeros(70, int)).any()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.zeros((70, 49), np.float32), r"dlogits: found shape \(70, 49\), expected \(70, 50\)"),
        (np.zeros((1, 70, 50), np.float32), "dlogits: found shape"),
        (np.zeros(70 * 50, np.float32), "dlogits: found shape"),
        (np.zeros((70, 50), int), "dlogits: found int64, expected float32"),
        (np.zeros((70, 50), complex), "dlogits: found complex128, expected real numbers"),
        (np.full((70, 50), np.nan, np.float32), "dlogits: found nan, expected finite numbers"),
        (np.full((70, 50), 1e300), "dlogits: found 1e\\+300, expected finite numbers"),
        ("x", "dlogits: found <U1"),
    ],
)
def test_wrong_dlogits_are_refused_and_may_be_given_again(wrong: Any, sentence: str) -> None:
    gpt, batch = model(), packed()
    logits = gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
    with pytest.raises(DataError, match=sentence):
        gpt.backward(wrong)
    assert not gpt.arena.grad.any()
    gpt.backward(logits)
    assert gpt.arena.grad.any()


def test_a_pass_and_its_gradient_belong_together() -> None:
    gpt, batch = model(), packed()
    logits = gpt.logits(batch["ids"], offsets=batch["offsets"])
    with pytest.raises(ConfigError, match=r"backward: call forward.ids, targets. first, or"):
        gpt.backward(logits)
    gpt.forward(**batch)
    with pytest.raises(ConfigError, match=r"backward: forward.* has a loss of its own"):
        gpt.backward(logits)
    gpt.backward()
    gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
    with pytest.raises(ConfigError, match="has no loss; pass dlogits"):
        gpt.backward()
    gpt.backward(logits)
    with pytest.raises(ConfigError, match="once for each backward"):
        gpt.backward(logits)
    gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
    gpt.losses(**batch)  # another pass in between took the buffers
    with pytest.raises(ConfigError, match="backward: call forward"):
        gpt.backward(logits)
    with pytest.raises(ConfigError, match="pass keep=True too"):
        gpt.logits(batch["ids"], offsets=batch["offsets"], dropout=0.1)
    with pytest.raises(ConfigError, match="GPT: dropout must be"):
        gpt.logits(batch["ids"], offsets=batch["offsets"], dropout=1.5, keep=True)


def test_weights_for_chat_have_no_gradients() -> None:
    gpt = model()
    gpt.arena.data.flags.writeable = False
    batch = packed()
    for form in ("float16", "int8"):
        chat = with_weights(gpt, form)
        assert chat.logits(batch["ids"], offsets=batch["offsets"]).shape == (70, 50)
        assert chat.loss(**batch, weights=some_weights()) > 0
    sentence = "load .* with training=True"
    with pytest.raises(ConfigError, match=sentence):
        gpt.logits(batch["ids"], offsets=batch["offsets"], keep=True)
    gpt.forward(**batch)
    for refused in (
        gpt.backward,
        lambda: gpt.backward(np.zeros((70, 50))),
        gpt.gradients,
        lambda: gpt.load_parameters({}),
    ):
        with pytest.raises(ConfigError, match=sentence):
            refused()
    assert gpt.forward(**batch, weights=some_weights(), backward=False) > 0


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (
            np.full(32, np.nan),
            DataError,
            r"load_parameters: 'ln_f\.bias': found nan, expected finite",
        ),
        (np.full(32, np.inf), DataError, r"load_parameters: 'ln_f\.bias': found inf"),
        (np.full(32, 1e300), DataError, r"load_parameters: 'ln_f\.bias': found 1e\+300"),
        ([10**400] * 32, DataError, r"load_parameters: 'ln_f\.bias': found object"),
        (np.full(32, 1j), DataError, r"load_parameters: 'ln_f\.bias': found complex128"),
        (["x"] * 32, DataError, r"load_parameters: 'ln_f\.bias': found <U1, expected real numbers"),
        ([[1], [2, 3]], DataError, r"load_parameters: 'ln_f\.bias': found rows of unlike length"),
        (None, DataError, r"load_parameters: 'ln_f\.bias': found object"),
        (np.ones(31), ConfigError, r"load_parameters: 'ln_f\.bias' has shape \(31,\)"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_are_refused_by_name(
    wrong: Any, error: type, sentence: str
) -> None:
    gpt = model()
    before, values = gpt.arena.data.copy(), dict(gpt.parameters())
    values["wte.weight"] = values["wte.weight"] + 1
    with pytest.raises(error, match=sentence):
        gpt.load_parameters({**values, "ln_f.bias": wrong})
    assert same_bits(gpt.arena.data, before)
    gpt.load_parameters({**values, "ln_f.bias": np.arange(32)})  # whole numbers are numbers
    assert gpt.parameters()["ln_f.bias"][31] == 31
    for other in (None, [1], "x"):
        with pytest.raises(ConfigError, match="load_parameters: expected arrays by name"):
            gpt.load_parameters(other)
