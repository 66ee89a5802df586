"""The graph of RustGPT-Chinese: import, forward and backward against float64, saving, chat."""

from __future__ import annotations

import io
import json
import lzma
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import independent_reader
import make_fixtures
import numpy as np
import pytest
import rustgpt_reference as second
from checkpoint_helpers import assert_same, same_bits

import cgpt
from cgpt import kernels
from cgpt.checkpoint.info import describe
from cgpt.cli import main
from cgpt.config import RunConfig, TrainConfig
from cgpt.corpus.encoding import encode_dialogue, encode_document
from cgpt.corpus.records import Message
from cgpt.errors import CheckpointError, ConfigError, DataError
from cgpt.evaluation.perplexity import evaluate
from cgpt.llm import LLM, load, load_model_auto
from cgpt.models.rustgpt import RustGPT, RustGPTConfig
from cgpt.nn.heads import Head
from cgpt.tokenizers import rustgpt
from cgpt.tokenizers.rustgpt import SPECIAL
from cgpt.tokenizers.tokenizer import RustTokenizer, Tokenizer
from cgpt.training.run import TrainingRun, continue_training
from cgpt.training.trainer import Trainer

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parent.parent.parent / "shared" / "rustgpt-export"
EXACT = {"beta2": 0.999, "weight_decay": 0.0}  # the program's Adam


@pytest.fixture(scope="module", autouse=True)
def one_dictionary() -> Iterator[None]:
    """jieba's dictionary takes a second to read: once for all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rustgpt, "_jieba_cut", cache(rustgpt._jieba_cut))
        yield


@pytest.fixture(scope="module", params=[False, True], ids=["2026", "2025"])
def export(request: pytest.FixtureRequest) -> dict[str, Any]:
    return second.make_export(older=request.param)


@pytest.fixture(scope="module")
def path(export: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return second.write_export(tmp_path_factory.mktemp("rust") / "model.json", export)


@pytest.fixture
def llm(path: Path) -> LLM:
    return load(path)


def some_ids(llm: LLM, n: int = 9) -> list[int]:
    return np.random.default_rng(4).integers(7, len(llm.tokenizer), n).tolist()


# The graph


def test_logits_are_those_of_the_second_judge(llm, export):
    ids = some_ids(llm, 40)
    expected = second.forward(second.weights_of(export), ids)
    np.testing.assert_allclose(llm.gpt.logits([ids])[0], expected, rtol=0, atol=2e-5)
    cache = llm.gpt.new_cache()
    for start, end in ((0, 1), (1, 7), (7, 8), (8, 40)):
        found = llm.gpt.infer_all(ids[start:end], cache)
        np.testing.assert_allclose(found, expected[start:end], rtol=0, atol=2e-5)
    inspection = llm.gpt.inspect(ids)
    np.testing.assert_allclose(inspection.logits, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(inspection.attention.sum(axis=3), 1, atol=1e-6)


def test_gradients_are_those_of_central_differences(llm, export):
    """A few entries of every array of the file, in float64 with steps of 1e-5."""
    ids, targets = some_ids(llm), [*some_ids(llm)[1:], -1]
    targets[2] = -1
    weights = second.weights_of(export)
    found = llm.gpt.forward([ids], [targets])
    assert found == pytest.approx(second.loss(weights, ids, targets), abs=1e-5)
    llm.gpt.backward()
    gradients = llm.gpt.gradients()
    rng = np.random.default_rng(0)
    places = second.gradient_places(export)
    assert {name.split()[0] for name in places} == set(gradients)
    for name, (layer, key, rows) in places.items():
        array = weights[layer][key]
        gradient = second.as_in_file(name, gradients[name.split()[0]], rows)
        assert gradient.shape == array.shape
        for _ in range(3):
            at = tuple(rng.integers(array.shape))
            if name == "wte.weight":
                at = (int(rng.choice(ids[:-1])), at[1])
            kept, step, losses = array[at], 1e-5, []
            for sign in (1, -1):
                array[at] = kept + sign * step
                losses.append(second.loss(weights, ids, targets))
            array[at] = kept
            expected = (losses[0] - losses[1]) / (2 * step)
            assert gradient[at] == pytest.approx(expected, abs=3e-6), (name, at)


def test_a_block_that_is_computed_again_gives_the_same_bits(path):
    grads = []
    for recompute in (False, True):
        gpt = load(path).gpt
        gpt.recompute = recompute
        ids = np.array([np.arange(7, 19)] * 2)
        gpt.forward(ids, np.roll(ids, -1, axis=1), dropout=0.2, dropout_key=1)
        gpt.backward()
        grads.append(gpt.arena.grad)
    assert same_bits(*grads)


def test_gradients_of_blocks_of_rows_and_of_abandoned_passes_add_up(llm, monkeypatch):
    """The head's bias is taken along where a block's share is added at once and taken back."""
    gpt, ids = llm.gpt, np.array([some_ids(llm, 12)])
    targets = np.roll(ids, -1)
    gpt.forward(ids, targets)
    gpt.backward()
    once = {name: grad.copy() for name, grad in gpt.gradients().items()}
    gpt.arena.grad.fill(0)
    gpt.arena.clean = True
    monkeypatch.setattr(Head, "block_rows", 5)
    gpt.forward(ids, targets)
    assert gpt.gradients()["head.bias"].any()
    gpt.abandon()
    assert not gpt.arena.grad.any()
    gpt.forward(ids, targets)
    gpt.backward()
    for name, grad in gpt.gradients().items():
        np.testing.assert_allclose(grad, once[name], atol=1e-6)


def test_any_number_of_threads_gives_the_same_bits(path):
    results = []
    threads = kernels.get_num_threads()
    try:
        for n in (1, 2, 3):
            cgpt.set_num_threads(n)
            llm = load(path)
            ids = np.array([some_ids(llm, 64)] * 8)
            loss = llm.gpt.forward(ids, np.roll(ids, -1, axis=1), dropout=0.1, dropout_key=3)
            llm.gpt.backward()
            results.append((loss, llm.gpt.arena.grad.copy()))
    finally:
        cgpt.set_num_threads(threads)
    for loss, grad in results[1:]:
        assert loss == results[0][0] and same_bits(grad, results[0][1])


def test_positions_have_the_halved_exponent():
    from cgpt.nn.embedding import sinusoids

    table = sinusoids(128, 256)
    assert table[3, 10] == pytest.approx(np.sin(3 / 10000 ** (5 / 256)), abs=1e-7)
    assert table[127, 255] == pytest.approx(np.cos(127 / 10000 ** (127 / 256)), abs=1e-7)


@pytest.mark.parametrize(
    "wrong", [{"block_size": 5000}, {"norm_eps": 0.0}, {"norm_eps": "x"}, {"n_head": 3}]
)
def test_a_configuration_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RustGPTConfig(**{"n_embd": 16, "n_head": 8, **wrong})


# What is imported


def test_words_and_shape_are_those_of_the_export(llm, export):
    encode = export["vocab"]["encode"]
    assert {word: id for id, word in enumerate(llm.tokenizer.words)} == encode
    assert llm.config == RustGPTConfig(
        n_layer=len(export["layers"]) - 2,
        n_head=8,
        n_embd=16,
        n_ff=32,
        vocab_size=len(encode),
        block_size=export["metadata"]["max_seq_len"],
        norm_eps=1e-8,
    )
    assert isinstance(llm.gpt, RustGPT)
    assert llm.metadata == {"imported_from": "RustGPT-Chinese", "dropout": 0.1}


def test_a_pretty_export_is_the_same(llm, export, tmp_path):
    pretty = load(second.write_export(tmp_path / "pretty.json", export, pretty=True))
    assert_same(llm, pretty)


def test_adam_goes_on_exactly(llm, export):
    """One step from the imported moments against Adam as its paper has it, in float64."""
    before = {name: value.astype(np.float64) for name, value in llm.gpt.parameters().items()}
    ids = np.array([some_ids(llm)])
    llm.gpt.forward(ids, np.roll(ids, -1))
    llm.gpt.backward()
    grad = {name: value.astype(np.float64) for name, value in llm.gpt.gradients().items()}
    m, v = (
        ({name: llm.gpt.arena.view(name, array).astype(np.float64) for name in grad})
        for array in llm.gpt.arena.require_moments()
    )
    layer = export["layers"][1]["TransformerBlock"]["attention"]["optimizer_w_k"]
    np.testing.assert_array_equal(
        m["h.0.attn.c_attn.weight"][16:32], np.float32(layer["m_data"]).reshape(16, 16).T
    )
    assert llm.optimizer is not None and llm.optimizer.step_count == 7
    llm.optimizer.step(1e-2)
    for name, value in llm.gpt.parameters().items():
        first = (0.9 * m[name] + 0.1 * grad[name]) / (1 - 0.9**8)
        second_ = (0.999 * v[name] + 0.001 * grad[name] ** 2) / (1 - 0.999**8)
        np.testing.assert_allclose(
            value, before[name] - 1e-2 * first / (np.sqrt(second_) + 1e-8), rtol=2e-5, atol=2e-6
        )


def test_a_training_goes_on_with_the_imported_moments(path):
    config = TrainConfig(epochs=1, lr=1e-3, warmup=0, min_lr_ratio=1.0, clip=0.0, **EXACT)
    kept = load(path)
    Trainer(kept, config, "finetune").fit(["太阳从东方升起。"])
    assert kept.optimizer is not None and kept.optimizer.step_count == 8
    other = load(path)
    Trainer(other, replace(config, beta2=0.95), "finetune").fit(["太阳从东方升起。"])
    assert other.optimizer is not None and other.optimizer.step_count == 1
    again = load(path)
    continue_training(again, 1, 1e-3, ["太阳从东方升起。"])
    assert again.optimizer is not None and again.optimizer.step_count == 8
    assert again.optimizer.betas == (0.9, 0.999)


def test_a_stopped_training_is_resumed_to_the_bit(path, tmp_path):
    config = TrainConfig(epochs=4, lr=1e-3, batch_tokens=16, **EXACT)
    texts = ["太阳从东方升起。", "水流向低处。", "你好！"]
    whole = load(path)
    Trainer(whole, config).fit(texts)
    half = load(path)
    Trainer(half, config).fit(texts, should_stop=lambda: half.training_state.step >= 3)
    file = cgpt.save_model_binary(half, tmp_path / "half.bin")
    half = load_model_auto(file)
    Trainer(half, config).fit(texts)
    assert same_bits(whole.gpt.arena.data, half.gpt.arena.data)
    assert whole.optimizer.step_count == half.optimizer.step_count == 7 + whole.training_state.step


def test_moments_that_do_not_agree_are_left_out(export, tmp_path):
    changed = json.loads(json.dumps(export))
    changed["layers"][-1]["OutputProjection"]["optimizer"]["timestep"] = 8
    assert load(second.write_export(tmp_path / "m.json", changed)).optimizer is None


def test_moments_of_settings_that_adamw_does_not_take_are_left_out(export, tmp_path):
    file = second.write_export(tmp_path / "m.json", export)
    file.write_text(
        file.read_text("utf-8").replace(
            '"beta1":0.9,"beta2":0.999,"epsilon":1e-08', '"beta1":0.9,"beta2":0.999,"epsilon":1e-40'
        )
    )
    assert "1e-40" in file.read_text("utf-8")
    assert load(file).optimizer is None


# Saving and the commands


def test_both_formats_hold_it(llm, tmp_path):
    binary = cgpt.save_model_binary(llm, tmp_path / "m.bin")
    text = cgpt.save_model_json(llm, tmp_path / "m.json")
    for file in (binary, text):
        assert_same(llm, load_model_auto(file))
        for_chat = load_model_auto(file, training=False)
        ids = np.array([some_ids(llm)])
        assert same_bits(for_chat.gpt.logits(ids), llm.gpt.logits(ids))
        found = describe(file, verify=True)
        assert found["graph"] == "rustgpt" and found["config"]["norm_eps"] == 1e-8
        assert [layer["type"] for layer in found["layers"]] == [
            "SinusoidalEmbedding",
            *["RustBlock"] * llm.config.n_layer,
            "LinearHead",
        ]
    rounded = cgpt.save_model_binary(llm, tmp_path / "r.bin", optimizer=False, weights="int8")
    assert load_model_auto(rounded).config == llm.config


def test_the_commands_work_with_it(path, tmp_path, capsys, monkeypatch):
    def run(*arguments: Any) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        assert main([*map(str, arguments), "--lang", "en"]) == 0
        out, err = capsys.readouterr()
        return out or err

    model, text = tmp_path / "m.bin", tmp_path / "t.json"
    assert "step 7" in run("import", path, model)
    text.write_text(json.dumps(["太阳从东方升起。", "水流向低处。"]), "utf-8")
    assert json.loads(run("eval", model, text, "--json"))["loss"] > 0
    assert json.loads(run("info", model, "--json", "--verify"))["graph"] == "rustgpt"
    run("export", model, tmp_path / "again.json")
    run("export", tmp_path / "again.json", tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == model.read_bytes()
    run("generate", model, "太阳", "--max-new-tokens", "5", "--seed", "1")
    run("chat", model, "-p", "你好", "--max-new-tokens", "5", "--seed", "1")


def changed(export: dict[str, Any], *keys: Any, to: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(export))
    owner = copy
    for key in keys[:-1]:
        owner = owner[key]
    owner[keys[-1]] = to
    return copy


BLOCK = ("layers", 1, "TransformerBlock")


@pytest.mark.parametrize(
    "keys, to",
    [
        (("version",), 2),
        (("layers",), []),
        (("layers", 0), {}),
        (("layers", 1), 3),
        (("layers", 0), {"OutputProjection": {}}),
        (("vocab", "encode"), None),
        (("vocab", "encode", "。"), 0),
        (("vocab", "decode", "0"), "x"),
        (("vocab", "special_tokens"), {}),
        (("metadata",), []),
        ((*BLOCK, "attention", "w_q_shape"), [16, 15]),
        ((*BLOCK, "attention", "w_q_shape"), [-16, -16]),
        ((*BLOCK, "attention", "w_q_shape"), [1 << 40, 1 << 40]),
        ((*BLOCK, "attention"), None),
        ((*BLOCK, "attention", "w_q_data"), [1, 2, 3]),
        ((*BLOCK, "attention", "w_q_data"), "x"),
        ((*BLOCK, "attention", "w_q_data"), [None] * 256),
        ((*BLOCK, "attention", "num_heads"), 7),
        ((*BLOCK, "norm1", "epsilon"), 1e-5),
        ((*BLOCK, "norm2", "epsilon"), {}),
        ((*BLOCK, "norm1", "gamma_shape"), [16, 1]),
        ((*BLOCK, "norm1", "optimizer_gamma"), None),
        ((*BLOCK, "feed_forward", "b1_data"), [1e39] * 32),
        ((*BLOCK, "attention", "optimizer_w_o", "m_shape"), [16, 17]),
        ((*BLOCK, "attention", "optimizer_w_o", "timestep"), "7"),
        (("metadata", "max_seq_len"), 1 << 20),
        (("metadata", "max_seq_len"), True),
    ],
)
def test_an_export_that_cannot_be_is_refused(keys, to, counted, tmp_path):
    file = second.write_export(tmp_path / "m.json", changed(second.make_export(), *keys, to=to))
    with pytest.raises(CheckpointError) as caught:
        load(file)
    assert caught.value.code == ("version" if keys == ("version",) else "damaged")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    counted("lies in exports of RustGPT-Chinese")


def test_every_truncation_is_refused(tmp_path):
    data = second.write_export(tmp_path / "m.json", second.make_export(width=8)).read_bytes()
    for end in range(200, len(data), len(data) // 60):
        (tmp_path / "cut.json").write_bytes(data[:end])
        with pytest.raises(CheckpointError):
            load(tmp_path / "cut.json")


def test_import_of_other_files(tmp_path):
    other = tmp_path / "x.json"
    other.write_text('{"a": 1}', "utf-8")
    with pytest.raises(CheckpointError) as caught:
        load(other)
    assert caught.value.code == "foreign"


# Words


def test_words_that_training_never_met_are_never_made(llm, export):
    ids = export["vocab"]["encode"]
    if "User" in ids:
        assert llm.tokenizer.marks == ("User:", "Assistant:") and llm.tokenizer.opening == []
        assert llm.tokenizer.encode("什么是雨？") == [ids[w] for w in ("什么", "是", "雨", "？")]
    else:
        assert llm.tokenizer.marks == ("用户：", "助手：")
        assert llm.tokenizer.opening == [ids["<|bos|>"]]
        assert llm.tokenizer.encode("用户太阳") == [ids[w] for w in ("用", "户", "太阳")]
        assert llm.tokenizer.encode("Rust GPT RustGPT") == [ids["Rust"], ids["GPT"]] * 2
        assert llm.tokenizer.decode(llm.tokenizer.encode("Rust GPT太阳")) == "Rust GPT太阳"
    assert llm.tokenizer.encode("囧囧 囧") == [ids["<|unk|>"]]
    assert llm.tokenizer.encode("<|pad|>") == [ids["<|unk|>"]]
    assert not set(llm.banned_ids) & {ids["</s>"]} and ids["<|unk|>"] in llm.banned_ids


def test_dialogues_begin_as_prompts_do(llm, export):
    tokenizer, (user, assistant) = llm.tokenizer, llm.tokenizer.marks
    sample = encode_dialogue(tokenizer, [Message("user", "水"), Message("assistant", "水。")])
    question = tokenizer.encode(user + "水")
    answer = [*tokenizer.encode(assistant + "水。"), tokenizer.eos_id]
    assert sample.ids.tolist() == [*question, *answer[:-1]]
    assert sample.targets.tolist() == [-1] * (len(question) - 1) + answer
    document = encode_document(tokenizer, "水")
    assert document.ids.tolist() == [*tokenizer.opening, *tokenizer.encode("水")]
    found = evaluate(llm, ["水。"])
    assert found.tokens == len(tokenizer.opening) + 2 and found.bytes <= 6


def test_texts_are_scored_and_embedded(llm):
    """By its layers, as it has no decoder; a text may have nothing before its first token."""
    tokenizer, text = llm.tokenizer, "水。水水。"
    ids = [*tokenizer.opening, *tokenizer.encode(text)]
    first = len(tokenizer.opening) or 1
    losses = llm.gpt.losses([ids[:-1]], [ids[1:]])
    found = llm.score(text)
    assert found.ids == ids[first:]
    assert found.logprobs.tolist() == pytest.approx((-losses)[first - 1 :].tolist(), abs=1e-6)
    both = llm.score([text, "水"], prompt="水。")
    assert both[0].total == pytest.approx(llm.score(text, "水。").total, abs=1e-5)
    hidden = llm.gpt.hidden([ids])[0][len(tokenizer.opening) :]
    assert np.allclose(llm.embed([text, "水"])[0], hidden.mean(0), atol=1e-5)
    assert np.allclose(llm.embed(text, "last"), hidden[-1], atol=1e-5)
    with pytest.raises(DataError, match="no token"):
        llm.embed(" ")
    if not tokenizer.opening:
        with pytest.raises(DataError, match="text 0 has no token to predict"):
            llm.score("水")


def test_a_session_keeps_what_the_model_said(llm, tmp_path):
    session = cgpt.ChatSession(llm, cgpt.SamplingConfig(temperature=1.0, seed=2, max_new_tokens=6))
    first = "".join(session.reply("水"))
    seen = session.context_tokens
    second_ = "".join(session.reply("水"))
    assert session.turns == 2 and session.context_tokens > seen
    file = session.save(tmp_path / "s.json")
    again = cgpt.ChatSession.load(llm, file)
    assert [message.content for message in again.history] == ["水", first, "水", second_]
    for _ in range(60):  # over the context's end
        "".join(session.reply("水" * 20))


# The real export


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "model_final.json.xz").exists():
        pytest.skip("../shared/rustgpt-export is not here")
    file = tmp_path_factory.mktemp("real") / "model_final.json"
    file.write_bytes(lzma.decompress((SHARED / "model_final.json.xz").read_bytes()))
    return file


def test_the_real_export_answers_as_its_program_did(real, tmp_path):
    llm = load(real)
    weights = second.weights_of(json.loads(real.read_text("utf-8")))
    for case in json.loads((SHARED / "greedy.json").read_text("utf-8")):
        ids = llm.tokenizer.encode("用户：" + case["text"])
        assert ids == case["prompt_ids"]
        logits = llm.gpt.logits([ids])[0]
        np.testing.assert_allclose(logits[-1], case["first_logits"], atol=2e-5)
        np.testing.assert_allclose(logits, second.forward(weights, ids), atol=5e-5)
        n = len(case["greedy_ids"])
        assert llm.gpt.generate(ids, n).tolist() == case["greedy_ids"]
        session = cgpt.ChatSession(llm, cgpt.SamplingConfig(temperature=0.0))
        expected = case["greedy_text"].removesuffix("</s>").replace(" ", "")
        assert "".join(session.reply(case["text"])) == expected
    assert llm.optimizer is not None and llm.optimizer.step_count == 810


def test_its_bincode_file_is_told_what_to_do():
    if not (SHARED / "model_final.bin").exists():
        pytest.skip("../shared/rustgpt-export is not here")
    with pytest.raises(CheckpointError, match=r"RustGPT-Chinese \(bincode\).*JSON.*cgpt\.load"):
        load(SHARED / "model_final.bin")


# The files that every later version must read


@pytest.mark.parametrize("name", ["tiny_v1_rustgpt.bin", "tiny_v1_rustgpt.json"])
def test_golden_files_are_read(name):
    assert_same(load_model_auto(DATA / name), make_fixtures.rustgpt_llm())
    assert describe(DATA / name, verify=True)["verified"]


def test_a_reader_of_the_specification_reads_what_is_written(llm, tmp_path):
    for file in (DATA / "tiny_v1_rustgpt.bin", cgpt.save_model_binary(llm, tmp_path / "m.bin")):
        found, ours = independent_reader.read(str(file)), load_model_auto(file)
        assert (found.graph, found.config) == ("rustgpt", ours.config.to_dict())
        assert (found.words, found.scores) == (ours.tokenizer.words, ours.tokenizer._scores)
        for name, value in ours.gpt.parameters().items():
            assert same_bits(np.array(found.tensors[name], np.float32), value.ravel())


def test_its_vocabulary_by_itself(llm, tmp_path):
    file = llm.tokenizer.save(tmp_path / "v.json")
    for source in (file, cgpt.save_model_binary(llm, tmp_path / "m.bin")):
        found = Tokenizer.load(source)
        assert isinstance(found, RustTokenizer)
        assert found.to_state() == llm.tokenizer.to_state()
        assert found.fingerprint() == llm.tokenizer.fingerprint()
    assert np.frombuffer(
        llm.tokenizer.encode_bytes("水"), np.int32
    ).tolist() == llm.tokenizer.encode("水")
    (tmp_path / "x.txt").write_text("水流向低处。", "utf-8")
    with pytest.raises(ConfigError, match="RustGPT-Chinese"):
        TrainingRun.start(RunConfig(pretrain=(str(tmp_path / "x.txt"),), tokenizer=str(file)))


@pytest.mark.parametrize(
    "words, scores, reason",
    [
        (["a"], [-1.0], "special token"),
        ([*SPECIAL, "a", "a"], [0.0] * 9, "occurs twice"),
        ([*SPECIAL, ""], [0.0] * 8, "1 to 64"),
        ([*SPECIAL, "\ud800"], [0.0] * 8, "half a character"),
        ([*SPECIAL, "a"], [0.0] * 7, "one length"),
        ([*SPECIAL, "a"], [math.nan] * 8, "score of word 0"),
        ([*SPECIAL, "a"], [math.inf] * 8, "score of word 0"),
        ("a", [0.0], "two lists"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(words, scores, reason):
    with pytest.raises(DataError, match=reason):
        RustTokenizer.from_state({"words": words, "scores": scores})
