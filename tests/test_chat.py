"""ChatSession: history, context budget, reuse of the cache, streaming, broken-off answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_llm import FACTS, small_llm, trained_llm

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.corpus.encoding import encode_prompt
from cgpt.corpus.records import Message
from cgpt.errors import ConfigError
from cgpt.generation.generate import generate_tokens

GREEDY = SamplingConfig(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def llm():
    return trained_llm()


@pytest.fixture
def inferred(llm, monkeypatch):
    """The number of tokens of each call of infer."""
    calls, infer = [], llm.gpt.infer
    monkeypatch.setattr(
        llm.gpt, "infer", lambda ids, *more: (calls.append(len(ids)), infer(ids, *more))[1]
    )
    return calls


def script(session, llm, monkeypatch, tokens):
    """Make the session say these tokens (then eos) instead of its model's."""
    said = itertools.chain(tokens, itertools.repeat(llm.tokenizer.eos_id))
    monkeypatch.setattr(session._sampler, "pick", lambda *_: next(said))


def test_questions_are_answered_as_learnt(llm):
    for question, answer in FACTS:
        session = ChatSession(llm, GREEDY)
        assert "".join(session.reply(question)) == answer
        assert session.history == [Message("user", question), Message("assistant", answer)]


def test_answer_is_what_the_template_and_greedy_generation_give(llm):
    session = ChatSession(llm, GREEDY, system="你好")
    messages = [Message("system", "你好")]
    for question in ("谢谢", "长江有多长", "山？"):
        messages.append(Message("user", question))
        tokens = list(
            generate_tokens(
                llm.gpt,
                encode_prompt(llm.tokenizer, messages),
                GREEDY,
                stop=[llm.tokenizer.eos_id],
                banned=llm.banned_ids,
            )
        )
        answer = "".join(session.reply(question))
        assert answer == llm.tokenizer.decode(tokens)
        messages.append(Message("assistant", answer))
    assert session.history == messages[1:]


def test_many_turns_never_exceed_the_context_and_go_on_answering():
    llm = small_llm(block_size=40)
    session = ChatSession(
        llm,
        SamplingConfig(
            temperature=1.0, max_new_tokens=15, seed=0, logit_bias={llm.tokenizer.eos_id: -99}
        ),
    )
    lengths = []
    for turn in range(60):
        answer = "".join(session.reply(FACTS[turn % len(FACTS)][0]))
        lengths.append(session.context_tokens)
        assert answer
    assert max(lengths) <= 40
    assert len(session.history) == 120


def test_oldest_turns_are_dropped_and_the_system_message_is_kept(llm, monkeypatch):
    session = ChatSession(llm, GREEDY, system="谢谢")
    for turn in range(12):
        list(session.reply(FACTS[turn % len(FACTS)][0]))
    tokenizer = llm.tokenizer
    text = tokenizer.decode(session._context.ids)
    assert session._context.ids[:2] == [tokenizer.bos_id, tokenizer.system_id]
    kept = session.history[2 * session._history.first :]
    assert 0 < len(kept) < 24 and kept[0].role == "user"
    assert text.startswith("谢谢" + kept[0].content)


def test_a_turn_costs_only_its_new_tokens(llm, inferred):
    session = ChatSession(llm, GREEDY)
    "".join(session.reply("你好"))
    known = session.context_tokens
    inferred.clear()
    question = FACTS[0][0]
    answer = "".join(session.reply(question))
    # <eos> of the turn before, <user>, the question, <assistant>; the answer goes on from there.
    assert inferred == [3 + len(question)]
    assert session.context_tokens == known + sum(inferred) + len(answer)


def test_turns_are_not_inferred_anew_each_time_when_the_context_is_full(llm, inferred):
    session = ChatSession(llm, GREEDY)
    fresh = []
    for turn in range(30):
        inferred.clear()
        list(session.reply(FACTS[turn % len(FACTS)][0]))
        fresh.append(inferred[0])
    assert sum(n > 30 for n in fresh[10:]) <= 10


def test_one_message_that_is_too_long_keeps_its_last_part(llm):
    session = ChatSession(llm, GREEDY)
    answer = "".join(session.reply("天空" * 300 + "长江有多长"))
    tokenizer = llm.tokenizer
    assert answer and session.context_tokens <= 96
    ids = session._context.ids
    assert ids[:2] == [tokenizer.bos_id, tokenizer.user_id]
    prompt = ids[: ids.index(tokenizer.assistant_id)]
    assert tokenizer.decode(prompt).endswith("天空长江有多长")
    assert len(prompt) + 1 == 96 - 24
    assert "".join(session.reply("谢谢")) == "不客气。"


def test_an_answer_longer_than_the_context_goes_on():
    llm = small_llm(block_size=32)
    session = ChatSession(
        llm,
        SamplingConfig(
            temperature=1.0,
            max_new_tokens=200,
            seed=1,
            repetition_penalty=1.1,
            logit_bias={llm.tokenizer.eos_id: -99},
        ),
    )
    list(session.reply("你好"))
    tokens = [token for piece in session.stream("长江有多长") for token in piece.ids]
    assert len(tokens) == 200
    assert session.context_tokens <= 32
    ids = session._context.ids
    assert ids[0] == llm.tokenizer.bos_id and llm.tokenizer.assistant_id in ids
    tail = ids[ids.index(llm.tokenizer.assistant_id) + 1 :]
    assert tail and (tail == tokens[-len(tail) :] or tail == tokens[-1 - len(tail) : -1])


def test_blank_input_changes_nothing(llm, inferred):
    session = ChatSession(llm, GREEDY)
    for text in ("", "  ", "\n\t", "　"):
        assert list(session.reply(text)) == []
    assert session.history == [] and inferred == []


def test_reply_does_nothing_before_it_is_read(llm):
    session = ChatSession(llm, GREEDY)
    session.reply("你好")
    assert "".join(session.reply("谢谢")) == "不客气。"
    assert [one.content for one in session.history] == ["谢谢", "不客气。"]


def test_closing_an_answer_keeps_its_part(llm):
    session = ChatSession(llm, GREEDY)
    pieces = session.reply(FACTS[0][0])
    part = next(pieces) + next(pieces)
    pieces.close()
    assert part == FACTS[0][1][:2]
    assert session.history == [Message("user", FACTS[0][0]), Message("assistant", part)]
    assert "".join(session.reply("谢谢"))
    assert [one.role for one in session.history] == ["user", "assistant"] * 2


def test_an_answer_that_is_not_read_on_is_closed_by_the_next(llm):
    session = ChatSession(llm, GREEDY)
    pieces = session.reply(FACTS[0][0])
    part = next(pieces)
    list(session.reply("谢谢"))
    assert session.history[1] == Message("assistant", part)
    assert list(pieces) == [] and len(session.history) == 4


@pytest.mark.parametrize(
    ("calls", "at_once"), [*((n, 1) for n in range(1, 9)), *((n, 3) for n in range(1, 6))]
)
def test_ctrl_c_inside_the_model_leaves_a_consistent_session(llm, monkeypatch, calls, at_once):
    session, left = ChatSession(llm, GREEDY), itertools.count(1)

    def interrupted(method):
        def call(*arguments):
            logits = method(*arguments)  # the worst moment: the cache has grown already
            if next(left) == calls:
                raise KeyboardInterrupt
            return logits

        return call

    monkeypatch.setattr(llm.gpt.decoder, "run_length", at_once)
    for name in ("infer", "decode_n"):
        monkeypatch.setattr(llm.gpt, name, interrupted(getattr(llm.gpt, name)))
    given = []
    with pytest.raises(KeyboardInterrupt):
        for piece in session.reply(FACTS[0][0]):
            given.append(piece)
    told = 0 if calls == 1 else 1 + at_once * (calls - 2)  # one token, then some with each call
    assert "".join(given) == FACTS[0][1][:told]
    assert [one.content for one in session.history] == (
        [FACTS[0][0], "".join(given)] if given else []
    )
    monkeypatch.undo()
    other = ChatSession(llm, GREEDY)
    other._history.turns = [*session._history.turns]
    assert "".join(session.reply("天空是什么颜色")) == "".join(other.reply("天空是什么颜色"))


def test_clear_forgets_all_turns(llm):
    session = ChatSession(llm, SamplingConfig(temperature=2.0, seed=4, max_new_tokens=12))
    first = ["".join(session.reply("你好")) for _ in range(2)]
    session.clear()
    assert session.history == []
    assert ["".join(session.reply("你好")) for _ in range(2)] == first


def test_streaming_gives_whole_characters_only(llm, monkeypatch):
    tokenizer = llm.tokenizer
    text = "山é𠮷👩‍👩‍👧，"
    tokens = tokenizer.encode(text)
    assert len(tokens) > len(text)  # bytes
    session = ChatSession(llm, SamplingConfig(max_new_tokens=60))
    script(session, llm, monkeypatch, tokens)
    pieces = list(session.reply("你好"))
    assert pieces == list(text)
    assert "".join(pieces) == tokenizer.decode(tokens)


def test_half_a_character_at_the_end_is_not_shown(llm, monkeypatch):
    session = ChatSession(llm, GREEDY)
    script(session, llm, monkeypatch, llm.tokenizer.encode("长𠮷")[:-1])
    assert list(session.reply("你好")) == ["长"]


def test_an_empty_answer_leaves_no_turn(llm, monkeypatch):
    session = ChatSession(llm, GREEDY)
    script(session, llm, monkeypatch, [])
    assert list(session.reply("你好")) == []
    assert session.history == []


def test_special_tokens_are_never_said_and_the_answer_stops_at_eos(llm, monkeypatch):
    session = ChatSession(llm, GREEDY)
    logits = np.full(llm.config.vocab_size, -1.0, np.float32)
    logits[[0, 1, 3, 4, 5]] = 9.0
    logits[2] = 5.0
    assert session._sampler.pick(logits, []) == llm.tokenizer.eos_id

    def infer(ids, cache, picks):
        picks.sampler.sample(logits[None], picks.u, picks.tokens)
        return logits

    monkeypatch.setattr(llm.gpt, "infer", infer)
    assert list(session.reply("你好")) == []


def test_beam_search_answers_at_once(llm):
    session = ChatSession(llm, SamplingConfig(beam=3, max_new_tokens=24))
    for question, answer in FACTS[:3]:
        assert "".join(session.reply(question)) == answer
    assert len(session.history) == 6


def test_a_seed_repeats_the_conversation(llm):
    def talk(seed):
        session = ChatSession(llm, SamplingConfig(temperature=3.0, seed=seed, max_new_tokens=9))
        return ["".join(session.reply(question)) for question, _ in FACTS]

    assert talk(1) == talk(1) != talk(2)


def test_a_system_message_that_leaves_no_room_is_told(llm):
    with pytest.raises(ConfigError, match=r"take 7\d of the 96 tokens of context, at most 36"):
        ChatSession(llm, GREEDY, system="长江" * 35)
    with pytest.raises(ConfigError, match="too short to chat"):
        ChatSession(small_llm(block_size=8))
    ChatSession(llm, GREEDY, system="  ")
