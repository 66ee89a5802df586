"""Speculation by prompt lookup, several prompts at once, beams: what they may change and not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from small_llm import FACTS, TEXTS, trained_llm
from test_generate import PROMPT, log_softmax, sharp_gpt

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.errors import ConfigError
from cgpt.generation.context import Context
from cgpt.generation.generate import (
    beam_search,
    decode,
    decode_stream,
    generate_batch,
    generate_tokens,
    prompt_lookup_draft,
)
from cgpt.generation.results import Noted, Recorder
from cgpt.generation.sampling import Sampler


@pytest.fixture(scope="module")
def llm():
    """It repeats what it was told, so drafts are taken."""
    return trained_llm()


@pytest.fixture
def passes(llm, monkeypatch):
    """The number of tokens of each pass."""
    calls = []
    for name in ("infer", "infer_all"):
        pass_ = getattr(llm.gpt, name)
        monkeypatch.setattr(
            llm.gpt,
            name,
            lambda ids, *more, pass_=pass_: (calls.append(len(ids)), pass_(ids, *more))[1],
        )
    return calls


@pytest.mark.parametrize(
    ("seen", "token", "expected"),
    [
        ([1, 2, 3, 9, 2], 3, [9, 2, 3]),  # the last two tokens were there before
        ([1, 2, 3, 7, 2, 3, 8, 1, 2], 3, [7, 2, 3]),  # the last three, though two came later
        ([2, 3, 7, 2, 3, 8, 2], 3, [8, 2, 3]),  # the later of two places
        ([7, 8, 1, 7], 8, [1, 7, 8]),
        ([5, 5, 5], 5, [5, 5, 5]),
        ([5, 5], 5, [5, 5, 5]),
        ([1, 2, 1, 2], 1, [2, 1, 2]),  # a loop goes on
        ([], 1, []),
        ([4], 4, []),
        ([1, 2, 3], 5, []),
        ([3, 1, 2], 3, []),
    ],
)
def test_drafts_are_what_followed_the_same_words(seen, token, expected):
    assert prompt_lookup_draft(np.array(seen, np.int32), token, 3) == expected


def test_a_match_across_the_bytes_of_numbers_is_none():
    """1, 0 in bytes lies in 256, 0 as well, one byte further on."""
    assert prompt_lookup_draft(np.array([256, 0, 9, 1], np.int32), 0, 2) == []
    assert prompt_lookup_draft(np.array([1, 0, 256, 0, 9, 1], np.int32), 0, 2) == [256, 0]


SETTINGS = [
    SamplingConfig(temperature=0, max_new_tokens=120),
    SamplingConfig(temperature=0, max_new_tokens=120, repetition_penalty=1.1),
    SamplingConfig(temperature=0, max_new_tokens=60, no_repeat_ngram=6),
    SamplingConfig(temperature=0.7, seed=5, max_new_tokens=120),
    SamplingConfig(temperature=1.5, seed=6, top_k=20, presence_penalty=0.3, max_new_tokens=120),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize("most", [1, 4, 16])
def test_speculation_changes_no_token(llm, passes, sampling, most):
    """Also behind a full context (96 tokens), greedy and drawn: same numbers, same picks."""
    tokenizer = llm.tokenizer
    guessed = 0
    for text in [*TEXTS, TEXTS[0] * 2, "长江" * 9]:
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        plain = list(generate_tokens(llm.gpt, ids, sampling, banned=llm.banned_ids))
        passes.clear()
        fast = list(
            generate_tokens(llm.gpt, ids, replace(sampling, speculate=most), banned=llm.banned_ids)
        )
        assert fast == plain
        guessed += len(passes) < len(fast)
    assert guessed, "no draft was ever taken: nothing was tested"


def test_speculation_on_many_prompts_of_a_sharp_model():
    gpt = sharp_gpt()
    rng = np.random.default_rng(3)
    for _ in range(20):
        prompt = rng.integers(0, 300, rng.integers(1, 30)).tolist() * 2
        sampling = SamplingConfig(temperature=0, max_new_tokens=60)
        assert list(generate_tokens(gpt, prompt, replace(sampling, speculate=5))) == list(
            generate_tokens(gpt, prompt, sampling)
        )


def test_speculation_saves_passes(llm, passes):
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(TEXTS[0] + TEXTS[0][:4])]
    sampling = SamplingConfig(temperature=0, max_new_tokens=60, speculate=8)
    tokens = list(generate_tokens(llm.gpt, ids, sampling, banned=llm.banned_ids))
    assert len(tokens) == 60 and len(passes) <= 30


@pytest.mark.parametrize("after", range(1, 12))
def test_a_context_holds_no_guess_when_generation_is_left(llm, after):
    tokenizer = llm.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(TEXTS[0] + TEXTS[0][:4])]
    context = Context(llm.gpt)
    sampler = Sampler(
        SamplingConfig(temperature=0, speculate=8), llm.config.vocab_size, llm.banned_ids
    )
    tokens = decode_stream(context, ids, sampler, frozenset())
    said = [next(tokens)[0] for _ in range(after)]
    tokens.close()
    assert context.ids == ids + said[: len(context) - len(ids)]
    assert len(context) >= len(ids) + after - 1 and context.cache.length == len(context)


def test_log_probabilities_are_the_models_own(llm):
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(TEXTS[0][:5])]
    for speculate in (0, 6):
        sampling = SamplingConfig(
            temperature=0.7, seed=1, repetition_penalty=1.3, max_new_tokens=30, speculate=speculate
        )
        whole = list(ids)
        for token, value, _ in decode(
            llm.gpt, ids, sampling, Recorder(noted=Noted(True)), banned=llm.banned_ids
        ):
            expected = log_softmax(llm.gpt.logits([whole])[0, -1])[token]
            assert value == pytest.approx(expected, abs=1e-4)  # the cache's logits are so near
            whole.append(token)
        assert all(value is None for _, value, _ in decode(llm.gpt, ids, sampling))


def test_a_chat_with_speculation_says_the_same(llm):
    def talk(speculate):
        session = ChatSession(
            llm, SamplingConfig(temperature=0.5, seed=2, max_new_tokens=24, speculate=speculate)
        )
        said = ["".join(session.reply(FACTS[i % 3][0])) for i in range(9)]
        return said, session.context_tokens

    assert talk(0) == talk(7)


# several prompts


def test_prompts_of_unlike_length_are_as_each_alone(llm):
    sampling = SamplingConfig(temperature=1.0, seed=7, max_new_tokens=12)
    prompts = [PROMPT, PROMPT[:1], [*PROMPT, 3, 4], np.arange(100, 160)]
    found = generate_tokens(llm.gpt, prompts, sampling, stop=[2], banned=[5])
    alone = [
        list(generate_tokens(llm.gpt, prompt, replace(sampling, seed=7 + i), stop=[2], banned=[5]))
        for i, prompt in enumerate(prompts)
    ]
    assert found == alone and len({len(row) for row in found}) >= 1
    assert generate_tokens(llm.gpt, prompts[:1], sampling, stop=[2], banned=[5]) == alone[:1]
    with pytest.raises(ConfigError, match="a cache holds one sequence"):
        generate_tokens(llm.gpt, prompts, sampling, cache=llm.gpt.new_cache())


def test_a_row_ends_where_its_caller_says(llm):
    sampling = SamplingConfig(temperature=0, max_new_tokens=9)
    whole = generate_batch(llm.gpt, [PROMPT, PROMPT[:2]], sampling)
    told = []
    found = generate_batch(
        llm.gpt,
        [PROMPT, PROMPT[:2]],
        sampling,
        given=lambda row, token: (
            told.append((row, token)),
            sum(one == 0 for one, _ in told) == 3 and row == 0,
        )[1],
    )
    assert found == [whole[0][:3], whole[1]]
    assert [[token for one, token in told if one == row] for row in (0, 1)] == found


@pytest.mark.parametrize(
    "options", [{}, {"stop": ["，", "长"]}, {"beam": 2}, {"temperature": 1.0, "seed": 3}]
)
def test_texts_are_continued_as_each_alone(llm, options):
    texts = ["长江有多长", "天", "", "一年有几个季节，一年"]
    found = llm.generate(texts, max_new_tokens=15, **options)
    if "seed" in options:
        assert found == [
            llm.generate(text, 15, **{**options, "seed": 3 + i}) for i, text in enumerate(texts)
        ]
    else:
        assert found == [llm.generate(text, 15, **options) for text in texts]
    assert llm.generate([], 5) == []


# beams


def test_length_penalty_divides_by_a_power_of_the_length(llm):
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode("长江")]
    lengths = []
    for power in (0.0, 1.0, 3.0):
        sampling = SamplingConfig(beam=8, max_new_tokens=16, length_penalty=power)
        found = beam_search(llm.gpt, ids, sampling, [llm.tokenizer.eos_id], llm.banned_ids)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        for one in found:
            whole, total = list(ids), 0.0
            ended = len(one.ids) < 16
            for token in [*one.ids, *[llm.tokenizer.eos_id] * ended]:
                logits = llm.gpt.logits([whole])[0, -1].copy()
                logits[llm.banned_ids] = -np.inf
                total += log_softmax(logits)[token]
                whole.append(token)
            # summed over up to 17 tokens, each within 1e-4 of the cache's logits
            assert one.score == pytest.approx(total / (len(one.ids) + ended) ** power, abs=2e-3)
        lengths.append(np.mean([len(one.ids) for one in found]))
    assert lengths[0] < lengths[2]


def test_beams_obey_rules_on_repetition(llm):
    sampling = SamplingConfig(beam=3, max_new_tokens=25, no_repeat_ngram=2)
    for one in beam_search(llm.gpt, PROMPT, sampling, [], llm.banned_ids):
        whole = PROMPT + one.ids
        pairs = list(itertools.pairwise(whole))
        assert len(set(pairs)) == len(pairs)


def test_a_beam_search_of_text(llm):
    found = llm.beam_search("长江有多长", SamplingConfig(beam=3, max_new_tokens=20))
    assert len(found) == 3 and found[0].text == llm.generate("长江有多长", 20, beam=3)
    assert all(one.text == llm.tokenizer.decode(one.ids) for one in found)
    cut = llm.beam_search("长江有多长", SamplingConfig(beam=3, max_new_tokens=20, stop=["长"]))
    assert [one.text for one in cut] == [one.text.split("长")[0] for one in found]
    assert [one.score for one in cut] == [one.score for one in found]


def test_texts_that_stop_are_refused_where_there_is_no_text(llm):
    with pytest.raises(ConfigError, match="stop names texts"):
        generate_tokens(llm.gpt, PROMPT, SamplingConfig(stop=["。"]))
    with pytest.raises(ConfigError, match="stop names texts"):
        beam_search(llm.gpt, PROMPT, SamplingConfig(stop=["。"], beam=2))
