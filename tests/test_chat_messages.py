"""LLM.chat from plain messages, what it keeps between calls, and sessions made of messages."""

from __future__ import annotations

import copy
import json
import pickle
import random
import threading

import numpy as np
import pytest
from small_llm import DIALOGUES, FACTS, small_llm, trained_llm

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig, TrainConfig
from cgpt.corpus.records import Message
from cgpt.errors import CgptError, ConfigError, DataError
from cgpt.generation.prefix_cache import MOST, PrefixCache
from cgpt.generation.results import Generation
from cgpt.llm import LLM
from cgpt.models.quantized import with_weights
from cgpt.training.trainer import Trainer

GREEDY = {"temperature": 0.0, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def llm() -> LLM:
    return trained_llm()


@pytest.fixture
def fresh(llm, monkeypatch):
    """The model without contexts of earlier tests, and the tokens of each call of infer."""
    monkeypatch.setattr(llm, "_prefixes", PrefixCache())
    calls, infer = [], llm.gpt.infer
    monkeypatch.setattr(
        llm.gpt, "infer", lambda ids, *more: (calls.append(len(ids)), infer(ids, *more))[1]
    )
    return calls


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        {**GREEDY, "beam": 2},
        {**GREEDY, "speculate": 4},
        {"temperature": 1.3, "seed": 5, "max_new_tokens": 12},
    ],
)
@pytest.mark.parametrize("system", [None, "谢谢"])
def test_it_answers_as_a_session_does_also_past_the_context(llm, options, system):
    """Forty turns through a context of 96 tokens: the same turns are left out, at the same time."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    session = ChatSession(llm, SamplingConfig(**options), system)
    left_out = 0
    for turn in range(24):
        if not session.turns:  # a blank answer left no turn
            messages = messages[: system is not None]
        question = FACTS[(5 * turn) % 6][0]
        messages.append(user(question))
        session._sampler.uniforms.drawn = 0  # each call of chat begins with its seed
        said = session.reply(question).read()
        found = llm.chat(messages, **options)
        assert (found, found.ids, found.dropped) == (said, said.ids, said.dropped)
        assert found.usage.prompt_tokens == said.usage.prompt_tokens
        left_out = max(left_out, found.dropped.turns)
        if said.strip():
            messages.append(assistant(found))
        else:
            messages.pop()
    assert left_out > 5


def test_what_was_seen_is_not_inferred_again(llm, fresh):
    first = llm.chat([user(FACTS[0][0])], **GREEDY)
    assert first.usage.cached_tokens == 0
    assert (
        llm.chat([user(FACTS[0][0])], **GREEDY).usage.cached_tokens == first.usage.prompt_tokens - 1
    )
    messages = [user(FACTS[0][0]), assistant(first.text), user(FACTS[5][0])]
    fresh.clear()
    second = llm.chat(messages, **GREEDY)
    # <eos> behind the answer, <user>, the question, <assistant>
    assert fresh[0] == 3 + len(FACTS[5][0])
    assert second.usage.cached_tokens == second.usage.prompt_tokens - fresh[0]
    fresh.clear()
    llm.chat([user(FACTS[0][0]), assistant(first), user(FACTS[3][0])], **GREEDY)
    assert fresh[0] == 1 + len(FACTS[3][0])  # <eos> and <user> were there too


def test_dialogues_do_not_take_each_others_beginnings(llm, fresh):
    """Three in turn: each goes on from its own context, though all begin alike."""
    system = {"role": "system", "content": "谢谢"}
    talks = [[system, user(FACTS[i][0])] for i in range(3)]
    for turn in range(3):
        for i, messages in enumerate(talks):
            fresh.clear()
            found = llm.chat(messages, **GREEDY)
            if turn:
                assert fresh[0] == 3 + len(messages[-1]["content"])
            messages += [assistant(found), user(FACTS[(i + turn + 1) % 6][0])]
    assert len(llm._prefixes) == 3


def test_the_contexts_that_are_kept_are_bounded(llm, monkeypatch):
    kept = PrefixCache()
    monkeypatch.setattr(llm, "_prefixes", kept)
    for i in range(MOST + 5):
        llm.chat([user(chr(0x4E00 + i) * 3)], **{**GREEDY, "max_new_tokens": 2})
    assert len(kept) == MOST
    monkeypatch.setattr("cgpt.generation.prefix_cache.MOST_BYTES", 1)
    llm.chat([user("山")], **GREEDY)
    assert len(kept) == 1


def changed_by_training(llm: LLM) -> None:
    Trainer(llm, TrainConfig(epochs=1, lr=1e-2, warmup=0), "finetune").fit(DIALOGUES)


def changed_by_hand(llm: LLM) -> None:
    llm.gpt.parameters()["h.0.attn.c_attn.weight"][3, 5] += 4


def changed_places(llm: LLM) -> None:
    """Two rows of a matrix: the same numbers elsewhere."""
    weight = llm.gpt.parameters()["wte.weight"]
    rows = llm.tokenizer.encode("你好")
    weight[rows] = weight[rows[::-1]]


def changed_by_loading(llm: LLM) -> None:
    other = small_llm(seed=7)
    llm.gpt.load_parameters(other.gpt.parameters())


@pytest.mark.parametrize(
    "change", [changed_by_training, changed_by_hand, changed_places, changed_by_loading]
)
def test_other_weights_forget_what_was_seen(change):
    llm, messages = small_llm(seed=2), [user("你好长江"), assistant("山"), user("谢谢")]
    for array in llm.gpt.parameters().values():
        array *= 4
    llm.chat(messages, **GREEDY)
    assert llm.chat(messages, **GREEDY).usage.cached_tokens > 0
    change(llm)
    found = llm.chat(messages, logprobs=True, **GREEDY)
    assert found.usage.cached_tokens == 0
    llm._prefixes = PrefixCache()
    assert vars(llm.chat(messages, logprobs=True, **GREEDY))["logprobs"] == found.logprobs


def test_weights_that_cannot_change_are_not_looked_through(llm):
    stored = LLM(llm.tokenizer, with_weights(llm.gpt, "int8"))
    assert stored.gpt.weights_mark() == b"" != llm.gpt.weights_mark()
    for _ in range(2):
        found = stored.chat([user(FACTS[0][0])], **GREEDY)
    assert found.usage.cached_tokens > 0 and found.text


def test_threads_chat_at_once_and_get_what_they_get_alone(llm):
    expected = {question: llm.chat([user(question)], **GREEDY) for question, _ in FACTS}
    wrong: list[object] = []

    def talk(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(12):
            question = order.choice(FACTS)[0]
            found = llm.chat([user(question)], **GREEDY)
            if (found, found.ids) != (expected[question], expected[question].ids):
                wrong.append((question, found))

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert not wrong and len(llm._prefixes) <= MOST


def test_messages_of_any_usual_form(llm):
    plain = llm.chat([{"role": "system", "content": "谢谢"}, user("你好")], **GREEDY)
    for messages in (
        (Message("system", "谢谢"), Message("user", "你好")),
        [{"role": "developer", "content": "谢谢"}, user("你好")],
        [{"role": "System", "content": "谢谢"}, {"role": "User", "content": "你好"}],
        [
            {"role": "system", "content": [{"type": "text", "text": "谢谢"}], "name": None},
            {"role": "user", "content": [{"type": "text", "text": "你好"}]},
        ],
    ):
        assert llm.chat(messages, **GREEDY) == plain
    assert llm.chat_stream([user("你好")], **GREEDY).read() == llm.chat([user("你好")], **GREEDY)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("你好", "expected a list of messages"),
        ({"role": "user"}, "expected a list of messages"),
        ([], "no messages, expected at least one from the user$"),
        ([3], r"messages\[0\]: found 3"),
        (["你好"], r"messages\[0\]: found '你好'"),
        ([{"role": "user"}], "message 1 has the keys 'role'"),
        ([user("a"), assistant("b")], "the last message is from the assistant, expected the user"),
        ([{"role": "system", "content": "a"}], "the last message is from the system"),
        ([user("a"), user("b")], "message 2 is from the user, expected the assistant"),
        ([user(" ")], r"message 1 \(user\) is empty"),
        ([user(None)], "message 1 has"),
        ([{"role": "king", "content": "a"}], "the role 'king'"),
        ([user("a"), {"role": "tool", "content": "b"}, user("c")], r"messages\[1\] is of a tool"),
        ([{"role": "assistant", "content": "b", "tool_calls": [1]}], r"messages\[0\] is of a tool"),
        ([user([{"type": "image_url"}])], "a part of the type 'image_url'"),
    ],
)
def test_messages_that_are_none_are_told(llm, messages, reason):
    with pytest.raises(DataError, match=reason):
        llm.chat(messages)


def test_what_chat_cannot_do_is_told_at_once(llm):
    with pytest.raises(ConfigError, match="the system message and the marks of a turn take"):
        llm.chat_stream([{"role": "system", "content": "长江" * 90}, user("a")])
    with pytest.raises(ConfigError, match="SamplingConfig: top_p"):
        llm.chat_stream([user("a")], top_p=2.0)
    long = llm.chat([user("天空" * 300 + "长江有多长")], **GREEDY)
    assert long.dropped.turns == 0 and long.dropped.tokens > 500 and long.usage.prompt_tokens == 72


# sessions


def test_sampling_of_one_reply(llm):
    session = ChatSession(llm, SamplingConfig(temperature=2.0, seed=3, max_new_tokens=24))
    before = session.sampling
    found = session.reply(FACTS[0][0], temperature=0.0, stop=["六"]).read()
    assert found == "长江全长约" and found.stop == "六"
    assert len(session.reply(FACTS[1][0], max_new_tokens=2, top_logprobs=2).read().logprobs) == 2
    assert session.sampling == before
    with pytest.raises(ConfigError, match="temperature must be"):
        session.reply("你好", temperature=-1.0)
    assert session.turns == 2


def test_other_options_draw_the_sessions_next_numbers(llm):
    config = SamplingConfig(temperature=3.0, top_p=1.0, seed=3, max_new_tokens=8)

    def talk(*changes: dict) -> list[str]:
        session = ChatSession(llm, config)
        return [session.reply("你好", **one).read() for one in changes]

    assert talk({}, {}) == talk({"max_new_tokens": 8}, {"temperature": 3.0})
    same = {"presence_penalty": 1e-9}  # another sampler, the same numbers
    assert talk(same, same) == talk({}, {})
    assert (
        talk({"seed": 9}, {})[0] == talk({}, {"seed": 9})[1]
        or talk({"seed": 9})[0]
        == ChatSession(llm, SamplingConfig(temperature=3.0, top_p=1.0, seed=9, max_new_tokens=8))
        .reply("你好")
        .read()
    )


def test_a_session_from_messages_goes_on(llm):
    session = ChatSession(llm, SamplingConfig(**GREEDY), system="谢谢")
    for question, _ in FACTS * 3:
        session.reply(question).read()
    messages = [
        {"role": "system", "content": "谢谢"},
        *({"role": one.role, "content": one.content} for one in session.history),
    ]
    other = ChatSession.from_messages(llm, messages, SamplingConfig(**GREEDY))
    assert other.history == session.history and other.system == "谢谢"
    assert other.dropped == session.dropped and other.dropped.turns > 5
    for question in ("你好", "谢谢"):
        one, two = session.reply(question).read(), other.reply(question).read()
        assert (one, one.dropped) == (two, two.dropped)
    for empty in ([], messages[:1]):
        assert ChatSession.from_messages(llm, empty).turns == 0
    for wrong, reason in (
        (messages[:2], "the last message is from the user"),
        ("x", "a list of"),
        (messages[2:3], "message 1 is from the assistant"),
    ):
        with pytest.raises(DataError, match=reason):
            ChatSession.from_messages(llm, wrong)


def test_an_answer_keeps_the_tokens_it_was_said_with(llm, fresh):
    """Bytes where the tokenizer would write a character."""
    said = [*(6 + byte for byte in "长江".encode()), llm.tokenizer.encode("长")[0]]
    answer = Generation("长江长", ids=said)
    session = ChatSession.from_messages(llm, [user("你好"), assistant(answer)])
    plain = ChatSession.from_messages(llm, [user("你好"), assistant(answer.text)])
    more = len(said) - len(llm.tokenizer.encode("长江长"))
    assert (
        session.reply("谢谢", **GREEDY).read().usage.prompt_tokens
        == plain.reply("谢谢", **GREEDY).read().usage.prompt_tokens + more
    )
    cut = Generation("长江", ids=said, stop="长")  # not what its tokens are as a text
    assert ChatSession.from_messages(llm, [user("你好"), assistant(cut)]).turns == 1


def test_a_session_as_a_dictionary_is_that_of_its_file(llm, tmp_path):
    session = ChatSession(llm, SamplingConfig(temperature=1.0, seed=2, stop=["。"]), system="谢谢")
    for question, _ in FACTS:
        session.reply(question).read()
    values = json.loads(json.dumps(session.to_dict()))
    assert values == json.loads(session.save(tmp_path / "a.json").read_text("utf-8"))
    again = ChatSession.from_dict(llm, values)
    assert again.history == session.history and again.sampling == session.sampling
    assert again.reply("你好").read() == session.reply("你好").read()
    assert ChatSession.from_dict(llm, values, SamplingConfig(**GREEDY)).sampling.temperature == 0
    for other in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        assert other.to_dict() == session.to_dict()
    for wrong, reason in (
        ({}, 'no "format"'),
        ({**values, "drawn": -1}, "drawn must be"),
        ({**values, "version": 2}, "its version is 2"),
        (None, 'no "format"'),
    ):
        with pytest.raises(DataError, match=f"ChatSession.from_dict: not a session.*{reason}"):
            ChatSession.from_dict(llm, wrong)


def test_a_second_thread_is_told_while_an_answer_is_under_way(llm, tmp_path):
    session, seen = ChatSession(llm, SamplingConfig(**GREEDY)), []
    stream = session.reply(FACTS[0][0])

    def elsewhere(call) -> None:
        def run() -> None:
            try:
                call()
                seen.append("")
            except CgptError as error:
                seen.append(error.code)
                assert "under way in another thread" in str(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)

    calls = [
        lambda: session.reply("你好"),
        lambda: session.stream("你好"),
        session.clear,
        lambda: session.edit(0, "你好"),
        session.regenerate,
        session.snapshot,
        session.to_dict,
        lambda: session.save(tmp_path / "a.json"),
    ]
    for call in calls:  # begun, but nothing read yet
        elsewhere(call)
    first = next(stream)
    for call in calls:
        elsewhere(call)
    assert seen == ["busy"] * 16
    assert session.history == [] and not (tmp_path / "a.json").exists()
    assert first + "".join(stream) == FACTS[0][1]
    elsewhere(calls[0])  # it has ended
    assert seen[-1] == ""


def test_an_answer_does_not_block_for_longer_than_it_lives(llm):
    session = ChatSession(llm, SamplingConfig(**GREEDY))
    kept = []

    def begin() -> None:
        kept.append(session.reply(FACTS[0][0]))
        next(kept[0])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join(30)
    assert session.reply("谢谢").read() == "不客气。"  # its thread has ended
    assert kept[0].result.finish_reason == "cancelled" and session.turns == 2
    for piece in session.reply(FACTS[0][0]):  # forgotten with the loop
        assert piece
        break
    failed = []
    thread = threading.Thread(target=lambda: failed.append(session.reply("谢谢").read()))
    thread.start()
    thread.join(30)
    assert failed == ["不客气。"] and session.turns == 4


def test_what_the_kept_contexts_hold_is_right(llm, fresh):
    """Keys and values of contexts that were copied, cut and gone on with are of their tokens."""
    order = random.Random(1)
    for _ in range(12):
        talk = [user(order.choice(FACTS)[0])]
        for _ in range(order.randrange(3)):
            talk += [assistant(order.choice(FACTS)[1]), user(order.choice(FACTS)[0])]
        llm.chat(talk, **GREEDY)
    for context, _ in llm._prefixes._kept:
        cache = llm.gpt.new_cache()
        llm.gpt.infer(context.ids, cache)
        n = len(context)
        assert n == context.cache.length and np.array_equal(
            cache.keys[:, :, :n], context.cache.keys[:, :, :n]
        )
