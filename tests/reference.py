"""Every kernel once more in NumPy, float64, written to be read: what the tests compare with.

A twin has the name of its kernel, takes the kernel's inputs and returns what the kernel writes,
in the order of the kernel's arguments. A gradient that the kernel adds to an array is returned
by itself. tests/test_reference.py checks each backward against central differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sampling_reference import (  # noqa: F401 - twins as well
    apply_penalties,
    argmax,
    sample,
    top_logprobs,
)

Array = NDArray[np.float64]
Integers = NDArray[np.int32]


def double(x: NDArray) -> Array:
    """x as float64, without a copy where it is already."""
    return np.asarray(x, dtype=np.float64)


def central_difference(f: Callable[[Array], float], x: Array, h: float = 1e-5) -> Array:
    """df/dx, element by element, as (f(x + h) - f(x - h)) / 2h.

    The formula is off by h^2 f'''/6 and by eps64 |f| / h: with h = 1e-5 and an f of order 1 or
    10, by about 1e-10.
    """
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[i] += h
        below[i] -= h
        gradient[i] = (f(above) - f(below)) / (2 * h)
    return gradient


# products


def linear_forward(x: NDArray, weight: NDArray, bias: NDArray | None) -> Array:
    """y (N, M) = x (N, K) weight^T (M, K) + bias (M,)."""
    y = double(x) @ double(weight).T
    return y if bias is None else y + double(bias)


def linear_backward_input(dy: NDArray, weight: NDArray) -> Array:
    """dx (N, K)."""
    return double(dy) @ double(weight)


def linear_backward_weight(dy: NDArray, x: NDArray) -> tuple[Array, Array]:
    """dweight (M, K) and dbias (M,)."""
    return double(dy).T @ double(x), double(dy).sum(axis=0)


# layer norm


def layernorm_forward(
    x: NDArray, weight: NDArray, bias: NDArray, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """y (N, C), mean (N,), rstd (N,); the variance is the biased one."""
    x = double(x)
    mean = x.mean(axis=1)
    rstd = 1 / np.sqrt(x.var(axis=1) + eps)
    return (x - mean[:, None]) * rstd[:, None] * double(weight) + double(bias), mean, rstd


def layernorm_recompute(
    x: NDArray, weight: NDArray, bias: NDArray, mean: NDArray, rstd: NDArray
) -> Array:
    """y (N, C) from the mean and rstd of the rows."""
    normal = (double(x) - double(mean)[:, None]) * double(rstd)[:, None]
    return normal * double(weight) + double(bias)


def layernorm_backward(
    dy: NDArray, x: NDArray, weight: NDArray, mean: NDArray, rstd: NDArray
) -> tuple[Array, Array, Array]:
    """dx (N, C), dweight (C,), dbias (C,)."""
    dy, scale = double(dy), double(rstd)[:, None]
    normal = (double(x) - double(mean)[:, None]) * scale
    g = dy * double(weight)
    dx = scale * (
        g - g.mean(axis=1, keepdims=True) - normal * (g * normal).mean(axis=1, keepdims=True)
    )
    return dx, (dy * normal).sum(axis=0), dy.sum(axis=0)


# element by element


def gelu_gate(x: Array) -> Array:
    """0.5 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), as 1 / (1 + exp(-2u)).

    Equal by the definition of tanh, and exact where 1 + tanh(u) would cancel (x below -5).
    """
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_forward(x: NDArray) -> Array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return double(x) * gelu_gate(double(x))


def gelu_backward(dy: NDArray, x: NDArray) -> Array:
    """dx, the shape of x."""
    x = double(x)
    slope = 2 * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    return double(dy) * gelu_gate(x) * (1 + x * gelu_gate(-x) * slope)


def relu_forward(x: NDArray) -> Array:
    """max(x, 0)."""
    return np.maximum(double(x), 0)


def relu_backward(dy: NDArray, x: NDArray) -> Array:
    """dx, the shape of x; at 0 the slope is 0."""
    return np.where(double(x) > 0, double(dy), 0)


def residual_forward(x: NDArray, branch: NDArray) -> Array:
    """x + branch."""
    return double(x) + double(branch)


def dropout(x: NDArray, p: float, keep: NDArray[np.bool_]) -> Array:
    """x / (1 - p) where `keep`, else 0; which elements the kernel keeps is its own affair."""
    return np.where(keep, double(x) / (1 - p), 0)


# attention


def heads(qkv: NDArray, rows: slice, n_head: int) -> tuple[Array, Array, Array]:
    """q, k, v of one document, each (H, T, D)."""
    parts = double(qkv[rows]).reshape(rows.stop - rows.start, 3, n_head, -1)
    q, k, v = parts.transpose(1, 2, 0, 3)
    return q, k, v


def documents(offsets: NDArray) -> Iterator[slice]:
    return (slice(int(a), int(b)) for a, b in pairwise(offsets))


def side_by_side(x: Array) -> Array:
    """(H, T, D) -> (T, H * D)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def softmax(q: Array, k: Array) -> tuple[Array, Array]:
    """Causal probabilities (H, T, T) and the log-sum-exp of each query's scores (H, T)."""
    T, D = q.shape[1:]
    scores = np.where(np.tri(T, dtype=bool), q @ k.transpose(0, 2, 1) / np.sqrt(D), -np.inf)
    most = scores.max(axis=2, keepdims=True)
    exponentials = np.exp(scores - most)
    total = exponentials.sum(axis=2, keepdims=True)
    return exponentials / total, (most + np.log(total))[:, :, 0]


def attention_forward(qkv: NDArray, offsets: NDArray, n_head: int) -> tuple[Array, Array]:
    """out (N, C) and lse (H, N)."""
    N, C = qkv.shape[0], qkv.shape[1] // 3
    out, lse = np.zeros((N, C)), np.zeros((n_head, N))
    for rows in documents(offsets):
        q, k, v = heads(qkv, rows, n_head)
        p, lse[:, rows] = softmax(q, k)
        out[rows] = side_by_side(p @ v)
    return out, lse


def attention_backward(dout: NDArray, qkv: NDArray, offsets: NDArray, n_head: int) -> Array:
    """dqkv (N, 3C)."""
    dqkv = np.zeros(qkv.shape)
    for rows in documents(offsets):
        q, k, v = heads(qkv, rows, n_head)
        p, _ = softmax(q, k)
        g = double(dout[rows]).reshape(rows.stop - rows.start, n_head, -1).transpose(1, 0, 2)
        dp = g @ v.transpose(0, 2, 1)
        ds = p * (dp - (p * dp).sum(axis=2, keepdims=True)) / np.sqrt(q.shape[2])
        parts = ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ g
        dqkv[rows] = np.hstack([side_by_side(part) for part in parts])
    return dqkv


def attention_cached(
    qkv: NDArray, keys: NDArray, values: NDArray, start: int
) -> tuple[Array, Array, Array]:
    """keys and values (H, T, D) with the new rows in them, and out (n, C)."""
    keys, values = double(keys).copy(), double(values).copy()
    H, _, D = keys.shape
    n, C = len(qkv), H * D
    _, k, v = (part.reshape(n, H, D).swapaxes(0, 1) for part in np.split(double(qkv), 3, axis=1))
    keys[:, start : start + n], values[:, start : start + n] = k, v
    before = [
        np.zeros((start, C)),
        *(x[:, :start].swapaxes(0, 1).reshape(start, C) for x in (keys, values)),
    ]
    whole = np.vstack([np.hstack(before), double(qkv)])
    out, _ = attention_forward(whole, np.array([0, start + n]), H)
    return keys, values, out[start:]


# rows of tables


def embedding_forward(ids: Integers, positions: Integers, wte: NDArray, wpe: NDArray) -> Array:
    """y (N, C) = wte[ids] + wpe[positions]."""
    return double(wte)[ids] + double(wpe)[positions]


def embedding_backward(
    dy: NDArray, ids: Integers, positions: Integers, n_ids: int, n_positions: int
) -> tuple[Array, Array]:
    """dwte (n_ids, C) and dwpe (n_positions, C)."""
    dwte, dwpe = np.zeros((n_ids, dy.shape[1])), np.zeros((n_positions, dy.shape[1]))
    np.add.at(dwte, ids, double(dy))
    np.add.at(dwpe, positions, double(dy))
    return dwte, dwpe


def gather_rows(x: NDArray, rows: Integers) -> Array:
    """x[rows]."""
    return double(x)[rows]


def scatter_rows(dy: NDArray, rows: Integers, n_rows: int) -> Array:
    """dx (n_rows, C): zeros, with dy at the rows."""
    dx = np.zeros((n_rows, dy.shape[1]))
    dx[rows] = dy
    return dx


# loss


def cross_entropy(
    logits: NDArray,
    targets: Integers,
    scale: float,
    smoothing: float = 0.0,
    weights: NDArray | None = None,
) -> tuple[Array, Array]:
    """The gradient of scale * sum(weights * losses) to the logits (N, V), and the losses (N,)."""
    logits = double(logits)
    factor = scale * (np.ones(len(logits)) if weights is None else double(weights))[:, None]
    V = logits.shape[1]
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(V)[np.maximum(targets, 0)] + smoothing / V
    counted = (targets >= 0)[:, None]
    losses = -np.sum(counted * wanted * logs, axis=1)
    return factor * counted * (np.exp(logs) - wanted), losses


# optimizer


def adamw(
    data: NDArray,
    grad: NDArray,
    m: NDArray,
    v: NDArray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    clip_factor: float,
    decay_end: int,
) -> tuple[Array, Array, Array, Array]:
    """data, grad (zeros), m, v after the step."""
    g = double(grad) * clip_factor
    m = beta1 * double(m) + (1 - beta1) * g
    v = beta2 * double(v) + (1 - beta2) * g**2
    decay = np.where(np.arange(len(g)) < decay_end, 1 - lr * weight_decay, 1.0)
    update = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return decay * double(data) - lr * update, np.zeros_like(g), m, v


def momentum(
    grad: NDArray, m: NDArray, beta: float, clip_factor: float
) -> tuple[Array, Array, Array]:
    """grad (zeros), m and u after the step."""
    g = double(grad) * clip_factor
    m = beta * double(m) + g
    return np.zeros_like(g), m, g + beta * m


def axpby(data: NDArray, u: NDArray, rate: float, decay: float) -> Array:
    """data after the step."""
    return decay * double(data) - rate * double(u)


def newton_schulz(u: NDArray, rounds: int = 5) -> Array:
    """What Muon makes of u (rows, columns): the quintic on u / |u|, on the smaller side."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = double(u) / max(np.linalg.norm(double(u)), 1e-15)
    if len(x) > len(x.T):
        x = x.T
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if x.shape == u.shape else x.T


def muon(
    data: NDArray,
    grad: NDArray,
    m: NDArray,
    matrices: Integers,
    lr: float,
    beta: float,
    weight_decay: float,
    clip_factor: float,
) -> tuple[Array, Array, Array]:
    """data, grad and m after the step of the matrices (offset, rows, columns)."""
    data, grad, m = double(data).copy(), double(grad).copy(), double(m).copy()
    for start, rows, columns in np.asarray(matrices).tolist():
        part = slice(start, start + rows * columns)
        grad[part], m[part], u = momentum(grad[part], m[part], beta, clip_factor)
        if rows * columns:
            turned = newton_schulz(u.reshape(rows, columns)).reshape(-1)
            rate = 0.2 * lr * np.sqrt(max(rows, columns))
            data[part] = axpby(data[part], turned, rate, 1 - lr * weight_decay)
    return data, grad, m


def sum_of_squares(x: NDArray) -> float:
    """The sum of x * x."""
    return float(np.sum(double(x) ** 2))
