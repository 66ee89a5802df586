"""logits_processors: plain functions over the logits, honoured by everything that generates."""

from __future__ import annotations

import numpy as np
import pytest
from small_llm import FACTS, trained_llm
from test_generate import sharp_gpt
from test_results import asked

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.errors import CgptError, ConfigError
from cgpt.generation.generate import generate_tokens
from cgpt.llm import LLM
from cgpt.models.rustgpt import RustGPT, RustGPTConfig

QUESTION = FACTS[0][0]
KINDS = [
    {"temperature": 0.0},
    {"temperature": 1.2, "seed": 3},
    {"temperature": 0.0, "speculate": 4},
    {"beam": 3},
    {"temperature": 0.0, "logprobs": True},
    {"temperature": 1.0, "seed": 2, "repetition_penalty": 1.3},
]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return trained_llm()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_processor_that_adds_is_as_a_bias(llm, options):
    bias = {llm.tokenizer.encode("六")[0]: -30.0, llm.tokenizer.encode("，")[0]: -3.0}

    def add(ids, logits):
        assert ids.dtype == np.int32 and logits.dtype == np.float32
        assert logits.shape == (llm.config.vocab_size,) and len(ids)
        logits[list(bias)] += list(bias.values())

    options = {**options, "max_new_tokens": 20}
    expected = asked(llm, logit_bias=bias, **options)
    plain = asked(llm, **options)
    inside = asked(llm, logits_processors=[add], **options)
    returned = asked(
        llm,
        logits_processors=[
            lambda ids, logits: None,
            lambda ids, logits: (
                logits + np.bincount(list(bias), list(bias.values()), len(logits))
            ).astype(np.float32),
        ],
        **options,
    )
    for name, one in expected.items():
        assert one.ids == inside[name].ids == returned[name].ids, name
    assert any(one.ids != plain[name].ids for name, one in expected.items())


def test_a_processor_sees_the_tokens_before_the_pick(llm):
    seen = []

    def look(ids, logits):
        seen.append(ids)
        logits[:] = 0  # the model's are not touched by it
        logits[llm.tokenizer.encode(FACTS[0][1])[len(seen) - 1]] = 1

    found = llm.generate(QUESTION, 5, logits_processors=[look], logprobs=True)
    assert found == FACTS[0][1][:5]
    start = [llm.tokenizer.bos_id, *llm.tokenizer.encode(QUESTION)]
    assert [one.tolist() for one in seen] == [[*start, *found.ids[:i]] for i in range(5)]
    logits = llm.gpt.logits([[*start, *found.ids]])[0].astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = [logits[len(start) - 1 + i, token] for i, token in enumerate(found.ids)]
    assert found.logprobs == pytest.approx(wanted, abs=1e-4)  # float32 logits of the cache


def test_rows_of_a_batch_have_their_own_tokens(llm):
    """A grammar of two letters: what may follow depends on the row's own last token."""
    a, b = (llm.tokenizer.encode(one)[0] for one in "长江")

    def turn_about(ids, logits):
        allowed = b if ids[-1] == a else a
        value = logits[allowed]
        logits[:] = -np.inf
        logits[allowed] = value

    only = {"logits_processors": [turn_about]}
    for more in ({}, {"beam": 2}, {"speculate": 3}, {"temperature": 1.0, "seed": 1}):
        found = llm.generate(["你好长", "你好江", "谢谢"], 6, **only, **more)
        assert found == ["江长江长江长", "长江长江长江", "长江长江长江"]
    session = ChatSession(llm)
    assert session.reply("你好", max_new_tokens=4, **only).read() == "长江长江"
    assert session.reply("你好", temperature=0.0).read() == "你好，很高兴见到你。"
    best = llm.beam_search("你好", SamplingConfig(beam=2, max_new_tokens=4), **only)
    assert [one.text for one in best] == ["长江长江"]


@pytest.mark.parametrize(
    "gpt",
    [
        sharp_gpt(),
        RustGPT(
            RustGPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=32, vocab_size=300), seed=3
        ),
    ],
)
def test_tokens_alone_have_them_too(gpt):
    def only_even(ids, logits):
        logits[1::2] = -np.inf

    for ids in ([1, 2, 3], [[1, 2, 3], [4, 5, 6]]):
        found = gpt.generate(ids, 20, logits_processors=[only_even])
        assert found.shape == (*np.shape(ids)[:-1], 20) and not (found % 2).any()
        for sampling in (
            SamplingConfig(max_new_tokens=9, seed=1),
            SamplingConfig(max_new_tokens=9, beam=2),
            SamplingConfig(max_new_tokens=9, speculate=2),
        ):
            rows = generate_tokens(gpt, ids, sampling, logits_processors=[only_even])
            assert not any(token % 2 for token in np.ravel(list(rows)))


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        (lambda ids, logits: logits[:3], r"<lambda> returned float32 ndarray of shape \(3,\), ex"),
        (lambda ids, logits: "x", "returned str"),
        (lambda ids, logits: 5, r"of shape \(\)"),
        (lambda ids, logits: np.full_like(logits, -np.inf), "leave no token"),
        (lambda ids, logits: logits.astype(complex), r"returned complex128 ndarray of shape \(30"),
        (lambda ids, logits: np.full(len(logits), None), r"returned object ndarray of shape \(30"),
        (lambda ids, logits: [[1], [1, 2]], r"returned list of shape \(0,\)"),
        (lambda ids, logits: np.full(len(logits), 1e300), "leave no token"),
        (lambda ids, logits: np.full_like(logits, np.nan), "leave no token"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"beam": 2}])
def test_what_a_processor_may_not_do_is_told(llm, processor, reason, more):
    for call in (
        lambda **now: llm.generate("长江", **now),
        lambda **now: llm.generate(["长"], **now),
        lambda **now: llm.chat([{"role": "user", "content": "a"}], **now),
    ):
        with pytest.raises(CgptError, match=reason):
            call(logits_processors=[processor], **more)


def test_what_is_no_processor_is_told(llm):
    for wrong in (3, "x", [3], lambda ids, logits: None):
        with pytest.raises(ConfigError, match="must be a list of functions"):
            llm.generate("长江", logits_processors=wrong)
        with pytest.raises(ConfigError, match="must be a list of functions"):
            llm.gpt.generate([1, 2], logits_processors=wrong)

    def broken(ids, logits):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        llm.generate("长江", logits_processors=[broken])
