"""The float64 twins of the kernels, checked against central differences and against plain facts.

TOLERANCE: central_difference is off by about 1e-10 (see there); 1e-7 of the largest gradient
leaves room for the third derivatives and is far below what any wrong term would change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference as ref

TOLERANCE = 1e-7
RNG = np.random.default_rng(7)


def check_gradient(f: Callable[[ref.Array], float], x: ref.Array, gradient: ref.Array) -> None:
    """Fails where `gradient` is not df/dx at x."""
    numeric = ref.central_difference(f, x)
    assert gradient.shape == x.shape
    np.testing.assert_allclose(
        gradient, numeric, rtol=0, atol=TOLERANCE * max(1.0, np.abs(numeric).max())
    )


def normal(*shape: int) -> ref.Array:
    return RNG.standard_normal(shape)


def test_check_gradient_notices_a_wrong_gradient():
    x = normal(3, 2)

    def f(a: ref.Array) -> float:
        return float((a**3).sum())

    check_gradient(f, x, 3 * x**2)
    wrong = 3 * x**2
    wrong[2, 1] += 1e-5
    with pytest.raises(AssertionError):
        check_gradient(f, x, wrong)
    with pytest.raises(AssertionError):
        check_gradient(f, x, np.full_like(x, np.nan))


def test_check_gradient_notices_a_wrong_backward(monkeypatch):
    """The same test that passes below fails when a term is left out of a twin's backward."""

    def without_mean(dy, x, weight, mean, rstd):
        dx, dweight, dbias = right(dy, x, weight, mean, rstd)
        return dx + rstd[:, None] * (dy * weight).mean(axis=1, keepdims=True), dweight, dbias

    right = ref.layernorm_backward
    monkeypatch.setattr(ref, "layernorm_backward", without_mean)
    with pytest.raises(AssertionError):
        test_layernorm()


@pytest.mark.parametrize("with_bias", [True, False])
def test_linear(with_bias):
    x, weight, bias, dy = normal(4, 3), normal(5, 3), normal(5) if with_bias else None, normal(4, 5)
    dweight, dbias = ref.linear_backward_weight(dy, x)
    check_gradient(
        lambda a: float((ref.linear_forward(a, weight, bias) * dy).sum()),
        x,
        ref.linear_backward_input(dy, weight),
    )
    check_gradient(lambda a: float((ref.linear_forward(x, a, bias) * dy).sum()), weight, dweight)
    if bias is not None:
        check_gradient(lambda a: float((ref.linear_forward(x, weight, a) * dy).sum()), bias, dbias)


def test_layernorm():
    x, weight, bias, dy = normal(3, 7), normal(7), normal(7), normal(3, 7)
    y, mean, rstd = ref.layernorm_forward(x, weight, bias)
    np.testing.assert_allclose(((y - bias) / weight).mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(((y - bias) / weight).var(axis=1), 1, atol=1e-4)  # eps in var
    dx, dweight, dbias = ref.layernorm_backward(dy, x, weight, mean, rstd)
    check_gradient(lambda a: float((ref.layernorm_forward(a, weight, bias)[0] * dy).sum()), x, dx)
    check_gradient(
        lambda a: float((ref.layernorm_forward(x, a, bias)[0] * dy).sum()), weight, dweight
    )
    check_gradient(
        lambda a: float((ref.layernorm_forward(x, weight, a)[0] * dy).sum()), bias, dbias
    )


def test_gelu():
    x, dy = np.linspace(-4, 4, 41), normal(41)
    check_gradient(lambda a: float((ref.gelu_forward(a) * dy).sum()), x, ref.gelu_backward(dy, x))
    tanh = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    np.testing.assert_allclose(ref.gelu_forward(x), 0.5 * x * (1 + tanh), atol=1e-15)
    np.testing.assert_array_equal(ref.gelu_forward(np.array([-500.0, 0.0, 50.0])), [0, 0, 50])
    # x Phi(x) with the normal distribution function; the tanh form is within 5e-4 of it
    np.testing.assert_allclose(
        ref.gelu_forward(np.array([1.0, -1.0])), [0.841345, -0.158655], atol=5e-4
    )


def test_relu():
    x, dy = np.linspace(-4, 4, 40), normal(40)  # none of them at the kink
    check_gradient(lambda a: float((ref.relu_forward(a) * dy).sum()), x, ref.relu_backward(dy, x))
    np.testing.assert_array_equal(ref.relu_forward(np.array([-2.0, 0.0, 3.0])), [0, 0, 3])
    np.testing.assert_array_equal(ref.relu_backward(np.ones(1), np.zeros(1)), [0])


def test_residual_and_dropout():
    x, branch, dy = normal(6), normal(6), normal(6)
    keep = np.array([True, False, True, True, False, True])
    check_gradient(lambda a: float((ref.residual_forward(a, branch) * dy).sum()), x, dy)
    check_gradient(lambda a: float((ref.residual_forward(x, a) * dy).sum()), branch, dy)
    check_gradient(
        lambda a: float((ref.dropout(a, 0.25, keep) * dy).sum()), x, ref.dropout(dy, 0.25, keep)
    )


OFFSETS = np.array([0, 1, 4, 9], np.int32)


@pytest.mark.parametrize("n_head", [1, 2])
def test_attention(n_head):
    qkv, dout = normal(9, 12), normal(9, 4)
    check_gradient(
        lambda a: float((ref.attention_forward(a, OFFSETS, n_head)[0] * dout).sum()),
        qkv,
        ref.attention_backward(dout, qkv, OFFSETS, n_head),
    )


def test_attention_by_loops():
    """out and lse from the definition, one query at a time."""
    qkv, H, D = normal(9, 12), 2, 2
    out, lse = ref.attention_forward(qkv, OFFSETS, H)
    for first, last in [(0, 1), (1, 4), (4, 9)]:
        for t in range(first, last):
            for h in range(H):
                q = qkv[t, h * D : (h + 1) * D]
                k = qkv[first : t + 1, 4 + h * D : 4 + (h + 1) * D]
                v = qkv[first : t + 1, 8 + h * D : 8 + (h + 1) * D]
                weights = np.exp([q @ row / np.sqrt(D) for row in k])
                np.testing.assert_allclose(out[t, h * D : (h + 1) * D], weights @ v / weights.sum())
                np.testing.assert_allclose(lse[h, t], np.log(weights.sum()))


def test_attention_cached_is_the_end_of_the_whole():
    qkv, start = normal(7, 12), 4
    whole, _ = ref.attention_forward(qkv, np.array([0, 7]), 2)
    keys, values = np.full((2, 8, 2), np.nan), np.full((2, 8, 2), np.nan)
    for h in range(2):
        keys[h, :start] = qkv[:start, 4 + 2 * h : 6 + 2 * h]
        values[h, :start] = qkv[:start, 8 + 2 * h : 10 + 2 * h]
    keys, values, out = ref.attention_cached(qkv[start:], keys, values, start)
    np.testing.assert_allclose(out, whole[start:], rtol=1e-13)
    for h in range(2):
        np.testing.assert_array_equal(keys[h, :7], qkv[:, 4 + 2 * h : 6 + 2 * h])
        np.testing.assert_array_equal(values[h, :7], qkv[:, 8 + 2 * h : 10 + 2 * h])
    assert np.isnan(keys[:, 7]).all() and np.isnan(values[:, 7]).all()


def test_embedding():
    ids, positions = np.array([2, 0, 2, 2], np.int32), np.array([0, 1, 2, 0], np.int32)
    wte, wpe, dy = normal(4, 3), normal(3, 3), normal(4, 3)
    dwte, dwpe = ref.embedding_backward(dy, ids, positions, 4, 3)
    check_gradient(
        lambda a: float((ref.embedding_forward(ids, positions, a, wpe) * dy).sum()), wte, dwte
    )
    check_gradient(
        lambda a: float((ref.embedding_forward(ids, positions, wte, a) * dy).sum()), wpe, dwpe
    )


def test_gather_and_scatter():
    x, rows, dy = normal(5, 2), np.array([3, 0, 4], np.int32), normal(3, 2)
    check_gradient(
        lambda a: float((ref.gather_rows(a, rows) * dy).sum()), x, ref.scatter_rows(dy, rows, 5)
    )


def test_cross_entropy():
    logits, targets = normal(5, 4), np.array([3, -1, 0, 2, -1], np.int32)
    gradient, losses = ref.cross_entropy(logits, targets, 0.3)
    check_gradient(
        lambda a: float(0.3 * ref.cross_entropy(a, targets, 1.0)[1].sum()), logits, gradient
    )
    probability = np.exp(logits[2]) / np.exp(logits[2]).sum()
    np.testing.assert_allclose(losses[2], -np.log(probability[0]))
    assert losses[1] == losses[4] == 0 and not gradient[[1, 4]].any()


def test_cross_entropy_with_smoothing():
    """A loss of (1 - e) of the target's and e of the mean of all."""
    logits, targets = normal(5, 4), np.array([3, -1, 0, 2, 1], np.int32)
    gradient, losses = ref.cross_entropy(logits, targets, 0.3, 0.2)
    check_gradient(
        lambda a: float(0.3 * ref.cross_entropy(a, targets, 1.0, 0.2)[1].sum()), logits, gradient
    )
    each = np.array([ref.cross_entropy(logits, np.full(5, j, np.int32), 1.0)[1] for j in range(4)])
    np.testing.assert_allclose(losses[2], 0.8 * each[0, 2] + 0.2 * each[:, 2].mean())
    assert losses[1] == 0 and not gradient[1].any()


def test_cross_entropy_with_weights():
    logits, targets = normal(5, 4), np.array([3, -1, 0, 2, 1], np.int32)
    weights = np.array([0.5, 2.0, -1.5, 0.0, 3.0])
    gradient, losses = ref.cross_entropy(logits, targets, 0.3, 0.2, weights)
    check_gradient(
        lambda a: float(0.3 * (weights * ref.cross_entropy(a, targets, 1.0, 0.2)[1]).sum()),
        logits,
        gradient,
    )
    np.testing.assert_array_equal(losses, ref.cross_entropy(logits, targets, 1.0, 0.2)[1])
    assert not gradient[[1, 3]].any()


def test_momentum_by_hand():
    grad, m = np.array([4.0, -2.0]), np.array([1.0, 0.5])
    cleared, new, u = ref.momentum(grad, m, 0.5, 0.25)
    np.testing.assert_allclose(new, [1.5, -0.25])
    np.testing.assert_allclose(u, [1.75, -0.625])
    assert not cleared.any()
    np.testing.assert_allclose(ref.axpby(grad, m, 2.0, 0.5), [0.0, -2.0])


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_newton_schulz_keeps_singular_vectors_and_evens_out_values(shape):
    u = normal(*shape)
    found = ref.newton_schulz(u)
    left, values, right = np.linalg.svd(u, full_matrices=False)
    inside = left.T @ found @ right.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-10)
    assert (np.diag(inside)[values > 0.02 * values[0]] > 0.6).all()
    assert (np.diag(inside) < 1.3).all()
    np.testing.assert_allclose(ref.newton_schulz(1e3 * u), found, atol=1e-10)


def test_adamw_by_hand():
    """First step: m / (1 - beta1) = g and v / (1 - beta2) = g^2, so data moves by lr * sign(g)."""
    data, grad = np.array([1.0, -2.0, 3.0]), np.array([0.5, -4.0, 0.0])
    zero = np.zeros(3)
    new, cleared, m, v = ref.adamw(data, grad, zero, zero, 0.1, 0.9, 0.99, 1e-12, 0.5, 1, 0.5, 1)
    np.testing.assert_allclose(new, [1.0 * 0.95 - 0.1, -2.0 + 0.1, 3.0], rtol=1e-9)
    np.testing.assert_allclose(m, [0.025, -0.2, 0])
    np.testing.assert_allclose(v, [0.000625, 0.04, 0])
    assert not cleared.any()


def test_adamw_two_steps_by_sums():
    """m and v are weighted sums of the past gradients (Kingma and Ba 2014, section 3)."""
    first, second, zero = normal(4), normal(4), np.zeros(4)
    settings = (0.01, 0.8, 0.9, 1e-8, 0.0)
    data, _, m, v = ref.adamw(zero, first, zero, zero, *settings, 1, 1.0, 4)
    start = data.copy()
    data, _, m, v = ref.adamw(data, second, m, v, *settings, 2, 1.0, 4)
    mean = (0.2 * (0.8 * first + second)) / (1 - 0.8**2)
    square = (0.1 * (0.9 * first**2 + second**2)) / (1 - 0.9**2)
    np.testing.assert_allclose(data, start - 0.01 * mean / (np.sqrt(square) + 1e-8))


def test_sum_of_squares():
    assert ref.sum_of_squares(np.array([3.0, 4.0, 0.0])) == 25
