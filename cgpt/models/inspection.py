"""A look inside a model: hidden states and attention weights, in plain NumPy from its parameters.

A second, slow way through the graph that keeps everything; model.py is the fast one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cgpt.errors import DataError
from cgpt.nn.arena import Floats
from cgpt.nn.arrays import expect_ids
from cgpt.nn.inference import Inference
from cgpt.validation import check_int, expect

if TYPE_CHECKING:
    from cgpt.models.base import Model

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inspection:
    """What a model computed for one sequence of T tokens.

    hidden     (L + 1, T, C) float32: the residual stream before the first block and after each
    attention  (L, H, T, T) float32: what query t (third axis) gives to key s (fourth); rows add
               up to 1, keys after the query have 0
    logits     (T, V) float32: after each token
    """

    hidden: Floats
    attention: Floats
    logits: Floats


@dataclass(frozen=True)
class Prediction:
    """What a model expected in one place of a sequence.

    id            of the token that stands there, -1 behind the last one
    probability   that the model gave it (nan behind the last one); rank: 1 for the most likely
    alternatives  the most likely (id, probability), best first
    """

    id: int
    probability: float
    rank: int
    alternatives: list[tuple[int, float]]


def predictions(gpt: Model, ids: ArrayLike, top: int = 5) -> list[Prediction]:
    """What gpt expected at ids[1], ids[2], ... and behind the last of ids (n,): n in all.

    Raises DataError for ids out of range or of a wrong shape, or more than block_size of them.
    """
    expect("predictions", gpt, Inference, "a GPT")
    top = check_int("predictions", "top", top, 0, (1 << 31) - 1)
    flat = _check_ids(gpt, ids)
    logits = gpt.logits(flat[None].astype(np.int32))[0].astype(np.float64)
    found = []
    for row, token in zip(logits, [*flat[1:].tolist(), -1], strict=True):
        odds = np.exp(row - row.max())
        odds /= odds.sum()
        best = np.argsort(-odds, kind="stable")[:top]
        probability = float(odds[token]) if token >= 0 else float("nan")
        rank = 1 + int(np.count_nonzero(odds > odds[token])) if token >= 0 else 0
        found.append(Prediction(token, probability, rank, [(int(i), float(odds[i])) for i in best]))
    return found


def gelu(x: Array) -> Array:
    """In its tanh form."""
    y: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y


@dataclass(frozen=True)
class Parts:
    """What the parameters of a graph do not tell; by default GPT-2's.

    positions   (T, C) added to the token embedding, None where they are learnt
    eps         of the norms
    activation  of the MLP
    """

    positions: Floats | None = None
    eps: float = 1e-5
    activation: Callable[[Array], Array] = gelu


_GPT2 = Parts()


def inspect(gpt: Model, ids: ArrayLike, parts: Parts = _GPT2) -> Inspection:
    """hidden, attention and logits for ids (T,), computed in float64 and given in float32.

    Raises DataError for ids out of range or of a wrong shape, or more than block_size of them.
    """
    flat, config = _check_ids(gpt, ids), gpt.config
    weights = {name: value.astype(np.float64) for name, value in gpt.parameters().items()}
    positions = weights["wpe.weight"] if parts.positions is None else parts.positions
    x = weights["wte.weight"][flat] + positions[: len(flat)]
    hidden, attention = [x], []
    for i in range(config.n_layer):
        x, att = _block(weights, f"h.{i}", x, config.n_head, parts)
        hidden.append(x)
        attention.append(att)
    if "ln_f.weight" in weights:
        x = _norm(weights, "ln_f", x, parts.eps)
    logits = _linear(weights, "head" if "head.weight" in weights else "wte", x)
    return Inspection(
        np.stack(hidden).astype(np.float32),
        np.stack(attention).astype(np.float32),
        logits.astype(np.float32),
    )


def _check_ids(gpt: Model, ids: ArrayLike) -> NDArray[Any]:
    """ids (T,) as whole numbers of the vocabulary, at most a context of them; else DataError."""
    flat = np.asarray(ids)
    config = gpt.config
    if flat.ndim != 1 or not 1 <= len(flat) <= config.block_size or flat.dtype.kind not in "iu":
        raise DataError(
            f"inspect: found {flat.dtype} of shape {flat.shape}, expected 1 to "
            f"{config.block_size} whole numbers"
        )
    expect_ids(flat, config.vocab_size)
    return flat


def _block(
    weights: dict[str, Array], name: str, x: Array, H: int, parts: Parts
) -> tuple[Array, Array]:
    """The residual stream (T, C) after a block, and its attention weights (H, T, T)."""
    T, C = x.shape
    qkv = _linear(weights, f"{name}.attn.c_attn", _norm(weights, f"{name}.attn.ln", x, parts.eps))
    q, k, v = qkv.reshape(T, 3, H, C // H).transpose(1, 2, 0, 3)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(C // H)
    scores[:, ~np.tri(T, dtype=bool)] = -np.inf
    att = np.exp(scores - scores.max(axis=2, keepdims=True))
    att /= att.sum(axis=2, keepdims=True)
    heads = (att @ v).transpose(1, 0, 2).reshape(T, C)
    x = x + _linear(weights, f"{name}.attn.c_proj", heads)
    h = _linear(weights, f"{name}.mlp.c_fc", _norm(weights, f"{name}.mlp.ln", x, parts.eps))
    return x + _linear(weights, f"{name}.mlp.c_proj", parts.activation(h)), att


def _linear(weights: dict[str, Array], name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)


def _norm(weights: dict[str, Array], name: str, x: Array, eps: float) -> Array:
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
