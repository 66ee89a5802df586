"""What a generation gives besides its text, of every call that generates, and how it can end."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest
from small_llm import FACTS, small_llm, trained_llm
from test_generate import log_softmax, sharp_gpt

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.corpus.records import Message
from cgpt.errors import CgptError, ConfigError
from cgpt.evaluation.answers import accuracy, answer
from cgpt.generation.generate import generate_batch, generate_tokens
from cgpt.generation.results import Generation, Recorder, Usage
from cgpt.generation.sampling import DEFAULTS, GREEDY
from cgpt.llm import LLM

QUESTION, ANSWER = FACTS[0]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return trained_llm()


def asked(llm: LLM, **options) -> dict[str, Generation]:
    """The same options given to each call that generates one text."""
    messages = [{"role": "user", "content": QUESTION}]
    session = ChatSession(llm)
    found = {
        "generate": llm.generate(QUESTION, **options),
        "list": llm.generate([QUESTION], **options)[0],
        "stream": llm.stream(QUESTION, **options).read(),
        "continuation": llm.continuation(QUESTION, **options).read(),
        "chat": llm.chat(messages, **options),
        "chat_stream": llm.chat_stream(messages, **options).read(),
        "reply": session.reply(QUESTION, **options).read(),
        "pieces": ChatSession(llm).stream(QUESTION, **options).read(),
    }
    if session.turns:
        found["regenerate"] = session.regenerate(**options).read()
        found["edit"] = session.edit(0, QUESTION, **options).read()
    return found


@pytest.mark.parametrize("more", [{}, {"speculate": 4}, {"beam": 3}, {"repetition_penalty": 1.01}])
def test_every_call_tells_how_its_text_came_about(llm, more):
    for name, one in asked(llm, temperature=0.0, max_new_tokens=30, **more).items():
        assert isinstance(one, Generation) and isinstance(one, str), name
        assert type(one.text) is str and one.text == one and one
        assert one.finish_reason == "stop" and one.stop is None, name
        assert llm.tokenizer.decode(one.ids) == one.text
        assert one.usage.completion_tokens == len(one.ids)
        assert one.usage.prompt_tokens > len(QUESTION)
        assert one.usage.total_tokens == one.usage.prompt_tokens + len(one.ids)
        assert 0 < one.time_to_first_token <= one.seconds
        assert not one.dropped and one.top_logprobs is None
        assert (one.logprobs is None) == (name != "pieces")


@pytest.mark.parametrize("more", [{}, {"speculate": 4}, {"beam": 2}])
def test_the_reason_of_the_end(llm, more):
    options = {"temperature": 0.0, "max_new_tokens": 30, **more}
    for one in asked(llm, **{**options, "max_new_tokens": 3}).values():
        assert one.finish_reason == "length" and len(one.ids) == 3
    for one in asked(llm, stop=["公里", "六千公里。"], **options).values():
        assert (one.finish_reason, one.stop) == ("stop", "公里")
        assert one.endswith("六千") and llm.tokenizer.decode(one.ids).endswith("公里")
    for one in asked(llm, **{**options, "max_new_tokens": 0}).values():
        assert (one, one.finish_reason, one.time_to_first_token) == ("", "length", None)


def test_log_probabilities_with_their_alternatives(llm):
    found = asked(llm, temperature=0.0, max_new_tokens=9, top_logprobs=3, repetition_penalty=1.02)
    assert len(found) == 10
    for name, one in found.items():
        assert len(one.logprobs) == len(one.top_logprobs) == len(one.ids), name
        for token, value, top in zip(one.ids, one.logprobs, one.top_logprobs, strict=True):
            assert len(top) == 3 and [x.logprob for x in top] == sorted(
                (x.logprob for x in top), reverse=True
            )
            same = [x.logprob for x in top if x.id == token]
            assert not same or same[0] == pytest.approx(value, abs=1e-5)
    one = found["generate"]
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode(QUESTION)]
    for token, value, top in zip(one.ids, one.logprobs, one.top_logprobs, strict=True):
        expected = log_softmax(llm.gpt.logits([ids])[0, -1])
        assert value == pytest.approx(expected[token], abs=1e-4)  # float32 logits of the cache
        assert [x.id for x in top] == np.argsort(-expected, kind="stable")[:3].tolist()
        ids.append(token)
    with pytest.raises(ConfigError, match="a beam search has no top_logprobs"):
        llm.generate(QUESTION, beam=2, top_logprobs=1)
    assert len(llm.generate(QUESTION, beam=2, logprobs=True).logprobs) > 3
    with pytest.raises(ConfigError, match="logprobs must be true or false"):
        llm.generate(QUESTION, logprobs=3)


def test_logprobs_change_no_token(llm):
    texts = [question for question, _ in FACTS]
    options = {"temperature": 0.9, "seed": 4, "max_new_tokens": 20}
    plain = llm.generate(texts, **options)
    assert plain == llm.generate(texts, logprobs=True, top_logprobs=2, **options)
    assert plain[0] == llm.generate(texts[0], logprobs=True, **options)


def test_a_result_is_copied_pickled_and_put_into_json(llm):
    one = llm.generate(QUESTION, top_logprobs=2, stop="约")
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert type(other) is Generation and other == one and vars(other) == vars(one)
    values = json.loads(json.dumps(one.to_dict()))
    assert values["text"] == one and values["ids"] == list(one.ids) and values["stop"] == "约"
    assert values["usage"]["total_tokens"] == one.usage.total_tokens
    assert values["top_logprobs"][0][0] == one.top_logprobs[0][0]._asdict()
    assert values["dropped"] == {"tokens": 0, "turns": 0, "later": 0}
    assert "finish_reason='stop', stop='约'" in repr(one) and repr(one.text) in repr(one)
    beam = llm.beam_search(QUESTION, SamplingConfig(beam=2, max_new_tokens=9))[0]
    assert pickle.loads(pickle.dumps(beam)).score == beam.score == beam.to_dict()["score"]


def test_what_of_a_prompt_does_not_fit_is_told(llm):
    capacity = llm.config.block_size
    text = "长江" * capacity
    for one in (
        llm.generate(text, 5),
        llm.generate([text, "你好"], 5)[0],
        llm.stream(text, 5).read(),
        llm.generate(text, 5, beam=2),
        llm.generate(text, 5, speculate=3),
    ):
        assert one.dropped.tokens == 2 * capacity + 1 - capacity and one.dropped.turns == 0
        assert one.usage.prompt_tokens == capacity
        assert one.dropped.later == capacity // 2  # the fifth token finds half a context
    assert llm.beam_search(text, SamplingConfig(beam=2, max_new_tokens=5))[0].dropped
    assert not llm.generate(["长江", "你好"], 5)[0].dropped


@pytest.mark.parametrize("options", [{}, {"beam": 2}, {"no_repeat_ngram": 90}])
def test_what_leaves_the_context_meanwhile_is_told(options):
    llm = small_llm(block_size=16)
    options = {"logit_bias": {llm.tokenizer.eos_id: -99}, **options}
    for n in range(8, 40):
        # the prompt has 3 tokens; n - 1 of the new ones are appended
        length, left = 3, 0
        for _ in range(n - 1):
            length, left = (9, left + 8) if length == 16 else (length + 1, left)
        found = llm.generate("长江", n, **options)
        assert (found.dropped.later, found.dropped.tokens) == (left, 0)
        if n % 8 == 0:
            assert llm.generate(["长江"], n, **options)[0].dropped.later == left


# streams


def test_a_stream_has_its_result_when_it_ends(llm):
    stream = llm.stream(QUESTION)
    assert not hasattr(stream, "result")
    first = next(stream)
    with pytest.raises(CgptError, match="has not ended yet") as error:
        _ = stream.result
    assert error.value.code == "unfinished" and "under way, 1 tokens" in repr(stream)
    rest = "".join(stream)
    assert stream.result == first + rest == llm.generate(QUESTION)
    assert stream.result is stream.read() and "ended" in repr(stream)
    stream.close()
    assert stream.result.finish_reason == "stop" and list(stream) == []


@pytest.mark.parametrize(
    "begin",
    [
        lambda llm: llm.stream(QUESTION),
        lambda llm: llm.continuation(QUESTION),
        lambda llm: llm.chat_stream([{"role": "user", "content": QUESTION}], temperature=0.0),
        lambda llm: ChatSession(llm).reply(QUESTION, temperature=0.0),
    ],
)
def test_a_closed_stream_is_cancelled(llm, begin):
    with begin(llm) as stream:
        given = [next(stream), next(stream)]
    texts = [one if isinstance(one, str) else one.text for one in given]
    assert stream.result == "".join(texts) and stream.result.finish_reason == "cancelled"
    assert len(stream.result.ids) == 2 and list(stream) == []
    unread = begin(llm)
    unread.close()
    assert (unread.result, unread.result.finish_reason) == ("", "cancelled")
    thrown = begin(llm)
    with pytest.raises(KeyError):
        thrown.throw(KeyError("x"))
    assert thrown.ended


def test_one_thread_reads_a_stream_and_any_closes_it(llm, monkeypatch):
    inside, go = threading.Event(), threading.Event()
    infer = llm.gpt.infer

    def slow(*arguments):
        inside.set()
        assert go.wait(10)
        return infer(*arguments)

    monkeypatch.setattr(llm.gpt, "infer", slow)
    stream = llm.stream(QUESTION)
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    assert inside.wait(10)
    with pytest.raises(CgptError, match="another thread is reading it") as error:
        next(stream)
    assert error.value.code == "busy"
    stream.close()
    go.set()
    reader.join(10)
    assert not reader.is_alive()
    assert (stream.result, stream.result.finish_reason) == ("", "cancelled")


# cancelling


class After:
    """A token that is set after it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    "more", [{}, {"speculate": 4}, {"beam": 3}, {"repetition_penalty": 1.01}, {"logprobs": True}]
)
@pytest.mark.parametrize("looks", [0, 1, 4])
def test_a_token_cancels_every_call(llm, more, looks):
    options = {"temperature": 0.0, "max_new_tokens": 30, **more}
    whole = asked(llm, **options)
    messages = [{"role": "user", "content": QUESTION}]
    session, other = ChatSession(llm), ChatSession(llm)
    for name, call in {
        "generate": lambda **now: llm.generate(QUESTION, **now),
        "list": lambda **now: llm.generate([QUESTION] * 3, **now)[2],
        "stream": lambda **now: llm.stream(QUESTION, **now).read(),
        "chat": lambda **now: llm.chat(messages, **now),
        "reply": lambda **now: session.reply(QUESTION, **now).read(),
        "pieces": lambda **now: other.stream(QUESTION, **now).read(),
    }.items():
        one = call(**options, cancel=After(looks))
        assert one.finish_reason == "cancelled", name
        if "beam" not in more:
            assert whole[name].startswith(one.text) and len(one) < len(whole[name])
            assert len(one.ids) == len(one)
        if not looks:
            assert one == "" and one.ids == () and one.time_to_first_token is None
        if name in ("reply", "pieces"):
            assert (session if name == "reply" else other).turns == bool(one)


@pytest.mark.parametrize("more", [{}, {"beam": 2}])
def test_a_deadline_cancels_every_call(llm, more):
    for one in asked(llm, timeout=0, **more).values():
        assert (one, one.finish_reason) == ("", "cancelled")
    for one in asked(llm, temperature=0.0, timeout=60.0, **more).values():
        assert one.finish_reason == "stop"
    for wrong in (-1, float("nan"), float("inf"), "soon", True):
        with pytest.raises(ConfigError, match=r"LLM.generate: timeout must be"):
            llm.generate("长江", timeout=wrong)
    for wrong in (True, 1, "x", threading.Lock()):
        with pytest.raises(ConfigError, match="cancel must have a method is_set"):
            llm.chat([{"role": "user", "content": "a"}], cancel=wrong)


def test_time_runs_from_the_first_piece_on(llm, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("cgpt.runtime.cancellation.monotonic", lambda: now[0])
    stream = llm.stream(QUESTION, timeout=5)
    now[0] = 200.0
    first = next(stream)
    now[0] = 204.0
    second = next(stream)
    now[0] = 205.0
    assert list(stream) == [] and stream.result == first + second
    assert stream.result.finish_reason == "cancelled"


def test_an_event_of_another_thread_is_seen(llm):
    cancel = threading.Event()
    model = small_llm(block_size=64)
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    begun = time.monotonic()
    found = model.generate("长江", 10**6, logit_bias={model.tokenizer.eos_id: -99}, cancel=cancel)
    assert found.finish_reason == "cancelled" and len(found.ids) > 3
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("piece", [1, 2, 5, 64])
def test_a_long_prompt_is_cancelled_between_its_parts_and_has_the_same_bits(monkeypatch, piece):
    gpt = sharp_gpt()
    ids = np.arange(100, 130)
    cache, parts = gpt.new_cache(), gpt.new_cache()
    whole = gpt.infer(ids, cache)
    monkeypatch.setattr(gpt.decoder, "prefill_length", piece)
    calls, prefill = [], gpt.prefill
    monkeypatch.setattr(
        gpt, "prefill", lambda one, cache: (calls.append(len(one)), prefill(one, cache))[1]
    )
    tokens = generate_tokens(gpt, ids, GREEDY, cache=parts, cancel=After(10**9))
    assert next(tokens) == int(whole.argmax())
    assert calls == [piece] * (29 // piece)
    tokens.close()
    assert (parts.keys[:, :, :30] == cache.keys[:, :, :30]).all()
    assert (parts.logits[0] == whole).all() or len(calls) == 0
    calls.clear()
    assert list(generate_tokens(gpt, ids, GREEDY, cancel=After(3))) == [] or piece > 10
    assert len(calls) == min(3, 29 // piece)
    prompts = [ids, ids[:7], ids[:20]]
    plain = generate_batch(gpt, prompts, SamplingConfig(temperature=0.0, max_new_tokens=9))
    assert (
        generate_tokens(
            gpt, prompts, SamplingConfig(temperature=0.0, max_new_tokens=9), cancel=After(10**9)
        )
        == plain
    )
    assert generate_tokens(gpt, prompts, GREEDY, timeout=0) == [[], [], []]


def test_tokens_alone_are_cancelled_too():
    gpt = sharp_gpt()
    whole = gpt.generate([1, 2, 3], 50)
    found = gpt.generate([1, 2, 3], 50, cancel=After(9))
    assert 0 < len(found) < 50 and (whole[: len(found)] == found).all()
    batch = gpt.generate([[1, 2, 3], [4, 5, 6]], 50, cancel=After(9))
    assert batch.shape[0] == 2 and 0 < batch.shape[1] < 50
    assert list(gpt.stream([1, 2, 3], 50, timeout=0)) == []
    with pytest.raises(ConfigError, match="unknown option 'temprature'"):
        gpt.generate([1, 2, 3], temprature=1.0)


def test_measuring_is_cancelled_with_an_error(llm):
    texts = [answer * 9 for _, answer in FACTS]
    whole = llm.score(texts)
    assert [one.total for one in llm.score(texts, cancel=After(10**9), timeout=60)] == [
        one.total for one in whole
    ]
    for call in (
        llm.score,
        llm.embed,
        lambda text, **now: llm.score([text, text], "你好", **now),
        lambda text, **now: llm.score([text] * 2, "天空是什么颜色" * 3, **now),
    ):
        for options in ({"timeout": 0}, {"cancel": After(0)}):
            with pytest.raises(CgptError, match="ended by its cancel token or timeout") as error:
                call("长江", **options)
            assert error.value.code == "cancelled"
        with pytest.raises(ConfigError, match="unknown option 'cancle'; did you mean 'cancel'"):
            call("长江", cancle=None)


def test_rows_of_a_batch_have_their_own_ends(llm):
    recorders = [Recorder() for _ in FACTS]
    rows = llm.generate([question for question, _ in FACTS], 12)
    assert {one.finish_reason for one in rows} == {"stop", "length"}
    for (question, _), one in zip(FACTS, rows, strict=True):
        alone = llm.generate(question, 12)
        assert (one, one.ids, one.finish_reason, one.usage) == (
            alone,
            alone.ids,
            alone.finish_reason,
            alone.usage,
        )
    assert generate_batch(llm.gpt, [[1, 2]] * 6, GREEDY, recorders=recorders) == [
        one.ids for one in recorders
    ]
    assert all(one.result("").usage == Usage(2, len(one.ids), 0) for one in recorders)


# the options of a call


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("max_tokens", 3, "max_new_tokens"),
        ("max_completion_tokens", 3, "max_new_tokens"),
        ("tempereture", 1.0, "temperature"),
        ("n_predict", 3, "max_new_tokens"),
        ("stop_sequences", "a", "stop"),
        ("num_beams", 2, "beam"),
        ("seeds", 1, "seed"),
    ],
)
def test_a_wrong_name_is_told_with_the_one_that_was_meant(llm, name, value, meant):
    options, session = {name: value}, ChatSession(llm)
    for call in (
        lambda: llm.generate("长江", **options),
        lambda: llm.generate(["长江"], **options),
        lambda: llm.stream("长江", **options),
        lambda: llm.continuation("长江", **options),
        lambda: llm.chat([{"role": "user", "content": "a"}], **options),
        lambda: session.reply("长江", **options),
        lambda: session.stream("长", **options),
    ):
        with pytest.raises(ConfigError, match=f"unknown option '{name}'; did you mean '{meant}'"):
            call()
    with pytest.raises(ConfigError, match=f"SamplingConfig: unknown field '{name}'"):
        SamplingConfig(**options)
    with pytest.raises(ConfigError, match="there is no option 'stream'"):
        llm.chat([{"role": "user", "content": "a"}], stream=True)
    with pytest.raises(ConfigError, match="known: temperature, top_k"):
        llm.generate("长江", xyz=1)


def test_the_defaults_are_one_set(llm, monkeypatch):
    assert (DEFAULTS.temperature, DEFAULTS.top_p, DEFAULTS.max_new_tokens) == (0.8, 0.9, 256)
    assert ChatSession(llm).sampling == DEFAULTS == SamplingConfig()
    seen = []
    monkeypatch.setattr(
        "cgpt.chat.session.sampler_of", lambda _, sampling, *more: seen.append(sampling) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        llm.chat([{"role": "user", "content": "a"}])
    assert seen == [DEFAULTS]
    monkeypatch.setattr(
        "cgpt.llm.decode",
        lambda gpt, ids, sampling, *_, **__: (seen.append(sampling), (token for token in ()))[1],
    )
    assert llm.generate("长江") == "" and list(llm.stream("长江")) == []
    assert seen[1:] == [SamplingConfig(temperature=0.0)] * 2


def test_questions_that_do_not_fit_are_told_by_their_answers(llm):
    long = (Message("user", "天空" * 90 + QUESTION), Message("assistant", ANSWER))
    found = list(answer(llm, [long, (Message("user", QUESTION), Message("assistant", ANSWER))], 20))
    assert [one.dropped > 0 for one in found] == [True, False] and found[1].exact
    assert found[0].dropped == 1 + 1 + 180 + len(QUESTION) + 1 - llm.config.block_size
    assert accuracy(found).shortened == 1


def test_options_that_are_none_are_as_if_left_out() -> None:
    """Clients pass on what they were given, which is often nothing."""
    llm = small_llm()
    options: dict[str, Any] = dict.fromkeys(
        ("stop", "logits_processors", "seed", "cancel", "timeout")
    )
    assert llm.generate("山", max_new_tokens=4, **options) == llm.generate("山", max_new_tokens=4)
