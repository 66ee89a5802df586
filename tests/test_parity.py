"""The graph is GPT-2: logits, gradients and AdamW steps as transformers and PyTorch have them."""

from __future__ import annotations

from pathlib import Path

import make_parity
import numpy as np
import peers
import pytest

from cgpt.config import GPTConfig
from cgpt.models.gpt2 import GPT
from cgpt.optim.adamw import AdamW

FIXTURE = Path(__file__).parent / "data" / "gpt2_parity.npz"
LOGITS = 2e-5  # float32 against float64 through two blocks
RELATIVE = 1e-4  # of the largest value of an array


def without_key_bias(name: str, array: np.ndarray) -> np.ndarray:
    """The keys' bias shifts all scores of a query alike, so its true gradient is 0: what Adam
    makes of it is the sign of rounding noise, in any library. It is left out after steps."""
    return (
        np.delete(array, np.s_[len(array) // 3 : 2 * len(array) // 3])
        if (name.endswith("c_attn.bias"))
        else array
    )


def assert_close(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    scale = max(float(np.abs(expected).max()), 1e-3)
    worst = float(np.abs(found - expected).max()) / scale
    assert worst < RELATIVE, f"{name}: {worst:.1e} of the largest value"


@pytest.fixture
def fixture() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as file:
        return dict(file)


def group(fixture: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {
        name.split("/")[1]: value for name, value in fixture.items() if name.startswith(f"{kind}/")
    }


@pytest.fixture
def gpt(fixture: dict[str, np.ndarray]) -> GPT:
    gpt = GPT(make_parity.CONFIG)
    gpt.load_parameters(group(fixture, "weight"))
    return gpt


def test_logits(gpt: GPT, fixture: dict[str, np.ndarray]) -> None:
    assert np.abs(gpt.logits(fixture["ids"]) - fixture["logits"]).max() < LOGITS


def test_gradients(gpt: GPT, fixture: dict[str, np.ndarray]) -> None:
    loss = gpt.forward(fixture["ids"], fixture["targets"])
    gpt.backward()
    assert abs(loss - fixture["losses"][0]) < RELATIVE * loss
    for name, expected in group(fixture, "grad").items():
        assert_close(gpt.gradients()[name], expected, name)


def test_ten_steps(gpt: GPT, fixture: dict[str, np.ndarray]) -> None:
    optimizer = AdamW(gpt, weight_decay=make_parity.WEIGHT_DECAY)
    for expected in fixture["losses"]:
        loss = gpt.forward(fixture["ids"], fixture["targets"])
        assert abs(loss - expected) < RELATIVE * expected
        gpt.backward()
        optimizer.step(lr=make_parity.LR, clip=make_parity.CLIP)
    for name, expected in group(fixture, "after").items():
        assert_close(
            without_key_bias(name, gpt.parameters()[name]), without_key_bias(name, expected), name
        )


def test_a_wrong_weight_is_noticed(gpt: GPT, fixture: dict[str, np.ndarray]) -> None:
    gpt.parameters()["h.1.mlp.c_fc.bias"][3] += 0.01
    assert np.abs(gpt.logits(fixture["ids"]) - fixture["logits"]).max() > LOGITS


@pytest.mark.peer
@pytest.mark.parametrize(
    "shape",
    [
        dict(n_layer=3, n_head=5, n_embd=40, n_ff=72, vocab_size=101, block_size=33),
        dict(n_layer=1, n_head=1, n_embd=65, n_ff=260, vocab_size=517, block_size=210),
    ],
)
def test_live_peer(shape: dict[str, int]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install cgpt[peers])")
    pytest.importorskip("transformers", reason="transformers is not installed")
    config = GPTConfig(**shape)
    ids, targets = make_parity.batch(config, seed=1)
    model = peers.random_gpt2(config, seed=2)
    gpt = GPT(config)
    gpt.load_parameters(peers.weights_of(model))
    with torch.no_grad():
        logits = model(torch.from_numpy(ids.astype(np.int64))).logits.numpy()
    assert np.abs(gpt.logits(ids) - logits).max() < LOGITS
    loss = peers.loss_of(model, ids, targets)
    loss.backward()
    assert abs(gpt.forward(ids, targets) - float(loss.detach())) < RELATIVE * float(loss.detach())
    gpt.backward()
    for name, expected in peers.gradients_of(model).items():
        assert_close(gpt.gradients()[name], expected, name)
    gpt.arena.grad.fill(0)
    optimizer = AdamW(gpt, weight_decay=0.1)
    for expected in peers.ten_steps(model, ids, targets, 1e-3, 0.1, 1.0):
        assert abs(gpt.forward(ids, targets) - expected) < RELATIVE * expected
        gpt.backward()
        optimizer.step(lr=1e-3, clip=1.0)
    for name, expected in peers.weights_of(model).items():
        assert_close(
            without_key_bias(name, gpt.parameters()[name]), without_key_bias(name, expected), name
        )
