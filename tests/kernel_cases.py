"""Every kernel at every size that matters: the calls that tests/test_kernels.py makes.

Where the tolerances come from. One float32 operation is off by at most EPS / 2 of its result.
A sum of K products, added one by one, wanders off by about 0.15 EPS sum |products| for random
signs (partial sums grow as sqrt(k), their roundings add up as a random walk): 4 EPS
sum |products| is never reached by chance and is far below the size of one term. So every
tolerance below is a small multiple of EPS times the same formula with absolute values in it.
What goes into an exponential with error d multiplies the result by 1 + d: there the multiple
grows by the size of the exponent. vexp itself is off by 2e-7, under 2 EPS.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import reference as ref
from kernel_memory import Problem
from numpy.typing import NDArray
from sampling_cases import ALL as SAMPLING

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)  # below it float32 loses digits
SIZES = (1, 3, 7, 8, 9, 15, 16, 17, 65)  # around the vectors of 4, 8 and 16 floats
Generator = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A kernel and the sizes of one call of it; the arrays are made when they are needed."""

    make: Callable[..., Problem]
    sizes: tuple[tuple[str, Any], ...]

    @property
    def kernel(self) -> str:
        return self.make.__name__

    def __str__(self) -> str:
        def short(value: Any) -> str:
            return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)

        return "-".join([self.kernel] + [f"{key}{short(value)}" for key, value in self.sizes])

    def problem(self) -> Problem:
        return _problem(self)


@cache
def _problem(case: Case) -> Problem:
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    return case.make(rng, **dict(case.sizes))


def normal(rng: Generator, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def blank(*shape: int) -> NDArray[np.float32]:
    """An array that the kernel must fill: what it leaves out stays NaN."""
    return np.full(shape, np.nan, np.float32)


def absolute(*arrays: NDArray) -> list[ref.Array]:
    return [np.abs(ref.double(a)) for a in arrays]


def linear_forward(
    rng: Generator, N: int, K: int, M: int, bias: bool = True, finish: bool = False
) -> Problem:
    x, weight = normal(rng, N, K), normal(rng, M, K)
    b = normal(rng, M) if bias else None
    arguments = {"x": x, "weight": weight, "bias": b, "y": blank(N, M)}
    y = ref.linear_forward(x, weight, b)
    size = ref.linear_forward(*absolute(x, weight), None if b is None else np.abs(b))
    written = {"y": (y, 4 * EPS * size)}
    if finish:
        residual = normal(rng, N, M)
        y, tolerance = y + residual, 4 * EPS * (size + np.abs(residual))
        arguments |= {"residual": residual, "activated": blank(N, M)}
        # an error of y goes on into gelu(y) by at most gelu' < 1.13
        written = {
            "y": (y, tolerance),
            "activated": (ref.gelu_forward(y), 1.13 * tolerance + _gelu_tolerance(y)),
        }
    return Problem("linear_forward", arguments, written)


def linear_backward_input(rng: Generator, N: int, K: int, M: int, gelu: bool = False) -> Problem:
    dy, weight = normal(rng, N, M), normal(rng, M, K)
    dx = ref.linear_backward_input(dy, weight)
    tolerance = 4 * EPS * ref.linear_backward_input(*absolute(dy, weight))
    arguments, written = {"dy": dy, "weight": weight, "dx": blank(N, K)}, {}
    if gelu:
        x = _spread(rng, N * K).reshape(N, K)
        arguments |= {"preactivation": x, "activated": blank(N, K)}
        slope = np.abs(ref.gelu_backward(np.ones_like(x), x))
        tolerance = tolerance * slope + np.abs(dx) * _gelu_slope_tolerance(x)
        written["activated"] = (ref.gelu_forward(x), _gelu_tolerance(x))
        dx = ref.gelu_backward(dx, x)
    written["dx"] = (dx, tolerance)
    return Problem("linear_backward_input", arguments, written)


def linear_backward_weight(rng: Generator, N: int, K: int, M: int, bias: bool = True) -> Problem:
    dy, x = normal(rng, N, M), normal(rng, N, K)
    start, start_bias = normal(rng, M, K), normal(rng, M)
    dweight, dbias = ref.linear_backward_weight(dy, x)
    size, size_bias = ref.linear_backward_weight(*absolute(dy, x))
    written = {"dweight": (start + dweight, 4 * EPS * (np.abs(start) + size))}
    if bias:
        written["dbias"] = (start_bias + dbias, 4 * EPS * (np.abs(start_bias) + size_bias))
    return Problem(
        "linear_backward_weight",
        {"dy": dy, "x": x, "dweight": start, "dbias": start_bias if bias else None},
        written,
    )


def layernorm_forward(rng: Generator, N: int, C: int, offset: float = 0.0) -> Problem:
    x, weight, bias = normal(rng, N, C) + np.float32(offset), normal(rng, C), normal(rng, C)
    y, mean, rstd = ref.layernorm_forward(x, weight, bias)
    level = np.abs(x).mean(axis=1, dtype=float)
    # the mean is off by EPS * level, the variance by that squared and by its own roundings
    spread = 4 * EPS + (2 * EPS * level * rstd) ** 2
    size = (np.abs(x) + level[:, None]) * rstd[:, None] * np.abs(weight)
    tolerance = 4 * EPS * (size + np.abs(bias)) + spread[:, None] * np.abs(y - bias)
    return Problem(
        "layernorm_forward",
        {
            "x": x,
            "weight": weight,
            "bias": bias,
            "y": blank(N, C),
            "mean": blank(N),
            "rstd": blank(N),
        },
        {"y": (y, tolerance), "mean": (mean, 2 * EPS * level), "rstd": (rstd, spread * rstd)},
    )


def layernorm_recompute(rng: Generator, N: int, C: int) -> Problem:
    x, weight, bias = normal(rng, N, C), normal(rng, C), normal(rng, C)
    _, mean, rstd = (a.astype(np.float32) for a in ref.layernorm_forward(x, weight, bias))
    y = ref.layernorm_recompute(x, weight, bias, mean, rstd)
    size = (np.abs(x) + np.abs(mean[:, None])) * np.abs(rstd[:, None] * weight) + np.abs(bias)
    return Problem(
        "layernorm_recompute",
        {"x": x, "weight": weight, "bias": bias, "mean": mean, "rstd": rstd, "y": blank(N, C)},
        {"y": (y, 4 * EPS * size)},
    )


def layernorm_backward(rng: Generator, N: int, C: int, add: bool = False) -> Problem:
    x, weight, dy = normal(rng, N, C), normal(rng, C), normal(rng, N, C)
    _, mean, rstd = (a.astype(np.float32) for a in ref.layernorm_forward(x, weight, weight))
    start = normal(rng, 2, C)
    dx, dweight, dbias = ref.layernorm_backward(dy, x, weight, mean, rstd)
    size, scale = np.abs(dy), ref.double(rstd)[:, None]
    normed = np.abs(x - ref.double(mean)[:, None]) * scale
    g = size * np.abs(weight)
    size_x = scale * (
        g + g.mean(axis=1, keepdims=True) + normed * (g * normed).mean(axis=1, keepdims=True)
    )
    arguments = {
        "dy": dy,
        "x": x,
        "weight": weight,
        "mean": mean,
        "rstd": rstd,
        "dx": blank(N, C),
        "dweight": start[0],
        "dbias": start[1],
    }
    if add:
        before = normal(rng, N, C)
        arguments |= {"dx": before, "add": True}
        dx, size_x = dx + before, size_x + np.abs(before)
    return Problem(
        "layernorm_backward",
        arguments,
        {
            "dx": (dx, 4 * EPS * size_x),
            "dweight": (
                start[0] + dweight,
                3 * EPS * (np.abs(start[0]) + (size * normed).sum(axis=0)),
            ),
            "dbias": (start[1] + dbias, 2 * EPS * (np.abs(start[1]) + size.sum(axis=0))),
        },
    )


def _spread(rng: Generator, n: int) -> NDArray[np.float32]:
    """n numbers, most of them of order 1, some large: where GELU saturates."""
    return normal(rng, n) * rng.choice([0.01, 1, 1, 3, 30], n).astype(np.float32)


def _gelu_tolerance(x: NDArray) -> ref.Array:
    rest = ref.gelu_gate(-ref.double(x))
    return EPS * (4 + rest * _exponent(x)) * np.abs(ref.gelu_forward(x)) + TINY * np.abs(x)


def gelu_forward(rng: Generator, n: int) -> Problem:
    x = _spread(rng, n)
    return Problem(
        "gelu_forward", {"x": x, "y": blank(n)}, {"y": (ref.gelu_forward(x), _gelu_tolerance(x))}
    )


def _exponent(x: NDArray) -> ref.Array:
    """The size of GELU's exponent 2u, doubled: x and x^3 are rounded before they are added."""
    return 4 * np.sqrt(2 / np.pi) * (np.abs(ref.double(x)) + 0.044715 * np.abs(ref.double(x)) ** 3)


def _gelu_slope_tolerance(x: NDArray) -> ref.Array:
    """Of gelu'(x)."""
    gate, rest = ref.gelu_gate(ref.double(x)), ref.gelu_gate(-ref.double(x))
    bend = np.abs(x) * (1.6 + 0.215 * ref.double(x) ** 2)
    # rest = 1 - gate is off by EPS, absolutely, but not by more than itself
    size = gate * (6 + rest * _exponent(x)) + bend * gate * (
        rest * (6 + _exponent(x)) + 2 * np.minimum(1, rest / EPS)
    )
    return EPS * size + TINY * bend


def gelu_backward(rng: Generator, n: int) -> Problem:
    x, dy = _spread(rng, n), normal(rng, n)
    return Problem(
        "gelu_backward",
        {"dy": dy, "x": x, "dx": blank(n)},
        {"dx": (ref.gelu_backward(dy, x), np.abs(dy) * _gelu_slope_tolerance(x))},
    )


def _with_zeros(rng: Generator, n: int) -> NDArray[np.float32]:
    return normal(rng, n) * rng.choice([0, 1, 1], n).astype(np.float32)


def relu_forward(rng: Generator, n: int) -> Problem:
    x = _with_zeros(rng, n)
    return Problem("relu_forward", {"x": x, "y": blank(n)}, {"y": (ref.relu_forward(x), 0)})


def relu_backward(rng: Generator, n: int) -> Problem:
    x, dy = _with_zeros(rng, n), normal(rng, n)
    return Problem(
        "relu_backward", {"dy": dy, "x": x, "dx": blank(n)}, {"dx": (ref.relu_backward(dy, x), 0)}
    )


def residual_forward(rng: Generator, n: int) -> Problem:
    x, branch = normal(rng, n), normal(rng, n)
    y = ref.residual_forward(x, branch)
    return Problem(
        "residual_forward",
        {"x": x, "branch": branch, "y": blank(n)},
        {"y": (y, EPS / 2 * np.abs(y))},
    )


def documents(lengths: tuple[int, ...]) -> NDArray[np.int32]:
    return np.array([0, *accumulate(lengths)], np.int32)


@dataclass
class AttentionSize:
    """The formulas of attention with absolute values in them, for the tolerances."""

    out: ref.Array  # (N, C)
    lse: ref.Array  # (H, N)
    dqkv: ref.Array  # (N, 3C)


def attention_size(qkv: NDArray, offsets: NDArray, H: int, dout: NDArray) -> AttentionSize:
    """Tolerances of out, lse and dqkv: EPS times (8 + the scores' rounding) times the sizes."""
    N, C = dout.shape
    size = AttentionSize(np.zeros((N, C)), np.zeros((H, N)), np.zeros((N, 3 * C)))
    for rows in ref.documents(offsets):
        q, k, v = ref.heads(qkv, rows, H)
        p, lse = ref.softmax(q, k)
        q, k, v = absolute(q, k, v)
        root = np.sqrt(q.shape[2])
        exponent = (np.tri(q.shape[1]) * (q @ k.transpose(0, 2, 1))).max(axis=2) / root
        off = EPS * (8 + 2 * exponent + np.abs(lse))
        size.lse[:, rows] = off
        p = p * off[:, :, None]
        size.out[rows] = ref.side_by_side(p @ v)
        g = np.abs(dout[rows]).reshape(rows.stop - rows.start, H, -1).transpose(1, 0, 2)
        dp = g @ v.transpose(0, 2, 1)
        ds = p * (dp + (p * dp).sum(axis=2, keepdims=True) / off[:, :, None]) / root
        parts = ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ g
        size.dqkv[rows] = np.hstack([ref.side_by_side(part) for part in parts])
    return size


def attention_forward(
    rng: Generator, T: tuple[int, ...], H: int, D: int, scale: float = 1.0
) -> Problem:
    N, C, offsets = sum(T), H * D, documents(T)
    qkv = normal(rng, N, 3 * C, scale=scale)
    out, lse = ref.attention_forward(qkv, offsets, H)
    size = attention_size(qkv, offsets, H, np.zeros((N, C)))
    return Problem(
        "attention_forward",
        {"qkv": qkv, "offsets": offsets, "n_head": H, "out": blank(N, C), "lse": blank(H, N)},
        {"out": (out, size.out), "lse": (lse, size.lse)},
    )


def attention_backward(
    rng: Generator, T: tuple[int, ...], H: int, D: int, scale: float = 1.0
) -> Problem:
    N, C, offsets = sum(T), H * D, documents(T)
    qkv, dout = normal(rng, N, 3 * C, scale=scale), normal(rng, N, C)
    out, lse = (a.astype(np.float32) for a in ref.attention_forward(qkv, offsets, H))
    return Problem(
        "attention_backward",
        {
            "dout": dout,
            "qkv": qkv,
            "out": out,
            "lse": lse,
            "offsets": offsets,
            "n_head": H,
            "dqkv": blank(N, 3 * C),
        },
        {
            "dqkv": (
                ref.attention_backward(dout, qkv, offsets, H),
                attention_size(qkv, offsets, H, dout).dqkv,
            )
        },
    )


def attention_cached(rng: Generator, n: int, start: int, room: int, H: int, D: int) -> Problem:
    C = H * D
    qkv, keys, values = normal(rng, n, 3 * C), blank(H, room, D), blank(H, room, D)
    keys[:, :start], values[:, :start] = normal(rng, H, start, D), normal(rng, H, start, D)
    new_keys, new_values, out = ref.attention_cached(qkv, keys, values, start)
    seen = [x[:, :start].swapaxes(0, 1).reshape(start, C) for x in (keys, values)]
    whole = np.vstack([np.hstack([np.zeros((start, C)), *seen]), qkv])
    size = attention_size(whole, documents((start + n,)), H, np.zeros((start + n, C)))
    return Problem(
        "attention_cached",
        {"qkv": qkv, "keys": keys, "values": values, "start": start, "out": blank(n, C)},
        {"keys": (new_keys, 0), "values": (new_values, 0), "out": (out, size.out[start:])},
    )


def embedding_forward(rng: Generator, N: int, C: int, V: int = 11, T: int = 5) -> Problem:
    ids, positions = (
        rng.integers(V, size=N, dtype=np.int32),
        rng.integers(T, size=N, dtype=np.int32),
    )
    wte, wpe = normal(rng, V, C), normal(rng, T, C)
    y = ref.embedding_forward(ids, positions, wte, wpe)
    return Problem(
        "embedding_forward",
        {"ids": ids, "positions": positions, "wte": wte, "wpe": wpe, "y": blank(N, C)},
        {"y": (y, EPS / 2 * np.abs(y))},
    )


def embedding_backward(
    rng: Generator, N: int, C: int, V: int = 11, T: int = 5, learnt: bool = True
) -> Problem:
    ids, positions = (
        rng.integers(V, size=N, dtype=np.int32),
        rng.integers(T, size=N, dtype=np.int32),
    )
    dy, start, start_p = normal(rng, N, C), normal(rng, V, C), normal(rng, T, C)
    dwte, dwpe = ref.embedding_backward(dy, ids, positions, V, T)
    size, size_p = ref.embedding_backward(np.abs(dy), ids, positions, V, T)
    written = {
        "dwte": (start + dwte, 4 * EPS * (np.abs(start) + size)),
        "dwpe": (start_p + dwpe, 4 * EPS * (np.abs(start_p) + size_p)),
    }
    if not learnt:
        start_p = None
        del written["dwpe"]
    return Problem(
        "embedding_backward",
        {"dy": dy, "ids": ids, "positions": positions, "dwte": start, "dwpe": start_p},
        written,
    )


def gather_rows(rng: Generator, N: int, R: int, C: int) -> Problem:
    x, rows = normal(rng, N, C), rng.integers(N, size=R, dtype=np.int32)
    return Problem(
        "gather_rows",
        {"x": x, "rows": rows, "y": blank(R, C)},
        {"y": (ref.gather_rows(x, rows), 0)},
    )


def scatter_rows(rng: Generator, N: int, R: int, C: int) -> Problem:
    dy, rows = normal(rng, R, C), rng.permutation(N)[:R].astype(np.int32)
    return Problem(
        "scatter_rows",
        {"dy": dy, "rows": rows, "dx": blank(N, C)},
        {"dx": (ref.scatter_rows(dy, rows, N), 0)},
    )


def cross_entropy(
    rng: Generator,
    N: int,
    V: int,
    spread: float = 3.0,
    gradient: bool = True,
    scale: float = 0.125,
    smoothing: float = 0.0,
    weighted: bool = False,
) -> Problem:
    logits, factor = normal(rng, N, V, scale=spread), scale
    targets = rng.integers(-1, V, size=N, dtype=np.int32)
    weights = normal(rng, N) if weighted else None
    expected, losses = ref.cross_entropy(logits, targets, scale, smoothing, weights)
    counted = (targets >= 0)[:, None]
    shift = logits.max(axis=1, keepdims=True) - ref.double(logits)
    # exp(-shift) is off by EPS / 2 shift; the target's element is a difference from `scale`
    p = np.where(counted, ref.cross_entropy(logits, np.zeros(N, np.int32), 1.0)[0], 0)
    p[:, 0] += counted[:, 0]
    tolerance = scale * EPS * (8 + shift) * p + scale * TINY
    if weights is not None:  # the product with the scale is rounded once more
        tolerance = (tolerance + scale * EPS * p) * np.abs(weights)[:, None] + TINY
        scale = scale * np.abs(weights).max(initial=0)
    rows = np.flatnonzero(targets >= 0)
    tolerance[rows, targets[rows]] += scale * EPS
    tolerance[rows] += scale * EPS * smoothing / V
    picked = np.abs(shift[np.arange(N), np.maximum(targets, 0)])
    # The logits themselves are added up: their size counts, not only how far they are apart.
    picked += 4 * smoothing * np.abs(logits).max(axis=1)
    return Problem(
        "cross_entropy",
        {
            "logits": logits,
            "targets": targets,
            "losses": blank(N),
            "scale": factor,
            "gradient": gradient,
            "smoothing": smoothing,
            "weights": weights,
        },
        {
            "losses": (losses, EPS * (6 + picked) * counted[:, 0]),
            "logits": (expected, tolerance) if gradient else (logits, 0),
        },
    )


def adamw(
    rng: Generator,
    n: int,
    decay_end: int,
    step: int = 1,
    clip: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.95,
) -> Problem:
    data, grad = normal(rng, n), normal(rng, n, scale=0.1)
    m = normal(rng, n, scale=0.1) if step > 1 else np.zeros(n, np.float32)
    v = np.abs(normal(rng, n, scale=0.01)) if step > 1 else np.zeros(n, np.float32)
    lr, eps, decay = 1e-2, 1e-8, 0.1
    new, _, new_m, new_v = ref.adamw(
        data, grad, m, v, lr, beta1, beta2, eps, decay, step, clip, decay_end
    )
    g = np.abs(ref.double(grad)) * clip
    size_m = beta1 * np.abs(m) + (1 - beta1) * g
    denominator = np.sqrt(new_v / (1 - beta2**step)) + eps
    update = lr * size_m / (1 - beta1**step) / denominator
    return Problem(
        "adamw",
        {
            "data": data,
            "grad": grad,
            "m": m,
            "v": v,
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": decay,
            "step": step,
            "clip_factor": clip,
            "decay_end": decay_end,
        },
        {
            "data": (new, 2 * EPS * np.abs(data) + 8 * EPS * update),
            "grad": (np.zeros(n), 0),
            "m": (new_m, 2 * EPS * size_m),
            "v": (new_v, 2 * EPS * new_v),
        },
    )


def muon(rng: Generator, rows: int, columns: int, clip: float = 0.5) -> Problem:
    """Two matrices of the same shape with numbers between them that stay.

    The eigenvalues of x x^T are off by a few EPS of the largest, and each of four rounds makes
    that up to 12 times as much where they are near 0: 1e-3 of singular values that are small
    themselves, 1e-4 of the greatest.
    """
    start, size = 3, rows * columns
    n = 2 * (start + size)
    data, grad, m = normal(rng, n), normal(rng, n), normal(rng, n)
    rates = {"lr": 0.02, "beta": 0.95, "weight_decay": 0.5, "clip_factor": clip}
    matrices = np.array([[start, rows, columns], [2 * start + size, rows, columns]])
    new = ref.muon(data, grad, m, matrices, **rates)
    update = 1e-4 * 0.02 * 0.2 * np.sqrt(max(rows, columns))
    size_m = np.abs(m) * 0.95 + np.abs(grad) * clip
    return Problem(
        "muon",
        {"data": data, "grad": grad, "m": m, "matrices": matrices, **rates},
        {
            "data": (new[0], 2 * EPS * np.abs(data) + update),
            "grad": (new[1], 0),
            "m": (new[2], 2 * EPS * size_m),
        },
    )


def axpby(rng: Generator, n: int) -> Problem:
    data, u, rate, decay = normal(rng, n), normal(rng, n), 0.03, 0.998
    size = ref.axpby(*absolute(data, u), -rate, decay)
    return Problem(
        "axpby",
        {"data": data, "u": u, "rate": rate, "decay": decay},
        {"data": (ref.axpby(data, u, rate, decay), 2 * EPS * size)},
    )


def sum_of_squares(rng: Generator, n: int) -> Problem:
    x = normal(rng, n)
    total = ref.sum_of_squares(x)
    # terms of one sign: the partial sums grow as k, the roundings as sqrt(lane's length)
    return Problem(
        "sum_of_squares",
        {"x": x},
        {"return": (total, EPS * (2 + 0.2 * np.sqrt(min(n, 16384) / 8)) * total)},
    )


def _cases(make: Callable[..., Problem], *sizes: dict[str, Any]) -> list[Case]:
    return [Case(make, tuple(size.items())) for size in sizes]


def _turned(*names: str) -> list[dict[str, int]]:
    """SIZES against itself, turned by different steps, so that unlike sizes meet."""
    n = len(SIZES)
    return [
        {name: SIZES[(i * (j + 1) + 2 * j) % n] for j, name in enumerate(names)} for i in range(n)
    ]


ATTENTION = [
    *({"T": (t["T"],), "H": 2, "D": t["D"]} for t in _turned("T", "D")),
    *({"T": (5, 1), "H": 3, "D": D} for D in SIZES),
    {"T": (1, 2, 3, 17, 65, 5), "H": 1, "D": 5},
    {"T": (64, 1, 33, 1, 1, 70), "H": 5, "D": 33},
    *({"T": (T,), "H": 1, "D": 8} for T in (31, 32, 33, 191, 192, 193)),
    {"T": (200, 1, 450), "H": 2, "D": 20},
    {"T": (65, 17), "H": 2, "D": 16, "scale": 4.0},
    {"T": (250,), "H": 1, "D": 64, "scale": 0.02},
]
CACHED = [
    *(
        {"n": 1, "start": T - 1, "room": T, "H": 2, "D": D}
        for T, D in zip(SIZES, reversed(SIZES), strict=True)
    ),
    *(
        {"n": n, "start": start, "room": n + start + 3, "H": 3, "D": 17}
        for n, start in ((0, 4), (1, 0), (5, 17), (17, 0), (65, 9))
    ),
    {"n": 2, "start": 400, "room": 402, "H": 1, "D": 64},
]
PRODUCTS = [
    *_turned("N", "K", "M"),
    *_turned("N", "M", "K"),
    *({"N": N, "K": 17, "M": 9} for N in (0, 1, 2, 3, 4, 5, 6)),
    *({"N": 4, "K": K, "M": 7} for K in SIZES),  # the path of few rows
    {"N": 6, "K": 600, "M": 37},  # several depth blocks
    {"N": 2, "K": 600, "M": 300},
    {"N": 100, "K": 300, "M": 1030},  # several blocks of rows and columns
    {"N": 600, "K": 1030, "M": 100},
    {"N": 30, "K": 100, "M": 500},  # few rows: W as it lies, but its last columns
    {"N": 130, "K": 70, "M": 400},
    {"N": 128, "K": 70, "M": 340},  # dW: the deepest that is written row by row
    {"N": 129, "K": 70, "M": 340},
    {"N": 300, "K": 70, "M": 50},  # two lots of rows beside each other (MOST_ROWS)
    {"N": 2100, "K": 20, "M": 40},  # several depths of packing (DEPTH)
    {"N": 20, "K": 40, "M": 2100},
]


WEIGHTED = (
    {"N": 0, "V": 17, "weighted": True},
    {"N": 1, "V": 17, "weighted": True},
    {"N": 5, "V": 17, "weighted": True},
    {"N": 5, "V": 3001, "weighted": True, "smoothing": 0.1},
)


def all_cases() -> list[Case]:
    """Every call; the kernels in the order of the modules.

    Small work is done by one thread: each kernel has a call of at least 200,000 operations too.
    """
    flat = [{"n": n} for n in (0, *SIZES, 4095, 4096, 4097, 9000, 250003)]
    norms = [
        *({"N": 3, "C": C} for C in SIZES),
        *({"N": N, "C": 17} for N in (0, 1, 64, 65, 200)),
        {"N": 5, "C": 600},
        {"N": 300, "C": 130},
    ]
    tables = [
        *_turned("N", "C"),
        {"N": 0, "C": 3},
        {"N": 300, "C": 130},
        {"N": 1600, "C": 130},
        {"N": 70, "C": 5, "V": 3, "T": 1},
    ]
    chosen = [
        {"N": N, "R": R, "C": C}
        for N, R, C in (
            (1, 1, 1),
            (5, 0, 3),
            (9, 4, 17),
            (65, 65, 8),
            (130, 30, 65),
            (1700, 1600, 130),
        )
    ]
    return [
        *_cases(
            linear_forward,
            *PRODUCTS,
            {"N": 9, "K": 7, "M": 17, "bias": False},
            {"N": 3, "K": 9, "M": 17, "bias": False},
            {"N": 9, "K": 600, "M": 17, "bias": False},
            *({**sizes, "finish": True} for sizes in PRODUCTS[::3]),
            {"N": 100, "K": 300, "M": 1030, "bias": False, "finish": True},
        ),
        *_cases(
            linear_backward_input, *PRODUCTS, *({**sizes, "gelu": True} for sizes in PRODUCTS[::3])
        ),
        *_cases(linear_backward_weight, *PRODUCTS, {"N": 9, "K": 7, "M": 17, "bias": False}),
        *_cases(layernorm_forward, *norms, {"N": 9, "C": 65, "offset": 1000.0}),
        *_cases(layernorm_recompute, *norms),
        *_cases(layernorm_backward, *norms, *({**sizes, "add": True} for sizes in norms[1::2])),
        *_cases(gelu_forward, *flat),
        *_cases(gelu_backward, *flat),
        *_cases(relu_forward, *flat),
        *_cases(relu_backward, *flat),
        *_cases(residual_forward, *flat),
        *_cases(attention_forward, *ATTENTION),
        *_cases(attention_backward, *ATTENTION),
        *_cases(attention_cached, *CACHED),
        *_cases(embedding_forward, *tables),
        *_cases(embedding_backward, *tables),
        *_cases(embedding_backward, {"N": 300, "C": 130, "learnt": False}),
        *_cases(gather_rows, *chosen),
        *_cases(scatter_rows, *chosen),
        *_cases(
            cross_entropy,
            *({"N": 3, "V": V} for V in range(1, 66)),
            *({"N": N, "V": 17} for N in (0, 1, 2, 5)),
            {"N": 5, "V": 3001},
            *WEIGHTED,
            {"N": 4, "V": 300, "spread": 1e4},
            {"N": 4, "V": 37, "spread": 1e-3},
            {"N": 4, "V": 37, "gradient": False},
            *({"N": 5, "V": V, "smoothing": 0.1} for V in (*SIZES, 3001)),
            {"N": 4, "V": 37, "gradient": False, "smoothing": 0.9},
        ),
        *_cases(
            adamw,
            *({"n": n, "decay_end": n // 2, "step": n} for n in SIZES),
            {"n": 0, "decay_end": 0},
            {"n": 17, "decay_end": 0},
            {"n": 17, "decay_end": 17},
            {"n": 17, "decay_end": 99},
            {"n": 65, "decay_end": 7, "clip": 0.125},
            {"n": 65, "decay_end": 7, "step": 3, "beta2": 0.999},
            {"n": 40000, "decay_end": 17000, "step": 100000},
        ),
        *_cases(
            muon,
            *(
                {"rows": rows, "columns": columns}
                for rows, columns in (
                    (0, 5),
                    (1, 1),
                    (1, 7),
                    (7, 1),
                    (5, 5),
                    (16, 16),
                    (17, 17),
                    (16, 65),
                    (65, 16),
                    (128, 300),
                    (300, 128),
                )
            ),
        ),
        *_cases(axpby, *flat),
        *_cases(sum_of_squares, *({"n": n} for n in (0, *SIZES, 16383, 16384, 16385, 250003))),
        *(case for make, sizes in SAMPLING for case in _cases(make, sizes)),
    ]
