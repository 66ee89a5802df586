"""Tokens from logits: greedy, sampled and by beam search, against the full forward pass."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from small_llm import small_llm

from cgpt.config import GPTConfig, SamplingConfig
from cgpt.errors import CgptError, ConfigError, DataError
from cgpt.generation.context import Context
from cgpt.generation.generate import beam_search, generate_tokens
from cgpt.generation.sampling import Sampler
from cgpt.models.gpt2 import GPT

PROMPT = [1, 270, 265, 281]
GREEDY = SamplingConfig(temperature=0, max_new_tokens=20)


def sharp_gpt(**shape: int) -> GPT:
    """A model whose random logits differ enough for every choice to matter."""
    values = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 300}
    gpt = GPT(GPTConfig(**{**values, **shape}), seed=3)
    for array in gpt.parameters().values():
        array *= 8
    return gpt


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return sharp_gpt()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())


def test_greedy_is_the_argmax_of_the_full_forward_pass(gpt):
    ids = list(PROMPT)
    for token in generate_tokens(gpt, PROMPT, GREEDY):
        assert token == int(gpt.logits([ids])[0, -1].argmax())
        ids.append(token)
    assert len(ids) == len(PROMPT) + 20
    assert gpt.generate(PROMPT, max_new_tokens=20).tolist() == ids[len(PROMPT) :]
    assert list(gpt.stream(PROMPT, max_new_tokens=20)) == ids[len(PROMPT) :]


def test_a_full_context_keeps_its_last_half_and_goes_on(gpt):
    found = list(generate_tokens(gpt, PROMPT, SamplingConfig(temperature=0, max_new_tokens=100)))
    window, T = list(PROMPT), gpt.config.block_size
    for token in found:
        assert token == int(gpt.logits([window])[0, -1].argmax())
        window = [*(window[-(T // 2) :] if len(window) == T else window), token]
    assert len(found) == 100


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_the_smallest_contexts_generate(block_size):
    gpt = sharp_gpt(block_size=block_size)
    assert len(list(generate_tokens(gpt, PROMPT, GREEDY))) == 20


def test_long_prompts_keep_their_last_part(gpt):
    ids = np.arange(100, 200)
    assert next(generate_tokens(gpt, ids, GREEDY)) == int(gpt.logits([ids[-32:]])[0, -1].argmax())


def test_same_seed_same_tokens(gpt):
    def draw(seed):
        return list(generate_tokens(gpt, PROMPT, SamplingConfig(temperature=2.0, seed=seed)))

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_tokens_are_the_same_however_many_are_picked_in_a_call(monkeypatch, temperature, at_once):
    """Also at a stop token, in a full context, and where the caller goes on with the cache."""
    gpt, sampling = sharp_gpt(), SamplingConfig(temperature=temperature, max_new_tokens=45, seed=4)
    whole = list(generate_tokens(gpt, PROMPT, sampling))
    stop = whole[5]
    monkeypatch.setattr(gpt.decoder, "run_length", at_once)
    assert list(generate_tokens(gpt, PROMPT, sampling)) == whole
    cache = gpt.new_cache()
    found = list(generate_tokens(gpt, PROMPT, sampling, cache=cache, stop=[stop]))
    assert found == whole[: whole.index(stop)] and cache.length == len(PROMPT) + len(found)
    stream = generate_tokens(gpt, PROMPT, sampling, cache=cache)
    assert [next(stream) for _ in range(3)] == whole[:3]
    stream.close()
    assert cache.length == len(PROMPT) + 2  # the third is not appended yet


def test_stop_tokens_end_and_are_not_given(gpt):
    tokens = list(generate_tokens(gpt, PROMPT, GREEDY))
    stop = tokens[5]
    assert list(generate_tokens(gpt, PROMPT, GREEDY, stop=[stop])) == tokens[: tokens.index(stop)]


def test_banned_tokens_are_never_chosen(gpt):
    banned = set(range(300)) - {5, 17, 99}
    for sampling in (
        GREEDY,
        SamplingConfig(temperature=5.0, top_p=1.0, seed=0),
        SamplingConfig(temperature=5.0, top_k=50, top_p=0.5, seed=0),
        SamplingConfig(beam=3, max_new_tokens=9),
    ):
        found = set(generate_tokens(gpt, PROMPT, sampling, banned=banned))
        assert found and found <= {5, 17, 99}


def test_a_cache_is_gone_on_with(gpt):
    expected = list(generate_tokens(gpt, PROMPT, GREEDY))
    for known in (1, 3, 4):
        cache = gpt.new_cache()
        gpt.infer(PROMPT[:known], cache)
        assert list(generate_tokens(gpt, PROMPT, GREEDY, cache=cache)) == expected


def test_context_infers_only_what_is_new(gpt, monkeypatch):
    inferred, infer = [], gpt.infer
    monkeypatch.setattr(
        gpt, "infer", lambda ids, *more: (inferred.append(len(ids)), infer(ids, *more))[1]
    )
    context = Context(gpt)
    context.feed([1, 2, 3, 4])
    context.feed([1, 2, 3, 4, 5, 6])
    context.feed([1, 2, 9])
    logits = context.feed([1, 2, 9])
    assert inferred == [4, 2, 1, 1]
    assert np.allclose(logits, gpt.logits([[1, 2, 9]])[0, -1], atol=1e-4)


LOGITS = np.log(np.array([0.05, 0.4, 0.1, 0.25, 0.2], np.float32))


def frequencies(
    sampling: SamplingConfig, logits: np.ndarray = LOGITS, ids=(), **named
) -> np.ndarray:
    sampler = Sampler(sampling, len(logits), **named)
    draws = [sampler.pick(logits, ids) for _ in range(4000)]
    return np.bincount(draws, minlength=len(logits)) / len(draws)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.05, 0.4, 0.1, 0.25, 0.2]),
        ({"temperature": 0.5}, np.array([0.0025, 0.16, 0.01, 0.0625, 0.04]) / 0.275),
        ({"top_k": 3}, np.array([0, 0.4, 0, 0.25, 0.2]) / 0.85),
        ({"top_p": 0.6}, np.array([0, 0.4, 0, 0.25, 0]) / 0.65),
        ({"top_p": 0.66}, np.array([0, 0.4, 0, 0.25, 0.2]) / 0.85),
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0, 0]),
        ({"top_p": 1e-9}, [0, 1, 0, 0, 0]),
        ({"temperature": 1e-30}, [0, 1, 0, 0, 0]),
        ({"top_k": 99}, [0.05, 0.4, 0.1, 0.25, 0.2]),
    ],
)
def test_draws_follow_the_distribution(options, expected):
    found = frequencies(SamplingConfig(**{"temperature": 1.0, "top_p": 1.0, "seed": 1, **options}))
    # Four standard deviations of a share of 4000 draws.
    assert np.allclose(found, expected, atol=4 * math.sqrt(0.25 / 4000))
    assert np.array_equal(found > 0, np.asarray(expected) > 0)


def test_nucleus_of_a_wide_distribution_equals_a_full_sort():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=3000).astype(np.float32)
    weights = np.exp(logits.astype(np.float64))
    order = np.argsort(-weights)
    kept = int((np.cumsum(weights[order]) < 0.8 * weights.sum()).sum()) + 1
    assert kept > 256
    found = frequencies(SamplingConfig(temperature=1.0, top_p=0.8, seed=0), logits)
    assert set(np.flatnonzero(found)) <= set(order[:kept])
    assert set(np.flatnonzero(found)) & set(order[kept - 200 : kept])


def test_repetition_penalty_lowers_what_was_said_but_not_the_stop():
    logits = np.array([2.0, 1.5, -1.0, -1.2], np.float32)
    sampler = Sampler(SamplingConfig(repetition_penalty=2.0), 4, stop=[1])
    assert sampler.scores(logits, [0, 0, 1, 2]).tolist() == pytest.approx([1.0, 1.5, -2.0, -1.2])
    assert Sampler(SamplingConfig(temperature=0, repetition_penalty=2.0), 4).pick(logits, [0]) == 1
    assert logits.tolist() == pytest.approx([2.0, 1.5, -1.0, -1.2])


def score(gpt: GPT, tokens: list[int], end: int | None, banned: list[int]) -> float:
    """Mean log-probability of tokens (and the stop) behind PROMPT, by full forward passes."""
    total, ids = 0.0, list(PROMPT)
    said = [*tokens, *([] if end is None else [end])]
    for token in said:
        logits = gpt.logits([ids])[0, -1].copy()
        logits[banned] = -np.inf
        total += float(log_softmax(logits)[token])
        ids.append(token)
    return total / len(said)


def test_a_wide_beam_finds_the_best_of_all_sequences(gpt):
    free, end = [7, 40, 90, 150], 90
    banned = [i for i in range(300) if i not in free]
    everything = []
    for length in range(4):
        for tokens in itertools.product([7, 40, 150], repeat=length):
            everything.append((list(tokens), score(gpt, list(tokens), end, banned)))
            if length == 3:
                everything[-1] = (list(tokens), score(gpt, list(tokens), None, banned))
    everything.sort(key=lambda one: -one[1])
    sampling = SamplingConfig(beam=40, max_new_tokens=3)
    found = beam_search(gpt, PROMPT, sampling, [end], banned)
    # Float32 logits of the cache against those of a full pass.
    assert [one.ids for one in found[:5]] == [tokens for tokens, _ in everything[:5]]
    assert [one.score for one in found] == pytest.approx([one for _, one in everything], abs=1e-4)


def test_beam_is_at_least_as_likely_as_greedy_and_scores_are_true(gpt):
    sampling = SamplingConfig(beam=4, max_new_tokens=8)
    greedy = list(generate_tokens(gpt, PROMPT, SamplingConfig(temperature=0, max_new_tokens=8)))
    found = beam_search(gpt, PROMPT, sampling)
    assert len(found) == 4 and len({tuple(one.ids) for one in found}) == 4
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for tokens, value, logprobs, _ in found:
        assert value == pytest.approx(score(gpt, tokens, None, []), abs=1e-4)
        assert sum(logprobs) / 8 == pytest.approx(value, abs=1e-6)
    assert found[0].score >= score(gpt, greedy, None, []) - 1e-4
    assert list(generate_tokens(gpt, PROMPT, sampling)) == found[0].ids


def test_beam_search_goes_on_behind_a_full_context(gpt):
    found = beam_search(gpt, PROMPT, SamplingConfig(beam=2, max_new_tokens=70))
    assert {len(one.ids) for one in found} == {70}


def test_no_tokens_wanted_none_given(gpt):
    assert list(generate_tokens(gpt, PROMPT, SamplingConfig(max_new_tokens=0))) == []
    found = beam_search(gpt, PROMPT, SamplingConfig(max_new_tokens=0, beam=2))
    assert found == [([], 0.0, [], "length")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-300),
        ("repetition_penalty", math.nan),
        ("max_new_tokens", -1),
        ("max_new_tokens", None),
        ("seed", -1),
        ("seed", 0.5),
        ("beam", 0),
        ("beam", 1000),
    ],
)
def test_options_out_of_range_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"SamplingConfig: {name} must be"):
        SamplingConfig(**{name: value})


@pytest.mark.parametrize(
    "ids", [[], [[1.5]], [[1], []], [[[1]]], np.zeros((0, 3), int), [1.5], [-1], [300], ["a"]]
)
def test_ids_that_do_not_fit_are_told_before_the_first_token(gpt, ids):
    with pytest.raises(DataError, match="ids must be"):
        generate_tokens(gpt, ids, GREEDY)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"banned": range(300)}, "all 300 tokens are banned"),
        ({"banned": [300]}, "banned token ids"),
        ({"stop": [-1]}, "stop token ids"),
    ],
)
def test_named_ids_are_checked(gpt, named, message):
    with pytest.raises(ConfigError, match=message):
        generate_tokens(gpt, PROMPT, GREEDY, **named)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingConfig(seed=0), SamplingConfig(beam=2)])
def test_weights_that_are_not_finite_are_told(bad, sampling):
    gpt = sharp_gpt()
    gpt.parameters()["ln_f.bias"][0] = bad
    with pytest.raises(CgptError, match="logits are not finite"):
        list(generate_tokens(gpt, PROMPT, sampling))


def test_text_streams_as_it_is_generated():
    llm = small_llm()
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode("长江")]
    tokens = list(
        generate_tokens(
            llm.gpt,
            ids,
            SamplingConfig(temperature=0, max_new_tokens=30),
            stop=[llm.tokenizer.eos_id],
            banned=llm.banned_ids,
        )
    )
    pieces = list(llm.stream("长江", max_new_tokens=30))
    assert "".join(pieces) == llm.generate("长江", max_new_tokens=30)
    assert "".join(pieces) == llm.tokenizer.decode(tokens)
    with pytest.raises(ConfigError, match="temperature"):
        llm.generate("长江", temperature=math.nan)
