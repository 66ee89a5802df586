"""RustGPT-Chinese a second time: small exports of both generations, its forward pass in float64.

Written from what an export says and ../shared/rustgpt-export/README.md tells, without cgpt: the
matrices are used as they lie in the file, (in, out).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SPECIAL = ["<|pad|>", "<|unk|>", "<|bos|>", "</s>", "<|sep|>", "<|cls|>", "<|mask|>"]
MODERN = [*"：，。！？用户助手你好太阳从东方升起水流向低处", "用户", "太阳", "Rust", "GPT"]
OLDER = ["User", "Assistant", ":", "什么", "是", "雨", "？", "云", "中", "的", "水", "山", "。"]
UNTRAINED = ("用户",)  # in the vocabulary, but the cutter never made it


def make_export(
    older: bool = False, seed: int = 0, width: int = 16, heads: int = 8
) -> dict[str, Any]:
    """An export as the program writes it, with random weights and moments of 7 steps.

    older  the generation of 2025: 4 blocks, the forms "User:" and "Assistant:", no <|bos|>
    """
    rng = np.random.default_rng(seed)
    words = SPECIAL + (OLDER if older else MODERN)
    C, F, V = width, 2 * width, len(words)

    def adam(*shape: int) -> dict[str, Any]:
        return {
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 1e-8,
            "timestep": 7,
            **array("m", *shape),
            **array("v", *shape, positive=True),
        }

    def array(name: str, *shape: int, positive: bool = False, at: float = 0.0) -> dict[str, Any]:
        values = (at + 0.2 * rng.standard_normal(shape)).astype(np.float32)
        if positive:
            values = values**2
        return {f"{name}_shape": list(shape), f"{name}_data": [float(str(x)) for x in values.flat]}

    def norm() -> dict[str, Any]:
        return {
            "epsilon": 1e-8,
            **array("gamma", 1, C, at=1.0),
            **array("beta", 1, C),
            "optimizer_gamma": adam(1, C),
            "optimizer_beta": adam(1, C),
        }

    def block() -> dict[str, Any]:
        attention = {"embedding_dim": C, "num_heads": heads, "head_dim": C // heads}
        for key in ("w_q", "w_k", "w_v", "w_o"):
            attention |= array(key, C, C) | {f"optimizer_{key}": adam(C, C)}
        mlp: dict[str, Any] = {}
        for key, shape in (("w1", (C, F)), ("b1", (1, F)), ("w2", (F, C)), ("b2", (1, C))):
            mlp |= array(key, *shape) | {f"optimizer_{key}": adam(*shape)}
        return {
            "attention": attention,
            "feed_forward": mlp,
            "dropout1": {"dropout_rate": 0.1},
            "dropout2": {"dropout_rate": 0.1},
            "norm1": norm(),
            "norm2": norm(),
        }

    embeddings = {**array("token_embeddings", V, C), "token_optimizer": adam(V, C)}
    never = [word for word in SPECIAL if older or word != "<|bos|>"] + list(UNTRAINED)
    _forget(embeddings["token_optimizer"], [word in never for word in words])
    n_blocks, longest = (4, 256) if older else (2, 128)
    encode = {words[id]: id for id in rng.permutation(V).tolist()}
    return {
        "version": 1,
        "vocab": {
            "encode": encode,
            "decode": {str(id): word for word, id in encode.items()},
            "words": list(encode),
            "special_tokens": {w: words.index(w) for w in SPECIAL},
        },
        "layers": [
            {"Embeddings": embeddings},
            *({"TransformerBlock": block()} for _ in range(n_blocks)),
            {
                "OutputProjection": {
                    **array("w_out", C, V),
                    **array("b_out", 1, V),
                    "optimizer": adam(C, V),
                    "optimizer_bias": adam(1, V),
                }
            },
        ],
        "context_window": [],
        "metadata": {
            "embedding_dim": C,
            "hidden_dim": F,
            "num_transformer_blocks": n_blocks,
            "vocab_size": V,
            "max_seq_len": longest,
            "training_info": None,
        },
    }


def _forget(optimizer: dict[str, Any], rows: list[bool]) -> None:
    """The moments of words that training never met: zeros."""
    for moment in "mv":
        values = np.array(optimizer[f"{moment}_data"]).reshape(optimizer[f"{moment}_shape"])
        values[rows] = 0
        optimizer[f"{moment}_data"] = values.ravel().tolist()


def write_export(path: Path, export: dict[str, Any], *, pretty: bool = False) -> Path:
    path.write_text(
        json.dumps(
            export,
            ensure_ascii=False,
            indent=2 if pretty else None,
            separators=None if pretty else (",", ":"),
        ),
        "utf-8",
    )
    return path


def weights_of(export: dict[str, Any]) -> list[dict[str, Array]]:
    """The arrays of each layer by their names in the file, without the optimizers'."""

    def arrays(owner: dict[str, Any], prefix: str = "") -> dict[str, Array]:
        found: dict[str, Array] = {}
        for key, value in owner.items():
            if key.endswith("_data"):
                name = key.removesuffix("_data")
                found[prefix + name] = (
                    np.array(value, np.float32).astype(np.float64).reshape(owner[f"{name}_shape"])
                )
            elif isinstance(value, dict) and "optimizer" not in key:
                found |= arrays(value, f"{prefix}{key}.")
        return found

    return [arrays(next(iter(layer.values()))) for layer in export["layers"]]


def forward(weights: list[dict[str, Array]], ids: list[int]) -> Array:
    """Logits (T, V) after each of ids."""
    embeddings, *blocks, head = weights
    x = embeddings["token_embeddings"][ids]
    T, C = x.shape
    for position in range(T):
        for i in range(C):
            angle = position / 10000 ** ((i // 2) / C)
            x[position, i] += np.cos(angle) if i % 2 else np.sin(angle)
    for block in blocks:
        x = x + _attention(block, _norm(block, "norm1", x))
        h = _norm(block, "norm2", x) @ block["feed_forward.w1"] + block["feed_forward.b1"]
        x = x + np.where(h > 0, h, 0) @ block["feed_forward.w2"] + block["feed_forward.b2"]
    return x @ head["w_out"] + head["b_out"]


def loss(weights: list[dict[str, Array]], ids: list[int], targets: list[int]) -> float:
    """Mean cross-entropy in nats over the targets that are not -1."""
    logits = forward(weights, ids)
    top = logits.max(axis=1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return float(-np.mean([logs[t, target] for t, target in enumerate(targets) if target >= 0]))


def _attention(block: dict[str, Array], x: Array) -> Array:
    q, k, v = (x @ block[f"attention.w_{name}"] for name in "qkv")
    size, heads = x.shape[1] // 8, []
    for head in range(8):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / np.sqrt(size)
        scores[np.triu_indices(len(x), 1)] = -np.inf
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(shares / shares.sum(axis=1, keepdims=True) @ v[:, part])
    return np.concatenate(heads, axis=1) @ block["attention.w_o"]


def _norm(block: dict[str, Array], name: str, x: Array) -> Array:
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-8) * block[f"{name}.gamma"] + block[f"{name}.beta"]


def gradient_places(export: dict[str, Any]) -> dict[str, tuple[int, str, slice | None]]:
    """Where each parameter of cgpt's graph comes from: layer, name in the file, rows.

    The rows are those of the parameter, for the thirds of c_attn.
    """
    C, n = export["metadata"]["embedding_dim"], len(export["layers"])
    found: dict[str, tuple[int, str, slice | None]] = {
        "wte.weight": (0, "token_embeddings", None),
        "head.weight": (n - 1, "w_out", None),
        "head.bias": (n - 1, "b_out", None),
    }
    for i in range(1, n - 1):
        name = f"h.{i - 1}"
        for place, key in enumerate("qkv"):
            found[f"{name}.attn.c_attn.weight {key}"] = (
                i,
                f"attention.w_{key}",
                slice(place * C, (place + 1) * C),
            )
        found[f"{name}.attn.c_proj.weight"] = (i, "attention.w_o", None)
        for number, layer in (("1", "c_fc"), ("2", "c_proj")):
            found[f"{name}.mlp.{layer}.weight"] = (i, f"feed_forward.w{number}", None)
            found[f"{name}.mlp.{layer}.bias"] = (i, f"feed_forward.b{number}", None)
        for number, branch in (("1", "attn"), ("2", "mlp")):
            found[f"{name}.{branch}.ln.weight"] = (i, f"norm{number}.gamma", None)
            found[f"{name}.{branch}.ln.bias"] = (i, f"norm{number}.beta", None)
    return found


def as_in_file(name: str, array: Array, rows: slice | None) -> Array:
    """An array of cgpt's graph (by the names of `gradient_places`) as the file has it."""
    part = array if rows is None else array[rows]
    if part.ndim == 1:
        return part[None]
    return part if name == "wte.weight" else part.T
