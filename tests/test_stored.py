"""Models whose weights stay float16 or int8, and several prompts at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from small_llm import DIALOGUES, FACTS, small_llm

from cgpt import AdamW, ConfigError, TrainConfig, Trainer, load_model_auto, save_model_binary
from cgpt.chat.session import ChatSession
from cgpt.checkpoint.saving import save_model_json
from cgpt.config import SamplingConfig
from cgpt.evaluation.perplexity import evaluate
from cgpt.generation.batch import steps
from cgpt.generation.generate import generate_batch, generate_tokens
from cgpt.generation.sampling import Sampler
from cgpt.llm import LLM
from cgpt.models.quantized import QuantizedModel, weight_dtype_of, with_weights

WEIGHT_DTYPES = ("float16", "int8")
PROMPTS = [[5, 6, 7], [9], list(range(4, 24)), [8, 9, 10, 11, 12, 13, 14]]
GREEDY = SamplingConfig(temperature=0, max_new_tokens=12)


@pytest.fixture(scope="module")
def llm() -> LLM:
    found = small_llm(seed=2)
    Trainer(found, TrainConfig(epochs=80, lr=3e-3, batch_tokens=256, seed=0)).fit(DIALOGUES)
    return found


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_a_file_of_a_form_is_used_in_that_form(llm: LLM, tmp_path: Path, form: str) -> None:
    """The model of the file, one made at load from float32, and the parameters it stands for."""
    path = save_model_binary(llm, tmp_path / "m.bin", optimizer=False, weights=form)
    whole = save_model_binary(llm, tmp_path / "whole.bin")
    text = save_model_json(llm, tmp_path / "whole.json")
    found = load_model_auto(path, training=False)
    assert isinstance(found.gpt, QuantizedModel) and weight_dtype_of(found.gpt) == form
    assert found.n_parameters == llm.n_parameters
    ids = np.array([PROMPTS[2]], np.int32)
    logits = found.gpt.logits(ids)
    for other in (
        load_model_auto(whole, training=False, weights=form),
        load_model_auto(text, training=False, weights=form),
    ):
        assert (other.gpt.logits(ids) == logits).all()
    back = load_model_auto(path, training=False, weights="float32")
    assert weight_dtype_of(back.gpt) == "float32"
    for name, value in found.gpt.parameters().items():
        assert (back.gpt.parameters()[name] == value).all()
    # int8 also rounds activations; both ways compute the same function of the same weights.
    limit = 0.03 if form == "int8" else 1e-4
    assert np.abs(back.gpt.logits(ids) - logits).max() < limit * np.abs(logits).max()


@pytest.mark.parametrize("form", WEIGHT_DTYPES)
def test_it_answers_and_measures(llm: LLM, form: str) -> None:
    other = LLM(llm.tokenizer, with_weights(llm.gpt, form))
    for question, _ in FACTS:
        assert "".join(ChatSession(other, GREEDY).reply(question)) == "".join(
            ChatSession(llm, GREEDY).reply(question)
        )
    before, after = evaluate(llm, DIALOGUES), evaluate(other, DIALOGUES)
    assert after.tokens == before.tokens
    assert abs(after.loss - before.loss) < 0.02
    score = other.score(FACTS[0][1])
    assert abs(score.total - llm.score(FACTS[0][1]).total) < 0.05 * abs(score.total)


def test_losses_are_those_of_the_logits(llm: LLM) -> None:
    """Documents packed side by side, more than are held at once, some targets ignored."""
    gpt = with_weights(llm.gpt, "int8")
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 20, 40)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ids, targets = rng.integers(0, gpt.config.vocab_size, (2, offsets[-1]), dtype=np.int32)
    targets[rng.random(len(targets)) < 0.3] = -1
    found = gpt.losses(ids, targets, offsets=offsets)
    for start, end in pairwise(offsets):
        logits = gpt.logits(ids[None, start:end])[0].astype(np.float64)
        logsum = np.log(np.exp(logits).sum(axis=1))
        for t in range(start, end):
            wanted = logsum[t - start] - logits[t - start, targets[t]] if targets[t] >= 0 else 0
            assert abs(found[t] - wanted) < 1e-4
    mean = found.sum() / (targets >= 0).sum()
    assert abs(gpt.loss(ids, targets, offsets=offsets) - mean) < 1e-5


def test_what_it_cannot_do_is_refused(llm: LLM, tmp_path: Path) -> None:
    gpt = with_weights(llm.gpt, "int8")
    for name in ("arena", "forward", "backward", "gradients", "train_only", "load_parameters"):
        assert hasattr(llm.gpt, name) and not hasattr(gpt, name)
    rounded = LLM(llm.tokenizer, gpt)
    for refused in (
        lambda: rounded.trainable,
        lambda: AdamW(gpt),
        lambda: Trainer(rounded, TrainConfig(epochs=1)).fit(["山"]),
    ):
        with pytest.raises(ConfigError, match="int8, which cannot be changed"):
            refused()
    again = load_model_auto(save_model_json(LLM(llm.tokenizer, gpt), tmp_path / "m.json"))
    assert np.array_equal(again.gpt.parameters()["wte.weight"], gpt.parameters()["wte.weight"])
    with pytest.raises(ConfigError, match="training needs float32"):
        load_model_auto(save_model_binary(llm, tmp_path / "m.bin"), weights="int8")
    for form, group in (("int4", 64), ("int8", 48)):
        with pytest.raises(ConfigError, match="known: float32"):
            with_weights(llm.gpt, form, group)
    huge = small_llm()
    huge.gpt.parameters()["wte.weight"][3, 3] = 1e5
    with pytest.raises(ConfigError, match="more than float16 can hold"):
        with_weights(huge.gpt, "float16")


@pytest.mark.parametrize("form", ("float32", *WEIGHT_DTYPES))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.9, "top_p": 0.8, "seed": 5},
        {"temperature": 0.7, "top_k": 9, "seed": 1},
        {"repetition_penalty": 1.3, "presence_penalty": 0.2},
        {"no_repeat_ngram": 2},
        {"temperature": 1.0, "logit_bias": {7: 2.0}, "min_p": 0.05, "seed": 3},
        {"speculate": 4},
        {"max_new_tokens": 150},
    ],
)
def test_a_batch_gives_what_each_prompt_gives_alone(llm: LLM, form: str, options: dict) -> None:
    """To the token, with ends, bans and a context that runs over."""
    gpt = with_weights(llm.gpt, form)
    sampling = SamplingConfig(**{"temperature": 0, "max_new_tokens": 20, **options})
    stop, banned = [llm.tokenizer.eos_id], [0, 5]
    found = generate_batch(gpt, PROMPTS, sampling, stop=stop, banned=banned)
    for i, prompt in enumerate(PROMPTS):
        seed = None if sampling.seed is None else sampling.seed + i
        single = SamplingConfig(**{**sampling.to_dict(), "seed": seed})
        assert found[i] == list(generate_tokens(gpt, prompt, single, stop=stop, banned=banned))
    assert found == generate_tokens(gpt, PROMPTS, sampling, stop=stop, banned=banned)


def test_a_row_that_has_ended_costs_nothing(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    class Watched:
        def __init__(self, decoder) -> None:
            self.decoder = decoder

        def run(self, ids, *more) -> None:
            passes.append(len(ids))
            self.decoder.run(ids, *more)

    gpt = with_weights(llm.gpt, "float16")
    monkeypatch.setattr(gpt, "decoder", Watched(gpt.decoder))
    samplers = [
        Sampler(SamplingConfig(temperature=0, max_new_tokens=4), gpt.config.vocab_size)
        for _ in range(3)
    ]
    ended: set[int] = set()
    found = []
    for step in steps(gpt, [[4], [5, 6], [7]], samplers, frozenset(), ended):
        found.append([row for row, _ in step])
        ended |= {0} if len(found) == 1 else {2} if len(found) == 2 else set()
    assert found == [[0, 1, 2], [1, 2], [1], [1]] and passes == [4, 2, 1, 1]
    assert generate_batch(gpt, [], GREEDY) == []
    assert generate_batch(gpt, PROMPTS, SamplingConfig(max_new_tokens=0)) == [[]] * len(PROMPTS)
