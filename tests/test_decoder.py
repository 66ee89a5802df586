"""The decoder: all layers for a few rows, over weights of every form, on every instruction set."""

# ruff: noqa: F811 - `module` is a fixture: imported here, an argument below

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import reference as ref
from kernel_memory import Paged
from test_kernels import ISAS, module  # noqa: F401

import cgpt
from cgpt import kernels
from cgpt.config import WEIGHT_DTYPES, GPTConfig
from cgpt.generation.generate import generate_tokens
from cgpt.models.gpt2 import GPT, GPT2Graph
from cgpt.nn.activations import GELU
from cgpt.nn.attention import CausalAttention
from cgpt.nn.decoder import bind
from cgpt.nn.layer import Layer
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.quantized import StoredTensor, dequantize, rounded, weight_dtype
from cgpt.nn.residual import Residual

ODD = GPTConfig(n_layer=2, n_head=3, n_embd=9, n_ff=17, vocab_size=37, block_size=40)
WIDE = GPTConfig(n_layer=2, n_head=2, n_embd=136, n_ff=330, vocab_size=301, block_size=90)
FLAT = GPTConfig(n_layer=1, n_head=1, n_embd=1, n_ff=1, vocab_size=2, block_size=3)
SHAPES = (ODD, WIDE, FLAT)


def weights(
    config: GPTConfig,
    form: str,
    group: int = 64,
    place: Callable[[np.ndarray], np.ndarray] = np.copy,
) -> dict[str, StoredTensor]:
    """Random weights that make every part of the graph matter, each array put by `place`."""
    rng = np.random.default_rng(3)
    found = {}
    for entry in GPT.layout(config):
        x = rng.normal(0.2 if len(entry.shape) == 1 else 0, 0.25, entry.shape).astype(np.float32)
        one = rounded(entry, x, weight_dtype(entry, form), group)
        found[entry.name] = StoredTensor(
            place(one.data), None if one.scales is None else place(one.scales), one.group
        )
    return found


def decoder(module: ModuleType, config: GPTConfig, stored: dict[str, StoredTensor]) -> Any:
    return bind(GPT2Graph(config).decode_plan(), stored, module)


def caches(config: GPTConfig, sequences: int, capacity: int) -> np.ndarray:
    H = config.n_head
    return np.full(
        (2, sequences, config.n_layer, H, capacity, config.n_embd // H), np.nan, np.float32
    )


def tokens(config: GPTConfig, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, config.vocab_size, n, dtype=np.int32)


def int32(values: Any) -> np.ndarray:
    return np.array(list(values), np.int32)


def alone(config: GPTConfig, made: Any, ids: np.ndarray, at_once: int) -> np.ndarray:
    """Logits (n, V) after each of ids, some at once, in a cache of their own."""
    (keys, values), found = caches(config, 1, len(ids)), []
    for start in range(0, len(ids), at_once):
        part = ids[start : start + at_once]
        logits = np.full((len(part), config.vocab_size), np.nan, np.float32)
        made.run(
            part,
            int32(range(start, start + len(part))),
            np.zeros(len(part), np.int32),
            keys,
            values,
            logits,
        )
        found.append(logits)
    return np.concatenate(found)


def quantized(x: np.ndarray) -> np.ndarray:
    """float64 rows as int8 in groups of 64 would hold them."""
    columns = x.shape[1]
    x = np.pad(x, ((0, 0), (0, -columns % 64))).reshape(len(x), -1, 64)
    scale = np.abs(x).max(axis=2, keepdims=True) / 127
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.where(scale > 0, np.floor(np.abs(x / scale) + 0.5) * np.sign(x), 0)
    return (q * scale).reshape(len(x), -1)[:, :columns]


def expected(config: GPTConfig, stored: dict[str, StoredTensor], ids: np.ndarray) -> np.ndarray:
    """Logits (n, V) in float64; rows that meet an int8 matrix are rounded as the kernel does."""
    w = {name: one.floats().astype(np.float64) for name, one in stored.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return ref.layernorm_forward(x, w[f"{name}.weight"], w[f"{name}.bias"])[0]

    def product(x: np.ndarray, name: str) -> np.ndarray:
        whole = stored[f"{name}.weight"].scales is None
        y = (x if whole else quantized(x)) @ w[f"{name}.weight"].T
        return y + w[f"{name}.bias"] if f"{name}.bias" in w else y

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for i in range(config.n_layer):
        qkv = product(norm(x, f"h.{i}.attn.ln"), f"h.{i}.attn.c_attn")
        mixed, _ = ref.attention_forward(qkv, np.array([0, len(ids)]), config.n_head)
        x = x + product(mixed, f"h.{i}.attn.c_proj")
        hidden = ref.gelu_forward(product(norm(x, f"h.{i}.mlp.ln"), f"h.{i}.mlp.c_fc"))
        x = x + product(hidden, f"h.{i}.mlp.c_proj")
    return product(norm(x, "ln_f"), "wte")


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
@pytest.mark.parametrize("config", SHAPES, ids=("odd", "wide", "flat"))
def test_agrees_with_float64(module, config, form):
    """1e-5 of the largest logit where only float32 rounds. Where activations are rounded to int8,
    one that lies on a border may fall to the other side: that moves what comes after it by a
    quantum, and no row of a few values is spared, so most of them are to be closer than that."""
    stored, ids = weights(config, form), tokens(config, config.block_size)
    found = alone(config, decoder(module, config, stored), ids, len(ids))
    wanted = expected(config, stored, ids)
    error = np.abs(found - wanted) / np.abs(wanted).max()
    assert error.max() < (3e-2 if form == "int8" else 1e-5)
    assert np.median(error) < (2e-3 if form == "int8" else 1e-6)


@pytest.mark.parametrize("group", [32, 64])
def test_int8_weights_are_multiplied_exactly(module, group):
    """One product, rows within float32 of float64: integers have no rounding of their own."""
    config = GPTConfig(n_layer=1, n_head=1, n_embd=200, n_ff=8, vocab_size=67, block_size=4)
    stored = weights(config, "int8", group)
    q = stored["wte.weight"].data.copy()
    q[:, ::7] = -128  # no file of ours has it, but the form allows it
    stored["wte.weight"] = StoredTensor(q, stored["wte.weight"].scales, group)
    for name in ("h.0.attn.c_proj", "h.0.mlp.c_proj"):  # the block adds its biases only
        stored[f"{name}.weight"] = rounded(
            next(e for e in GPT.layout(config) if e.name == f"{name}.weight"),
            np.zeros(stored[f"{name}.weight"].data.shape, np.float32),
            "int8",
            group,
        )
    ids = tokens(config, 4)
    found = alone(config, decoder(module, config, stored), ids, 4)
    wanted = expected(config, stored, ids)
    assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
    assert np.median(np.abs(found - wanted)) < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
@pytest.mark.parametrize("config", SHAPES, ids=("odd", "wide", "flat"))
def test_the_bits_depend_on_the_sequence_alone(module, config, form):
    """Whole, one by one, in odd parts, beside other sequences, with 1, 2 and 3 threads."""
    made = decoder(module, config, weights(config, form))
    T = config.block_size
    lengths = (T, 1, max(1, T - 3), max(1, T // 2))
    sequences = [tokens(config, n, seed) for seed, n in enumerate(lengths)]
    whole = [alone(config, made, ids, len(ids)) for ids in sequences]
    try:
        for threads in (1, 2, 3):
            module.set_num_threads(threads)
            for at_once in (1, 3):
                assert (alone(config, made, sequences[0], at_once) == whole[0]).all()
            keys, values = caches(config, len(sequences), T)
            for t in range(T):
                live = [i for i, ids in enumerate(sequences) if t < len(ids)]
                logits = np.empty((len(live), config.vocab_size), np.float32)
                made.run(
                    int32(sequences[i][t] for i in live),
                    int32([t] * len(live)),
                    int32(live),
                    keys,
                    values,
                    logits,
                )
                assert all((row == whole[i][t]).all() for row, i in zip(logits, live, strict=True))
    finally:
        module.set_num_threads(1)


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_arrays_is_read(module, form, at_end):
    """Every array ends, or begins, at a page that may not be touched."""
    kept = []

    def placed(array: np.ndarray) -> np.ndarray:
        kept.append(Paged(array, at_end))
        return kept[-1].array

    for config in (ODD, FLAT):
        made = decoder(module, config, weights(config, form, 32, placed))
        ids = tokens(config, 3)
        keys, values = (placed(half) for half in caches(config, 1, 3))
        logits = placed(np.zeros((3, config.vocab_size), np.float32))
        made.run(
            placed(ids),
            placed(int32(range(3))),
            placed(np.zeros(3, np.int32)),
            keys,
            values,
            logits,
        )
        assert (logits == alone(config, made, ids, 3)).all()


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_what_is_not_finite_is_seen(module, form):
    stored = weights(WIDE, form)
    for bad in (np.nan, np.inf):
        stored["h.0.mlp.c_fc.bias"].data[5] = bad
        assert not np.isfinite(alone(WIDE, decoder(module, WIDE, stored), tokens(WIDE, 2), 2)).any()


def test_the_forms_of_all_instruction_sets_agree():
    for form in WEIGHT_DTYPES:
        found = [
            alone(WIDE, decoder(kernels.load(isa), WIDE, weights(WIDE, form)), tokens(WIDE, 5), 5)
            for isa in ISAS
        ]
        for other in found[1:]:
            assert (
                np.abs(other - found[0]).max()
                < (0.03 if form == "int8" else 1e-5) * np.abs(found[0]).max()
            )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ids", [0, 37], r"ids\[1\]: found 37"),
        ("ids", [-1, 0], r"ids\[0\]: found -1"),
        ("positions", [0, 5], r"positions\[1\]: found 5"),
        ("positions", [0], "positions: found 1, expected 2"),
        ("sequences", [0, 2], r"sequences\[1\]: found 2"),
        ("sequences", [0, 1, 1], "sequences: found 3, expected 2"),
        ("position_ids", [0, 40], r"position_ids\[1\]: found 40"),
        ("keys", np.zeros((2, 2, 3, 5, 4), "f4"), "keys: width of a head: found 4, expected 3"),
        ("keys", np.zeros((2, 1, 3, 5, 3), "f4"), "keys: layers: found 1, expected 2"),
        ("keys", np.zeros((2, 2, 1, 5, 3), "f4"), "keys: heads: found 1, expected 3"),
        ("values", np.zeros((2, 2, 3, 4, 3), "f4"), "values: found 4, expected 5"),
        ("logits", np.zeros((3, 37), "f4"), "logits: found 3 rows, expected at most 2"),
        ("logits", np.zeros((1, 36), "f4"), "logits: vocabulary: found 36, expected 37"),
    ],
)
def test_wrong_calls_are_refused(module, name, value, message):
    keys, values = caches(ODD, 2, 5)
    right = {
        "ids": int32([0, 1]),
        "positions": int32([0, 0]),
        "sequences": int32([0, 1]),
        "keys": keys,
        "values": values,
        "logits": np.zeros((2, 37), np.float32),
    }
    wrong = value if isinstance(value, np.ndarray) else int32(value)
    with pytest.raises(ValueError, match=message):
        decoder(module, ODD, weights(ODD, "float32")).run(**{**right, name: wrong})
    assert np.isnan(keys).all()


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_going_on_is_running_and_picking_in_turn(module, form, temperature):
    """The same tokens, logits, keys and values, with 1 and 2 threads."""
    config, n = WIDE, 20
    made = decoder(module, config, weights(config, form))
    sampler = module.TokenSampler(config.vocab_size, temperature, 0, 1.0, 0.0, int32([7]))
    u = np.random.default_rng(5).random(n) if temperature else None
    positions = np.arange(n, dtype=np.int32)
    (keys, values), logits = caches(config, 1, n + 1), np.zeros((1, config.vocab_size), np.float32)
    wanted = int32([3] * (n + 1))
    for i in range(n):
        made.run(
            wanted[i : i + 1],
            positions[i : i + 1],
            int32([0]),
            keys,
            values,
            logits,
            None,
            sampler,
            u if u is None else u[i : i + 1],
            wanted[i + 1 : i + 2],
        )
    assert 7 not in wanted and (temperature == 0 or len(set(wanted.tolist())) > 10)
    try:
        for threads in (1, 2):
            module.set_num_threads(threads)
            own, ids = caches(config, 1, n + 1), int32([3] * (n + 1))
            behind = np.zeros_like(logits)
            assert made.decode_n(ids, positions, *own, behind, sampler, u) == n
            assert (ids == wanted).all() and (behind == logits).all()
            assert np.array_equal(own, (keys, values), equal_nan=True)
    finally:
        module.set_num_threads(1)


def test_going_on_ends_where_nothing_can_be_picked(module):
    stored = weights(ODD, "float32")
    broken = stored["wpe.weight"].data.copy()
    broken[2] = np.nan
    stored["wpe.weight"] = StoredTensor(broken)
    ids, sampler = int32([1] * 6), module.TokenSampler(37, 0, 0, 1.0, 0.0, int32([]))
    keys, values = caches(ODD, 1, 5)
    logits = np.zeros((1, 37), np.float32)
    made = decoder(module, ODD, stored)
    assert made.decode_n(ids, int32(range(5)), keys, values, logits, sampler) == 3
    assert ids[3] == -1 and (ids[4:] == 1).all() and np.isnan(logits).all()
    assert np.isnan(keys[:, :, :, 3:]).all()
    assert made.decode_n(ids[:1], int32([]), keys, values, logits, sampler) == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ids", [0, 0], "ids: found 2, expected 3"),
        ("ids", [37, 0, 0], r"ids\[0\]: found 37"),
        ("positions", [0, 5], r"positions\[1\]: found 5"),
        ("u", np.zeros(1), "u: found 1, expected 2"),
        ("u", None, "u: found None"),
        ("keys", np.zeros((2, 2, 3, 5, 3), "f4"), "keys: found 2, expected 1"),
        ("keys", np.zeros((1, 1, 3, 5, 3), "f4"), "keys: layers: found 1, expected 2"),
        ("values", np.zeros((1, 2, 3, 4, 3), "f4"), "values: found 4, expected 5"),
        ("logits", np.zeros((2, 37), "f4"), "logits: found 2, expected 1"),
        ("logits", np.zeros((1, 36), "f4"), "sampler: vocabulary|logits: vocabulary: found 36"),
    ],
)
def test_wrong_calls_to_decode_n_are_refused(module, name, value, message):
    keys, values = caches(ODD, 1, 5)
    right = {
        "ids": int32([0] * 3),
        "positions": int32([0, 1]),
        "keys": keys,
        "values": values,
        "logits": np.zeros((1, 37), np.float32),
        "u": np.zeros(2),
        "sampler": module.TokenSampler(37, 1.0, 0, 1.0, 0.0, int32([])),
    }
    wrong = int32(value) if isinstance(value, list) else value
    with pytest.raises(ValueError, match=message):
        decoder(module, ODD, weights(ODD, "float32")).decode_n(**{**right, name: wrong})
    assert np.isnan(keys).all()


def test_weights_that_do_not_fit_are_refused(module):
    for name, shape in (
        ("h.1.attn.c_attn.weight", (27, 8)),
        ("h.0.mlp.c_fc.bias", (16,)),
        ("ln_f.weight", (8,)),
        ("h.0.attn.ln.bias", (10,)),
    ):
        stored = weights(ODD, "float32")
        stored[name] = StoredTensor(np.zeros(shape, np.float32))
        with pytest.raises(ValueError, match="found"):
            decoder(module, ODD, stored)
    stored = weights(ODD, "int8")
    one = stored["wte.weight"]
    stored["wte.weight"] = StoredTensor(one.data, one.scales[:, :0].copy(), one.group)
    with pytest.raises(ValueError, match="embedding: scales"):
        decoder(module, ODD, stored)
    stored["wte.weight"] = StoredTensor(one.data, one.scales, 48)
    with pytest.raises(ValueError, match="groups of 48"):
        decoder(module, ODD, stored)


class Layered(GPT):
    """The same graph, taken layer by layer."""

    class graph_class(GPT2Graph):
        def decode_plan(self):
            return None


def test_layer_by_layer_gives_the_same():
    gpt, ids = cgpt.GPT(WIDE, seed=1), tokens(WIDE, 30)
    other = Layered(WIDE, weights=gpt.arena.data)
    cache, also = gpt.new_cache(), other.new_cache()
    for part in (ids[:9], ids[9:10], ids[10:]):
        np.testing.assert_allclose(gpt.infer(part, cache), other.infer(part, also), atol=1e-5)
    np.testing.assert_allclose(cache.keys[:, :, :30], also.keys[:, :, :30], atol=1e-5)
    assert (other.generate(ids[None, :5].repeat(2, 0), 9) == gpt.generate(ids[:5], 9)).all()
    prompts = [ids[:4].tolist(), ids[7:19].tolist(), [3]]
    for options in ({"temperature": 0}, {"temperature": 1.2, "seed": 3}, {"beam": 3}):
        sampling = cgpt.SamplingConfig(max_new_tokens=100, **options)  # past a full context
        assert generate_tokens(other, prompts, sampling) == generate_tokens(gpt, prompts, sampling)


def test_layer_by_layer_several_tokens_are_sampled_in_a_call(monkeypatch):
    gpt = Layered(WIDE, seed=1)
    sampling = cgpt.SamplingConfig(temperature=0.9, seed=2, max_new_tokens=20)
    found = list(generate_tokens(gpt, [4, 5], sampling))
    monkeypatch.setattr(gpt.decoder, "run_length", 7)
    assert list(generate_tokens(gpt, [4, 5], sampling)) == found


def test_dequantized_weights_are_what_is_multiplied():
    one = weights(WIDE, "int8")["wte.weight"]
    target = np.empty(one.data.shape, np.float32)
    dequantize(one.data, one.scales, one.group, target)
    assert (target == one.floats()).all()


@pytest.mark.parametrize(
    "layers",
    [
        {"first": Linear(8, 8)},  # the stream itself is changed
        {"norm": LayerNorm(8)},
        {"mlp": Residual(ln=LayerNorm(8), one=Linear(8, 8))},  # others would read what is added to
        {"mlp": Residual(one=Linear(8, 8), gelu=GELU(), again=GELU(), two=Linear(8, 8))},
        {"mlp": Residual(one=Linear(8, 8), two=Linear(8, 8), gelu=GELU())},
        {"mlp": Residual(one=Linear(8, 8), two=Linear(8, 8), ln=LayerNorm(8))},
        {"attn": Residual(qkv=Linear(8, 24), heads=CausalAttention(8, 2, 0))},
        {"attn": Residual(heads=CausalAttention(8, 2, 0), out=Linear(8, 8))},
        {"attn": Residual(qkv=Linear(8, 12), heads=CausalAttention(4, 2, 0), out=Linear(4, 8))},
        {"both": Residual(one=Linear(8, 8), two=Residual(three=Linear(8, 8), four=Linear(8, 8)))},
        {"unknown": Residual(one=Linear(8, 8), other=Layer(), two=Linear(8, 8))},
    ],
    ids=lambda layers: "-".join(layers),
)
def test_what_the_kernel_cannot_do_has_no_plan(layers):
    """And so goes layer by layer, rather than wrongly."""

    class Odd(GPT2Graph):
        def __init__(self, config: GPTConfig) -> None:
            super().__init__(config)
            vars(self.blocks[0]).update(layers)

    config = GPTConfig(n_layer=2, n_head=2, n_embd=8, n_ff=8, vocab_size=9, block_size=4)
    assert GPT2Graph(config).decode_plan() is not None and Odd(config).decode_plan() is None
