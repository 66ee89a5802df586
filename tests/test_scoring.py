"""One rule of windows for eval, loss, score and embed; continuations; vectors of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, FACTS, TEXTS, small_llm, trained_llm

from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import main
from cgpt.config import TrainConfig
from cgpt.corpus.encoding import Sample, encode_dialogue
from cgpt.corpus.records import Message
from cgpt.errors import ConfigError, DataError
from cgpt.evaluation.perplexity import evaluate, score_documents
from cgpt.evaluation.scoring import spans, windows
from cgpt.llm import LLM
from cgpt.models.quantized import with_weights
from cgpt.training.trainer import Trainer

LONG = "长江有多长天空是什么颜色你好" * 3
FORMS = ("float32", "float16", "int8")


def in_form(llm: LLM, form: str) -> LLM:
    return LLM(llm.tokenizer, with_weights(llm.gpt, form))


def losses_one_by_one(llm: LLM, ids: list[int], stride: int) -> list[float]:
    """-log p of ids[1:], each from the logits of a window of its own that ends right before it."""
    T, found = llm.config.block_size, []
    for i in range(len(ids) - 1):
        start = max(0, -(-(i + 1 - T) // stride) * stride)
        logits = llm.gpt.logits([ids[start : i + 1]])[0, -1].astype(np.float64)
        found.append(float(np.log(np.exp(logits).sum()) - logits[ids[i + 1]]))
    return found


# ---- the rule ------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [1, 2, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 23])
def test_every_token_counts_once_behind_enough_others(n: int, longest: int) -> None:
    for stride in range(1, longest + 1):
        found = list(spans(n, longest, stride))
        assert [i for _, counted, end in found for i in range(counted, end)] == list(range(n))
        for start, counted, end in found:
            assert 0 < end - start <= longest
            assert counted - start >= min(counted, longest - stride)


def test_windows_without_loss_are_left_out() -> None:
    sample = Sample(np.arange(9, dtype=np.int32), np.array([-1] * 8 + [3], np.int32))
    (only,) = windows(sample, 4, 2)
    assert only.ids.tolist() == [6, 7, 8] and only.targets.tolist() == [-1, -1, 3]
    assert list(windows(Sample(sample.ids, np.full(9, -1, np.int32)), 4, 2)) == []
    short = Sample(sample.ids[:3], sample.ids[:3])
    assert list(windows(short, 4, 2)) == [short]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [None, 1, 3, 8])
def test_eval_loss_and_score_agree(form: str, stride: int | None) -> None:
    """On texts that are longer than the context, where they did not."""
    llm = in_form(small_llm(block_size=8), form)
    for text in (LONG, TEXTS[0]):
        expected = losses_one_by_one(
            llm,
            [llm.tokenizer.bos_id, *llm.tokenizer.encode(text), llm.tokenizer.eos_id],
            4 if stride is None else stride,
        )
        score = llm.score(text, end=True, stride=stride)
        tolerance = {"abs": 2e-2 if form == "int8" else 1e-4}  # int8 rounds activations too
        assert (-score.logprobs).tolist() == pytest.approx(expected, **tolerance)
        found = evaluate(llm, [text], stride=stride)
        assert found.loss == pytest.approx(-score.per_token, rel=1e-5)
        assert llm.loss([text], stride=stride) == pytest.approx(found.loss, rel=1e-6)
        (one,) = score_documents(llm, [text], stride)
        assert one.nats == pytest.approx(-score.total, rel=1e-5)
        assert one.tokens == found.tokens == len(score.ids)


def test_a_dialogue_longer_than_the_context() -> None:
    """Only answers count, each token of them once."""
    llm = small_llm(block_size=8)
    dialogue = tuple(message for one in DIALOGUES for message in one)
    sample = encode_dialogue(llm.tokenizer, dialogue)
    ids = [*sample.ids.tolist(), int(sample.targets[-1])]
    expected = np.array(losses_one_by_one(llm, ids, 4))[sample.targets >= 0]
    found = evaluate(llm, [dialogue])
    assert found.tokens == len(expected)
    assert found.loss == pytest.approx(expected.mean(), rel=1e-5)


def test_a_shorter_stride_gives_more_context() -> None:
    """A window's first tokens are then behind others, which a trained model profits from."""
    llm = trained_llm()
    document = tuple(message for one in DIALOGUES * 3 for message in one)
    cut, half = (evaluate(llm, [document], stride=stride).loss for stride in (96, 48))
    assert half < cut


def test_samples_are_measured_as_they_were_cut() -> None:
    llm = small_llm(block_size=8)
    cut = evaluate(llm, llm.samples([LONG]))
    assert cut.loss == pytest.approx(evaluate(llm, [LONG], stride=8).loss, rel=1e-6)
    assert cut.loss != pytest.approx(evaluate(llm, [LONG]).loss, rel=1e-6)


@pytest.mark.parametrize("stride", [0, 9, -1, 2.5, "4", True])
def test_a_stride_that_cannot_be_is_told(stride: Any) -> None:
    llm = small_llm(block_size=8)
    for call in (llm.score, llm.embed):
        with pytest.raises(ConfigError, match="stride must be"):
            call("山", stride=stride)
    for call in (llm.loss, lambda texts, stride: evaluate(llm, texts, stride=stride)):
        with pytest.raises(ConfigError, match="stride must be"):
            call(["山"], stride=stride)


# ---- continuations -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_continuation_is_scored_behind_its_prompt(form: str) -> None:
    llm = in_form(trained_llm(), form)
    tokenizer = llm.tokenizer
    prompt, text = FACTS[0]
    found = llm.score(text, prompt, end=True)
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt), *tokenizer.encode(text), tokenizer.eos_id]
    expected = losses_one_by_one(llm, ids, llm.config.block_size)[-len(found.ids) :]
    assert found.ids == [*tokenizer.encode(text), tokenizer.eos_id] and found.text == text
    assert (-found.logprobs).tolist() == pytest.approx(
        expected, abs=5e-2 if form == "int8" else 1e-4
    )
    assert found.total == pytest.approx(float(found.logprobs.sum()), rel=1e-6)
    assert found.per_token == found.total / len(found.ids)
    assert found.per_character == found.total / len(text)
    assert found.perplexity == pytest.approx(np.exp(-found.per_token))
    assert f"{len(found.ids)} tokens" in repr(found) and text in repr(found)


def test_an_answer_is_scored_behind_a_dialogue() -> None:
    """The model knows which answer belongs to which question."""
    llm = trained_llm()
    for question, answer in FACTS:
        for prompt in ([Message("user", question)], [{"role": "user", "content": question}]):
            found = llm.score([text for _, text in FACTS], prompt, end=True)
            best = max(found, key=lambda one: one.per_token)
            assert best.text == answer and best.per_token > -0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prompt", ["", "长江", "长江有多长，天空是什么颜色，你好"])
def test_a_batch_gives_the_scores_of_its_parts(form: str, prompt: str) -> None:
    """A prompt of more than a few tokens is inferred once for all continuations."""
    llm = in_form(small_llm(), form)
    texts = [text for _, text in FACTS] * 4 + ["山", "长" * 200]
    tolerance = 2e-2 if form == "int8" else 1e-5
    together = llm.score(texts, prompt, end=True)
    assert [one.text for one in together] == texts
    for text, found in zip(texts, together, strict=True):
        alone = llm.score(text, prompt, end=True)
        assert alone.ids == found.ids
        np.testing.assert_allclose(found.logprobs, alone.logprobs, atol=tolerance)


def test_the_forms_of_a_batch() -> None:
    llm = small_llm()
    prompts, texts = ["长江", "黄河", "天空"], ["有多长", "很长", "是蓝色的"]
    wanted = [llm.score(text, prompt).total for prompt, text in zip(prompts, texts, strict=True)]
    for found in (
        llm.score(texts, prompts),
        llm.score(list(zip(prompts, texts, strict=True))),
        llm.score([[*pair] for pair in zip(prompts, texts, strict=True)]),
    ):
        assert [one.total for one in found] == pytest.approx(wanted, abs=1e-4)
    assert llm.score([]) == []
    (single,) = llm.score(["有多长"])
    assert single.total == pytest.approx(llm.score("有多长").total, abs=1e-5)
    mixed = llm.score([(None, "有多长"), ([Message("user", "长江")], "很长")])
    assert mixed[0].total == pytest.approx(single.total, abs=1e-4)


def test_a_prompt_longer_than_the_context() -> None:
    llm = small_llm(block_size=8)
    tokenizer = llm.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(LONG), *tokenizer.encode("山水")]
    expected = losses_one_by_one(llm, ids, 4)[len(tokenizer.encode(LONG)) :]
    for found in (llm.score("山水", LONG), llm.score(["山水", "你"], LONG)[0]):
        assert (-found.logprobs).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "prompt", "message"),
    [
        ("", None, "text 0 has no token"),
        (["山", ""], "水", "text 1 has no token"),
        (3, None, "a list of texts, found 3"),
        (["山", 3], None, r"texts\[1\], found 3"),
        (["山"], ["水", "火"], "2 prompts for 1 texts"),
        ("山", 3.5, "list of messages, found 3.5"),
        ([("山", "水")], "火", "leave prompt out"),
        ([("山", None)], None, r"texts\[0\], found None"),
        ("山", [{"role": "user"}], "message 1 has the keys 'role'"),
        (b"x", None, "a list of texts"),
        ("山", [Message("assistant", "水")], "from the"),
    ],
)
def test_what_cannot_be_scored_is_told(text: Any, prompt: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        small_llm().score(text, prompt)


# ---- vectors -------------------------------------------------------------------------------


def hidden(llm: LLM, text: str) -> np.ndarray:
    """(tokens, C) the final norm's output, in plain NumPy from the parameters."""
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(text)]
    weights = llm.gpt.parameters()
    x = llm.gpt.inspect(ids).hidden[-1].astype(np.float64)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return (x * weights["ln_f.weight"] + weights["ln_f.bias"])[1:]


@pytest.mark.parametrize("form", FORMS)
def test_an_embedding_is_the_final_norm_behind_the_tokens(form: str) -> None:
    llm = in_form(trained_llm(), form)
    for text in ("山", TEXTS[0]):
        rows = hidden(llm, text)
        for pooling, wanted in (("mean", rows.mean(0)), ("last", rows[-1])):
            found = llm.embed(text, pooling)
            assert found.dtype == np.float32 and found.shape == (llm.config.n_embd,)
            np.testing.assert_allclose(found, wanted, atol=1e-4)
            unit = llm.embed(text, pooling, normalize=True)
            np.testing.assert_allclose(unit, wanted / np.linalg.norm(wanted), atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_an_embedding_does_not_depend_on_its_batch(form: str) -> None:
    llm = in_form(trained_llm(), form)
    texts = [*TEXTS, "山", LONG * 9, *TEXTS * 40]
    for pooling in ("mean", "last"):
        together = llm.embed(iter(texts), pooling)
        assert together.shape == (len(texts), llm.config.n_embd)
        for i in (0, 5, 6, 7, 8, len(texts) - 1):
            np.testing.assert_allclose(together[i], llm.embed(texts[i], pooling), atol=1e-5)


def test_a_long_text_is_embedded_window_by_window() -> None:
    llm = small_llm(block_size=8)
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(LONG)]
    rows = np.concatenate(
        [
            llm.gpt.hidden([ids[start:end]])[0, counted - start :]
            for start, counted, end in spans(len(ids), 8, 4)
        ]
    )[1:]
    np.testing.assert_allclose(llm.embed(LONG), rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(llm.embed(LONG, "last"), rows[-1], atol=1e-5)
    assert not np.allclose(llm.embed(LONG), llm.embed(LONG, stride=1), atol=1e-5)


def test_hidden_states_make_the_logits() -> None:
    gpt = small_llm().gpt
    ids = np.array([[5, 6, 7, 8], [9, 8, 7, 6]], np.int32)
    found = gpt.hidden(ids)
    assert found.shape == (2, 4, gpt.config.n_embd)
    np.testing.assert_allclose(found @ gpt.parameters()["wte.weight"].T, gpt.logits(ids), atol=1e-4)
    flat = gpt.hidden(ids.reshape(-1), offsets=[0, 4, 8])
    np.testing.assert_allclose(flat, found.reshape(8, -1), atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "kind", "message"),
    [
        ("", {}, "text 0 has no token"),
        (["山", ""], {}, "text 1 has no token"),
        (None, {}, "found None"),
        (["山", 3], {}, r"texts\[1\]"),
        ("山", {"pooling": "max"}, "pooling"),
        ("山", {"pooling": None}, "pooling"),
        ("山", {"normalize": "yes"}, "normalize"),
    ],
)
def test_what_cannot_be_embedded_is_told(texts: Any, kind: dict[str, Any], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        small_llm().embed(texts, **kind)


def test_no_texts_have_no_vectors() -> None:
    assert small_llm().embed([]).shape == (0, 32)


# ---- documents as callers have them --------------------------------------------------------


def test_rows_are_taken_as_files_have_them() -> None:
    llm = small_llm()
    question, answer = FACTS[0]
    dialogue = DIALOGUES[0]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    for same in (
        list(dialogue),
        messages,
        {"messages": messages},
        {"instruction": question, "output": answer},
    ):
        assert llm.loss([same]) == llm.loss([dialogue])  # type: ignore[list-item]
        assert evaluate(llm, [same]) == evaluate(llm, [dialogue])  # type: ignore[list-item]
        first, second = small_llm(), small_llm()
        for one, documents in ((first, [same, "山水"]), (second, [dialogue, "山水"])):
            Trainer(one, TrainConfig(epochs=1, warmup=0)).fit(documents)
        assert np.array_equal(first.gpt.arena.data, second.gpt.arena.data)
    assert llm.loss([{"text": TEXTS[0]}]) == llm.loss([TEXTS[0]])  # type: ignore[list-item]


def test_an_array_of_no_dimension_is_no_list() -> None:
    llm = small_llm()
    for call in (llm.score, llm.embed, llm.generate, llm.loss):
        with pytest.raises(DataError, match=r"found array\('山水'"):
            call(np.array("山水"))


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("山水", "found one string"),
        (None, "found None"),
        (3, "found 3"),
        ({"text": "a"}, "found {"),
        (["山", 3], r"documents\[1\]: found 3"),
        (["山", None], r"documents\[1\]: found None"),
        ([("山", "水")], r"documents\[0\]: found \('山'"),
        ([()], r"documents\[0\]: found \(\)"),
        ([{"what": 1}], r"documents\[0\]: found an object"),
        (DIALOGUES[0], r"documents\[0\]: found Message"),
        ([DIALOGUES[0], DIALOGUES[0][:1]], r"documents\[1\]: the last message"),
        ([b"x"], r"documents\[0\]: found b'x'"),
    ],
)
def test_what_is_no_document_is_told(documents: Any, message: str) -> None:
    llm = small_llm()
    for call in (
        llm.loss,
        lambda given: evaluate(llm, given),
        llm.samples,
        lambda given: score_documents(llm, given),
        Trainer(llm).fit,
    ):
        with pytest.raises(DataError, match=message):
            call(documents)


def test_the_command_takes_a_stride(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llm = small_llm(block_size=8)
    model = str(save_model_binary(llm, tmp_path / "m.bin"))
    (tmp_path / "a.txt").write_text(LONG, "utf-8")
    for args, stride in (([], 4), (["--stride", "2"], 2)):
        assert main(["eval", model, str(tmp_path / "a.txt"), "--json", *args]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["stride"] == stride
        assert found["loss"] == pytest.approx(
            -llm.score(LONG, end=True, stride=stride).per_token, rel=1e-5
        )
    assert main(["eval", model, str(tmp_path / "a.txt"), "--stride", "9", "--lang", "en"]) == 1
    assert "stride must be between 1 and 8, found 9" in capsys.readouterr().err
