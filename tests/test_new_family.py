"""A family is one file of layers and one line of the registry: everything else follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS

from cgpt import ChatSession, SamplingConfig, TrainConfig, Trainer
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.cli import main
from cgpt.config import GPTConfig
from cgpt.config.declaration import documented, option
from cgpt.evaluation.perplexity import evaluate
from cgpt.evaluation.predictions import predictions
from cgpt.generation.generate import generate_tokens
from cgpt.llm import LLM, load_model_auto
from cgpt.models import registry
from cgpt.models.base import Model
from cgpt.models.graph import Block, Graph
from cgpt.models.quantized import QuantizedModel
from cgpt.models.registry import Family
from cgpt.nn.activations import GELU, ReLU
from cgpt.nn.attention import CausalAttention
from cgpt.nn.decoder import FusedDecoder, LayerDecoder
from cgpt.nn.embedding import Embedding
from cgpt.nn.heads import LinearHead, TiedHead
from cgpt.nn.linear import Linear
from cgpt.nn.norms import LayerNorm
from cgpt.nn.residual import Residual
from cgpt.optim.lora import Lora
from cgpt.optim.muon import Muon


@documented
@dataclass(frozen=True)
class MLPConfig(GPTConfig):
    """Shape of an MLP graph."""


class MLPBlock(Block):
    """Two matrices, added to the stream."""

    kind = "MLPBlock"

    def __init__(self, config: GPTConfig) -> None:
        C, F = config.n_embd, config.n_ff
        self.mlp = Residual(ln=LayerNorm(C), c_fc=Linear(C, F), gelu=GELU(), c_proj=Linear(F, C))


class MLPGraph(Graph):
    """No token sees another: each is followed by what follows it most often at its position."""

    def __init__(self, config: GPTConfig) -> None:
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [MLPBlock(config) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)
        self.head = TiedHead(self.embedding)


class MLP(Model):
    """Arguments, passes and promises are Model's."""

    graph_class = MLPGraph


@documented
@dataclass(frozen=True)
class ToyConfig(GPTConfig):
    """Shape of a toy graph."""

    norm_eps: float = option(1e-3, minimum=0.0, maximum=1.0, open_below=True, doc="in a norm")


class ToyBlock(Block):
    """The MLP first, without a norm between its matrices and with ReLU; then attention."""

    kind = "ToyBlock"

    def __init__(self, config: ToyConfig, index: int) -> None:
        C, eps = config.n_embd, config.norm_eps
        self.mlp = Residual(
            ln=LayerNorm(C, eps),
            up=Linear(C, 2 * C, bias=False),
            relu=ReLU(),
            down=Linear(2 * C, C),
        )
        self.attention = Residual(
            ln=LayerNorm(C, eps),
            qkv=Linear(C, 3 * C, parts=3),
            heads=CausalAttention(C, config.n_head, index),
            out=Linear(C, C, bias=False),
        )


class ToyGraph(Graph):
    """No final norm, and a head of its own."""

    def __init__(self, config: ToyConfig) -> None:
        self.embedding = Embedding(config.vocab_size, config.block_size, config.n_embd)
        self.blocks = [ToyBlock(config, i) for i in range(config.n_layer)]
        self.head = LinearHead(config.n_embd, config.vocab_size)


class Toy(Model):
    """Arguments, passes and promises are Model's."""

    graph_class = ToyGraph


MINE = (Family("mlp", MLPConfig, MLP), Family("toy", ToyConfig, Toy))
GREEDY = SamplingConfig(temperature=0, max_new_tokens=12)


@pytest.fixture(autouse=True)
def independently_read() -> None:
    """Not here: the specification, which that reader keeps to, lists no such graphs."""


@pytest.fixture(params=MINE, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, *MINE))
    return request.param


def fresh(family: Family) -> LLM:
    config = family.config(n_layer=2, n_head=2, n_embd=16, vocab_size=400, block_size=48)
    return LLM.from_texts([*TEXTS, "长江黄河"], config)


def trained(family: Family, **more: Any) -> LLM:
    llm = fresh(family)
    train(llm, **more)
    return llm


def train(llm: LLM, phase: str = "pretrain", **more: Any) -> None:
    config = TrainConfig(
        **{"epochs": 2, "batch_tokens": 64, "lr": 1e-2, "warmup": 1, "dropout": 0.1, **more}
    )
    Trainer(llm, config, phase).fit(TEXTS if phase == "pretrain" else DIALOGUES)


def same(one: LLM, other: LLM) -> bool:
    mine, yours = one.gpt.parameters(), other.gpt.parameters()
    return mine.keys() == yours.keys() and all((mine[name] == yours[name]).all() for name in mine)


def test_it_trains_and_resumes_to_the_bit(family: Family, tmp_path: Path) -> None:
    for more in ({}, {"optimizer": "adamw", "recompute": True, "embedding_lr": 2.0}):
        whole, parts = trained(family, **more), trained(family, max_steps=3, **more)
        assert type(whole.gpt) is family.model and whole.loss(TEXTS) < fresh(family).loss(TEXTS)
        assert parts.training_state.step == 3 and not same(whole, parts)
        for save, name in ((save_model_binary, "m.bin"), (save_model_json, "m.json")):
            other = load_model_auto(save(parts, tmp_path / name))
            assert same(parts, other) and type(other.gpt) is family.model
            train(other, **more)
            assert same(whole, other)


def test_roles_say_which_matrices_muon_and_lora_take(family: Family) -> None:
    llm = trained(family)
    assert isinstance(llm.optimizer, Muon)
    matrices = {name for name, one in llm.gpt.parameters().items() if one.ndim == 2}
    inner = matrices - {"wte.weight", "wpe.weight", "head.weight"}
    v = {name: llm.gpt.arena.view(name, llm.gpt.arena.v) for name in matrices}
    assert {name for name, one in v.items() if not one.any()} == inner
    before = {name: one.copy() for name, one in llm.gpt.parameters().items()}
    train(llm, "finetune", lora_rank=2, dropout=0.0)
    assert isinstance(llm.optimizer, Lora)
    changed = {name for name, one in llm.gpt.parameters().items() if (one != before[name]).any()}
    assert changed == inner


def test_files_name_its_layers(family: Family, tmp_path: Path) -> None:
    llm = trained(family)
    for save, name in ((save_model_binary, "m.bin"), (save_model_json, "m.json")):
        found = describe(save(llm, tmp_path / name), verify=True)
        assert found["graph"] == family.name and found["config"] == llm.config.to_dict()
        kinds = [one["type"] for one in found["layers"]]
        assert kinds[1:3] == [llm.gpt.graph.blocks[0].kind] * 2
        assert found["parameters"] == llm.n_parameters


def test_it_is_rounded(family: Family, tmp_path: Path) -> None:
    llm = trained(family)
    path = save_model_binary(llm, tmp_path / "m.bin", optimizer=False, weights="int8")
    for found in (
        load_model_auto(path, training=False),
        load_model_auto(save_model_binary(llm, tmp_path / "f.bin"), training=False, weights="int8"),
    ):
        gpt = found.gpt
        assert isinstance(gpt, QuantizedModel) and isinstance(gpt.decoder, FusedDecoder)
        dtypes = {name: one.data.dtype.name for name, one in gpt.stored().items()}
        assert dtypes["wte.weight"] == "int8" and dtypes["wpe.weight"] == "float32"
        assert abs(found.loss(TEXTS) - llm.loss(TEXTS)) < 0.1
        assert np.allclose(found.embed(TEXTS[0]), llm.embed(TEXTS[0]), atol=0.1)
        assert found.generate(TEXTS[0][:2], 5) == load_model_auto(path).generate(TEXTS[0][:2], 5)
        again = load_model_auto(save_model_binary(found, tmp_path / "again.bin"), training=False)
        assert same(found, again) and again.gpt.form == "int8"


def test_it_is_inspected(family: Family) -> None:
    gpt = trained(family).gpt
    ids = np.arange(9, dtype=np.int32)
    found = gpt.inspect(ids)
    n_heads = {"mlp": 0, "toy": 2}[family.name]
    assert found.hidden.shape == (3, 9, 16) and found.attention.shape == (n_heads, 2, 9, 9)
    np.testing.assert_allclose(found.attention.sum(axis=3), 1, atol=1e-6)
    np.testing.assert_allclose(found.logits, gpt.logits(ids[None])[0], atol=1e-5)
    assert len(predictions(gpt, ids)) == 9


def test_without_attention_no_picture_is_drawn(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = save_model_binary(trained(family), tmp_path / "m.bin"), tmp_path / "a.png"
    code = main(["inspect", str(path), "长江", "-o", str(picture), "--lang", "en"])
    assert (code, picture.exists()) == ((1, False) if family.name == "mlp" else (0, True))
    assert ("which has 0" in capsys.readouterr().err) == (family.name == "mlp")


def test_it_is_talked_to_and_measured(family: Family) -> None:
    llm = trained(family)
    train(llm, "finetune")
    assert isinstance("".join(ChatSession(llm, GREEDY).reply("你好")), str)
    assert llm.generate(TEXTS[0][:3], 5) == llm.generate([TEXTS[0][:3]], 5)[0]
    scores = llm.score(["山", "水流"], prompt=TEXTS[0][:20])
    assert scores[1].total == pytest.approx(llm.score("水流", TEXTS[0][:20]).total, abs=1e-4)
    assert (
        evaluate(llm, TEXTS).tokens > 0 and len(llm.beam_search("山", SamplingConfig(beam=2))) == 2
    )


@pytest.mark.parametrize("options", [{}, {"beam": 3}, {"speculate": 3}, {"max_new_tokens": 80}])
def test_the_kernel_and_the_layers_decode_alike(family: Family, options: dict[str, Any]) -> None:
    llm = trained(family, epochs=10)
    fused = llm.gpt
    layered = type("Layered", (family.model,), {"graph_class": layered_graph(family)})(
        llm.config, weights=fused.arena.data
    )
    assert isinstance(fused.decoder, FusedDecoder) and isinstance(layered.decoder, LayerDecoder)
    prompts = [llm.tokenizer.encode(text[:n]) for text, n in zip(TEXTS, (3, 1, 7), strict=False)]
    sampling = SamplingConfig(**{**GREEDY.to_dict(), **options})
    assert generate_tokens(fused, prompts, sampling) == generate_tokens(layered, prompts, sampling)
    ids = np.arange(20, dtype=np.int32)
    found = fused.infer_all(ids, fused.new_cache())
    np.testing.assert_allclose(found, layered.infer_all(ids, layered.new_cache()), atol=1e-4)


def layered_graph(family: Family) -> type[Graph]:
    """The family's graph where the kernel has nothing for one of its layers."""
    return type("LayeredGraph", (family.model.graph_class,), {"decode_plan": lambda self: None})
