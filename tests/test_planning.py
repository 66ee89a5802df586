"""Plans: fused and plain ones compute the same, and no two values share memory while needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import cgpt
from cgpt import kernels
from cgpt.config import GPTConfig
from cgpt.models.base import Model
from cgpt.models.gpt2 import GPT
from cgpt.models.graph import Block, Graph
from cgpt.models.rustgpt import RustGPT, RustGPTConfig
from cgpt.nn import planning
from cgpt.nn.activations import GELU, ReLU
from cgpt.nn.attention import CausalAttention
from cgpt.nn.embedding import Embedding
from cgpt.nn.heads import LinearHead, TiedHead
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.planning import Mode, Plan, make_plan, value_size
from cgpt.nn.residual import Residual

SHAPE = dict(n_layer=3, n_head=2, n_embd=20, n_ff=36, vocab_size=61, block_size=40)


class MLPBlock(Block):
    """No attention, two GELUs in a row and a branch that is a norm and nothing else."""

    kind = "MLPBlock"

    def __init__(self, config: GPTConfig) -> None:
        C, F = config.n_embd, config.n_ff
        self.mlp = Residual(
            ln=LayerNorm(C),
            a=Linear(C, F),
            gelu=GELU(),
            b=Linear(F, F, bias=False),
            gelu2=GELU(),
            c=Linear(F, C),
        )
        self.norm = Residual(ln=LayerNorm(C))


class MLPGraph(Graph):
    """A head of its own and no final norm."""

    def __init__(self, config: GPTConfig) -> None:
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [MLPBlock(config) for _ in range(config.n_layer)]
        self.head = LinearHead(config.n_embd, config.vocab_size)


class MLP(Model):
    graph_class = MLPGraph


class MixedBlock(Block):
    """Branches that end or begin with other layers than a Linear or a norm."""

    kind = "MixedBlock"

    def __init__(self, config: GPTConfig, index: int) -> None:
        C = config.n_embd
        self.first = Linear(C, C)
        self.attn = Residual(
            qkv=Linear(C, 3 * C), heads=CausalAttention(C, config.n_head, index), relu=ReLU()
        )
        self.mlp = Residual(gelu=GELU(), one=Linear(C, C), ln=LayerNorm(C), gelu2=GELU())


class MixedGraph(Graph):
    """Attention twice in the last block would not be pruned in between: its rows are mixed."""

    def __init__(self, config: GPTConfig) -> None:
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [MixedBlock(config, i) for i in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        self.head = TiedHead(self.embedding)


class Mixed(Model):
    graph_class = MixedGraph


GRAPHS: dict[str, tuple[type[Model], type[GPTConfig]]] = {
    "gpt2": (GPT, GPTConfig),
    "rustgpt": (RustGPT, RustGPTConfig),
    "mlp": (MLP, GPTConfig),
    "mixed": (Mixed, GPTConfig),
}


def noisy(graph: str, *, recompute: bool = False, **shape: int) -> Model:
    """A model none of whose parameters is zero or one."""
    model, config = GRAPHS[graph]
    gpt = model(config(**{**SHAPE, **shape}), seed=1, recompute=recompute)
    rng = np.random.default_rng(2)
    for array in gpt.parameters().values():
        array += 0.1 * rng.standard_normal(array.shape, dtype=np.float32)
    return gpt


def packed(masked: float) -> dict[str, Any]:
    """Four documents, with a share of the targets masked."""
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 61, 70).astype(np.int32)
    targets[rng.random(70) < masked] = -1
    return {
        "ids": rng.integers(0, 61, 70).astype(np.int32),
        "targets": targets,
        "offsets": np.array([0, 3, 4, 40, 70], np.int32),
    }


def computed(gpt: Model, masked: float, dropout: float) -> list[bytes]:
    """Losses, logits, hidden states and gradients, of a loss of the model's and of one's own."""
    batch = packed(masked)
    ids, offsets = batch["ids"], batch["offsets"]
    found = [np.array(gpt.forward(**batch, dropout=dropout, dropout_key=4))]
    gpt.backward()
    found += [array.copy() for array in gpt.gradients().values()]
    logits = gpt.logits(ids, offsets=offsets, keep=True, dropout=dropout, dropout_key=5)
    gpt.backward(np.sin(logits))
    found += [logits, *gpt.gradients().values(), gpt.losses(**batch)]
    found += [gpt.logits(ids, offsets=offsets), gpt.hidden(ids, offsets=offsets)]
    return [array.tobytes() for array in found]


@pytest.fixture
def threads() -> Iterator[None]:
    before = kernels.get_num_threads()
    yield
    cgpt.set_num_threads(before)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("masked", [0.0, 0.6, 1.0])
def test_fused_and_plain_plans_give_the_same_bits(
    graph: str, dropout: float, masked: float, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    """Every fusion does the arithmetic of the plain layers in their order."""
    expected = computed(noisy(graph), masked, dropout)
    for fusions in ((), planning.FUSIONS):
        monkeypatch.setattr(planning, "FUSIONS", fusions)
        for recompute in (False, True):
            for n in (1, 2, 3):
                cgpt.set_num_threads(n)
                gpt = noisy(graph, recompute=recompute)
                assert computed(gpt, masked, dropout) == expected, (fusions, recompute, n)


def a_plan(graph: str, mode: Mode, rows: int = 100, **shape: int) -> Plan:
    gpt = noisy(graph, **shape)
    return make_plan(gpt.graph.layers()[:-1], gpt.graph.head, mode, rows, gpt.block_names()[:-1])


def names(plan: Plan) -> list[str]:
    return [type(one.layer).__name__ for one in plan.operations]


def test_what_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    block = ["LayerNorm", "Linear", "CausalAttention", "Linear", "LayerNorm", "Linear", "Linear"]
    pruned = [*block[:3], "SelectRows", "SelectRows", *block[3:]]
    assert names(a_plan("gpt2", Mode(True))) == ["Embedding", *block * 2, *pruned, "LayerNorm"]
    with_sums = a_plan("gpt2", Mode(True, dropout=True))
    assert names(with_sums).count("Sum") == names(with_sums).count("Dropout") - 1 == 6
    recomputed = [one.function for one in a_plan("gpt2", Mode(True)).backward]
    assert sum("layernorm_recompute" in repr(one) for one in recomputed) == 6
    monkeypatch.setattr(planning, "FUSIONS", ())
    plain = a_plan("gpt2", Mode(True))
    assert names(plain).count("GELU") == 3 and names(plain).count("Sum") == 6
    assert not any("partial" in repr(one.forward) for one in plain.operations)


MODES = [Mode(), Mode(True), Mode(True, dropout=True), Mode(True, recompute=True)]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fusions", [(), planning.FUSIONS])
def test_values_share_memory_only_at_different_times(
    graph: str, mode: Mode, fusions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "FUSIONS", fusions)
    plan = a_plan(graph, mode)
    assert_apart(plan)
    sizes = {value: value_size(value, 100) for value in plan.offsets}
    shared = sum(sizes.values()) - plan.size
    assert shared > 0 and all(offset % 16 == 0 for offset in plan.offsets.values())
    times = {time for spans in plan.lifetimes.values() for span in spans for time in span}
    least = max(
        sum(sizes[value] for value, spans in plan.lifetimes.items() if needed(spans, time))
        for time in times
    )
    assert least <= plan.size <= (1.1 if mode.training else 1.25) * least


def needed(spans: list[tuple[int, int]], time: int) -> bool:
    return any(first <= time <= last for first, last in spans)


def assert_apart(plan: Plan) -> None:
    """No two values overlap in memory at one time."""
    for one, other in combinations(plan.offsets, 2):
        start, end = plan.offsets[one], plan.offsets[other]
        apart = start + value_size(one, plan.rows) <= end
        apart |= end + value_size(other, plan.rows) <= start
        assert apart or not any(
            first <= last2 and first2 <= last
            for first, last in plan.lifetimes[one]
            for first2, last2 in plan.lifetimes[other]
        ), (one, other)


def test_a_plan_that_shares_too_much_is_noticed() -> None:
    plan = a_plan("gpt2", Mode(True))
    one, other = plan.operations[1].outputs[:2]
    plan = replace(plan, offsets={**plan.offsets, one: plan.offsets[other]})
    with pytest.raises(AssertionError, match=one.name):
        assert_apart(plan)


@pytest.mark.parametrize("mode", MODES[1:])
def test_memory_of_a_block_stays_as_small_as_it_is(mode: Mode) -> None:
    """What each further block costs a row: x (C), qkv (3C), y of attention (C), its log-sum-exp
    (H), x of the MLP (C), its c_fc (F) and two means and deviations; recomputed, x alone."""
    rows, C, F, H = 96, SHAPE["n_embd"], SHAPE["n_ff"], SHAPE["n_head"]
    more = a_plan("gpt2", mode, rows, n_layer=9).size - a_plan("gpt2", mode, rows, n_layer=8).size
    assert more == rows * (C if mode.recompute else 6 * C + F + H + 4)


def test_rows_are_pruned_behind_the_last_layer_that_mixes_them() -> None:
    for graph, first in (("gpt2", "h.2"), ("mlp", "embedding")):
        plan = a_plan(graph, Mode(True))
        parts = [one.part for one in plan.operations if type(one.layer).__name__ == "SelectRows"]
        assert parts and set(parts) == {first}
        assert plan.output.pruned and not plan.operations[0].y.pruned


def test_a_plan_costs_a_step_no_more_python_than_its_kernels(monkeypatch: Any) -> None:
    """The arrays of a batch of the same shape are bound once."""
    gpt = noisy("gpt2")
    gpt.forward(**packed(0.5))
    run = gpt._pending.run
    gpt.backward()
    gpt.forward(**packed(0.5))
    assert gpt._pending.run is run
