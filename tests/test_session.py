"""ChatSession beyond one answer: edit, regenerate, pieces, snapshots, files, ten thousand turns."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
from small_llm import FACTS, TEXTS, small_llm, trained_llm

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.corpus.encoding import encode_prompt
from cgpt.corpus.records import Message
from cgpt.errors import CheckpointError, ConfigError, DataError

GREEDY = SamplingConfig(temperature=0, max_new_tokens=24)
DRAWN = SamplingConfig(temperature=1.0, max_new_tokens=24, seed=9)


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


def say(session: ChatSession, *numbers: int) -> list[str]:
    return ["".join(session.reply(FACTS[i][0])) for i in numbers]


def test_an_edited_turn_is_answered_anew_and_what_followed_is_gone(llm):
    session = ChatSession(llm, GREEDY)
    say(session, 0, 1, 2)
    assert "".join(session.edit(1, FACTS[5][0])) == FACTS[5][1]
    assert [one.content for one in session.history] == [*FACTS[0], *FACTS[5]]
    assert session.turns == 2
    assert "".join(session.edit(-2, FACTS[4][0])) == FACTS[4][1]
    assert [one.content for one in session.history] == [*FACTS[4]]
    other = ChatSession(llm, GREEDY)
    say(other, 4)
    assert say(session, 2) == say(other, 2)


def test_an_edit_costs_what_is_new(llm, inferred):
    session = ChatSession(llm, GREEDY)
    say(session, 0, 1)
    inferred.clear()
    "".join(session.edit(1, FACTS[1][0][:-1] + "是"))
    # all but the last character of the question was seen: it and <assistant> are new
    assert inferred[0] == 2


def test_regenerate_draws_another_answer(llm):
    session = ChatSession(
        llm, SamplingConfig(temperature=4.0, top_p=1.0, max_new_tokens=12, seed=3)
    )
    first = say(session, 0)[0]
    again = ["".join(session.regenerate()) for _ in range(3)]
    assert len({first, *again}) > 1 and session.turns == 1
    assert session.history[1].content == again[-1]
    greedy = ChatSession(llm, GREEDY)
    assert say(greedy, 0) == ["".join(greedy.regenerate())]


def test_an_edit_without_an_answer_brings_the_turns_back(llm, monkeypatch):
    session = ChatSession(llm, GREEDY)
    say(session, 0, 1)
    before = session.history
    assert list(session.edit(0, "  ")) == [] and session.history == before
    monkeypatch.setattr(session._sampler, "pick", lambda *_: llm.tokenizer.eos_id)
    assert list(session.edit(0, "你好")) == [] and session.history == before
    assert list(session.regenerate()) == [] and session.history == before
    monkeypatch.undo()
    other = ChatSession(llm, GREEDY)
    say(other, 0, 1)
    assert say(session, 2) == say(other, 2)
    for turn in (3, -4, 99):
        with pytest.raises(ConfigError, match=f"there is no turn {turn}, the session has 3"):
            session.edit(turn, "你好")
    with pytest.raises(ConfigError, match="there is no turn -1"):
        ChatSession(llm, GREEDY).regenerate()


def test_an_edit_far_back_sees_what_stood_before_it(llm):
    session = ChatSession(llm, GREEDY)
    say(session, *[i % 6 for i in range(14)])
    assert session._history.first > 8
    "".join(session.edit(6, FACTS[3][0]))
    ids = session._context.ids
    assert session._history.first < 6 and len(ids) <= 96
    assert len(session.history) == 14 and session.history[12].content == FACTS[3][0]
    seen = [one.content for one in session.history[2 * session._history.first :]]
    assert llm.tokenizer.decode(ids) == "".join(seen)


def test_pieces_tell_tokens_and_log_probabilities(llm):
    session = ChatSession(llm, SamplingConfig(temperature=0.8, seed=1, max_new_tokens=24))
    found = list(session.stream(FACTS[0][0]))
    ids = [token for piece in found for token in piece.ids]
    values = [value for piece in found for value in piece.logprobs]
    assert "".join(piece.text for piece in found) == session.history[1].content
    assert len(ids) == len(values) and llm.tokenizer.decode(ids) == session.history[1].content
    prompt = encode_prompt(llm.tokenizer, [Message("user", FACTS[0][0])])
    logits = llm.gpt.logits([prompt + ids])[0, len(prompt) - 1 : -1].astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    # float32 logits of the cache against those of a full pass
    assert values == pytest.approx(logits[np.arange(len(ids)), ids], abs=1e-4)
    assert all(piece.text for piece in found[:-1])


def test_an_answer_is_kept_as_the_model_said_it(inferred, llm, monkeypatch):
    """Bytes where the tokenizer would write a character: the cache knows them, so they stay."""
    session = ChatSession(llm, GREEDY)
    tokenizer = llm.tokenizer
    said = [*(6 + byte for byte in "长江".encode()), tokenizer.encode("长")[0]]
    assert tokenizer.decode(said) == "长江长" and tokenizer.encode("长江长") != said
    answer = iter([*said, tokenizer.eos_id])
    with monkeypatch.context() as patch:
        patch.setattr(session._sampler, "pick", lambda *_: next(answer))
        assert "".join(session.reply("你好")) == "长江长"
    known = session.context_tokens
    inferred.clear()
    say(session, 5)
    assert inferred[0] == 3 + len(FACTS[5][0])  # <eos> <user> the question <assistant>
    assert session._context.ids[:known][-len(said) :] == said


def test_a_stop_string_ends_an_answer(llm, inferred):
    sampling = SamplingConfig(temperature=0, max_new_tokens=24, stop=["约六", "？"])
    session = ChatSession(llm, sampling)
    assert say(session, 0) == ["长江全长"]
    assert session.history[1].content == "长江全长"
    assert llm.tokenizer.decode(session._context.ids).endswith("长江全长约")
    inferred.clear()
    say(session, 5)
    assert inferred[0] == 3 + len(FACTS[5][0])  # 约 is not part of the dialogue
    beam = ChatSession(llm, SamplingConfig(beam=2, max_new_tokens=24, stop=["约"]))
    assert say(beam, 0) == ["长江全长"]


def test_a_snapshot_brings_everything_back(llm, inferred):
    session = ChatSession(llm, DRAWN)
    say(session, 0, 1)
    snapshot = session.snapshot()
    first = say(session, 2, 3)
    session.clear()
    say(session, 4)
    for _ in range(2):
        session.restore(snapshot)
        assert session.turns == 2
        inferred.clear()
        assert say(session, 2, 3) == first
        assert inferred[0] == 3 + len(FACTS[2][0])  # keys and values came back as well
    with pytest.raises(ConfigError, match="snapshot is of another model"):
        ChatSession(small_llm(), DRAWN).restore(snapshot)


def test_a_saved_session_goes_on_to_the_token(llm, tmp_path):
    path = tmp_path / "talks" / "a.json"
    session = ChatSession(llm, DRAWN, system="谢谢")
    say(session, 0, 1, 2, 3, 4, 5, 0, 1)
    assert session.save(path) == path
    again = ChatSession.load(llm, path)
    assert again.history == session.history and again.system == "谢谢"
    assert again.sampling == DRAWN
    other = ChatSession.load(llm, path, GREEDY)
    assert other.sampling == GREEDY and other.history == session.history
    session._history.first = again._history.first
    assert say(again, 2, 3) == say(session, 2, 3)


def test_a_saved_session_is_readable(llm, tmp_path):
    session = ChatSession(llm, GREEDY)
    say(session, 5)
    values = json.loads(session.save(tmp_path / "a.json").read_text(encoding="utf-8"))
    assert values["messages"] == [
        {"role": "user", "content": "谢谢"},
        {"role": "assistant", "content": "不客气。"},
    ]
    assert "谢谢" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_half_characters_in_a_message_are_saved(llm, tmp_path):
    session = ChatSession(llm, GREEDY)
    "".join(session.reply("谢谢\ud83d"))
    assert session.turns == 1
    path = session.save(tmp_path / "a.json")
    assert ChatSession.load(llm, path).history == session.history
    assert json.loads(path.read_text(encoding="utf-8"))["messages"][0]["content"] == "谢谢\ud83d"


GOOD = {
    "format": "cgpt-session",
    "version": 1,
    "system": None,
    "sampling": {},
    "drawn": 0,
    "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broken JSON at line 1, column 1"),
        (b'{"a":\n}', "broken JSON at line 2, column 1"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"[" * 100000, "too deep nesting"),
        (b"[]", 'no "format": "cgpt-session" in it'),
        (b'{"format": 1}', 'no "format"'),
        ({"version": 2}, "its version is 2, this release reads 1"),
        ({"x": 1}, "its keys must be"),
        ({"system": 5}, "system must be a string or null"),
        ({"drawn": -1}, "drawn must be a whole"),
        ({"drawn": 1 << 70}, "drawn must be a whole"),
        ({"drawn": True}, "drawn must be a whole"),
        ({"sampling": []}, "sampling must be an object"),
        ({"sampling": {"x": 1}}, "unknown field 'x'"),
        ({"sampling": {"top_k": "a"}}, "top_k must be a whole number"),
        ({"messages": {}}, "messages must be a list"),
        ({"messages": [1]}, "message 1 must have role and content"),
        ({"messages": [{"role": "user", "content": 5}]}, "message 1 must have role and content"),
        ({"messages": GOOD["messages"][:1]}, "the last message is from the user"),
        ({"messages": GOOD["messages"][1:]}, "message 1 is from the assistant, expected the user"),
        ({"messages": [{"role": "user", "content": " "}]}, r"message 1 \(user\) is empty"),
        (
            {"messages": [{"role": "system", "content": "a"}, *GOOD["messages"]]},
            "its first message is from the system",
        ),
    ],
)
def test_files_that_are_no_sessions_are_told(llm, tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(
        content if isinstance(content, bytes) else json.dumps({**GOOD, **content}).encode()
    )
    with pytest.raises(DataError, match=reason) as error:
        ChatSession.load(llm, path)
    assert str(error.value).startswith(f"{path}: not a session that cgpt saved (")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_opened_are_told(llm, tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        ChatSession.load(llm, tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read"):
        ChatSession.load(llm, tmp_path)
    with pytest.raises(CheckpointError, match="could not be saved"):
        ChatSession(llm, GREEDY).save(tmp_path)


def test_an_empty_session_and_a_changed_file_load(llm, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert len(ChatSession.load(llm, path).history) == 2
    path.write_text(json.dumps({**GOOD, "messages": []}))
    assert ChatSession.load(llm, path).history == []


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_two_thousand_turns_take_no_more_memory():
    """Past the first turns only the text of the history grows: some 500 bytes a turn."""
    llm = small_llm(n_embd=16, n_layer=1, block_size=48)
    session = ChatSession(llm, SamplingConfig(temperature=1.0, max_new_tokens=6, seed=0))
    cache = session._context.cache
    for turn in range(2000):
        "".join(session.reply(FACTS[turn % 6][0]))
        if turn == 500:
            gc.collect()
            before = resident()
    gc.collect()
    assert resident() - before < 4 << 20
    assert session._context.cache is cache and cache.capacity == 48
    assert session.context_tokens <= 48 and session.turns > 1500
    # the tokens of turns that have left the context are not kept
    assert sum(turn.ids is not None for turn in session._history.turns) < 10


# what a model thinks of a text


def test_score_is_the_log_probability_of_each_token(llm):
    text = TEXTS[0]
    found = llm.score(text, end=True)
    assert found.total == pytest.approx(-llm.loss([text]) * len(found.ids), rel=1e-5)
    assert found.ids == [*llm.tokenizer.encode(text), llm.tokenizer.eos_id]
    assert len(found.logprobs) == len(found.ids) and (found.logprobs <= 0).all()
    without = llm.score(text)
    assert without.logprobs.tolist() == found.logprobs[:-1].tolist()
    assert without.per_character == pytest.approx(without.total / len(text))
    assert llm.score(TEXTS[0]).total > llm.score(TEXTS[0][::-1]).total
    with pytest.raises(DataError, match="text 0 has no token"):
        llm.score("")
    assert len(llm.score("", end=True).ids) == 1


@pytest.mark.parametrize("block_size", [1, 2, 5, 8])
def test_a_long_text_is_scored_in_windows_that_overlap(block_size):
    llm = small_llm(block_size=block_size)
    text = "长江有多长天空是什么颜色"
    for length in range(1, len(text) + 1):
        found = llm.score(text[:length])
        ids = [llm.tokenizer.bos_id, *found.ids]
        assert len(found.logprobs) == length
        for i, value in enumerate(found.logprobs):
            step = max(block_size // 2, 1)
            start = max(0, -(-(i + 1 - block_size) // step) * step)
            logits = llm.gpt.logits([ids[start : i + 1]])[0, -1].astype(np.float64)
            expected = logits[ids[i + 1]] - np.log(np.exp(logits).sum())
            assert value == pytest.approx(expected, abs=1e-4)


def test_a_look_inside_agrees_with_the_fast_way(llm):
    ids = np.array(llm.tokenizer.encode(TEXTS[0] + TEXTS[1]))
    found = llm.gpt.inspect(ids)
    T, (L, H, C) = len(ids), (2, 2, 32)
    assert found.hidden.shape == (L + 1, T, C) and found.attention.shape == (L, H, T, T)
    assert {one.dtype for one in vars(found).values()} == {np.dtype(np.float32)}
    expected = llm.gpt.logits([ids])[0]
    # float32 against float64 through two blocks
    np.testing.assert_allclose(found.logits, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(found.attention.sum(axis=3), 1, atol=1e-6)
    assert not found.attention[:, :, ~np.tri(T, dtype=bool)].any()
    weights = llm.gpt.parameters()
    np.testing.assert_allclose(
        found.hidden[0], weights["wte.weight"][ids] + weights["wpe.weight"][:T], atol=1e-6
    )
    for i in (0, 5):  # the stream behind token i is the one of a shorter text
        np.testing.assert_allclose(
            llm.gpt.inspect(ids[: i + 1]).hidden[:, -1], found.hidden[:, i], atol=1e-6
        )


def test_attention_inside_is_what_moves_values(llm):
    """Zero the values of a head: its weights stay, the stream behind the block changes."""
    gpt = small_llm(seed=4).gpt
    before = gpt.inspect([7, 8, 9])
    gpt.parameters()["h.0.attn.c_attn.weight"][64:80] = 0
    after = gpt.inspect([7, 8, 9])
    assert np.array_equal(before.attention[0], after.attention[0])
    assert not np.allclose(before.hidden[1], after.hidden[1])


@pytest.mark.parametrize("ids", [[], [[1]], [1.5], [-1], [400], [1] * 97])
def test_a_look_inside_refuses(llm, ids):
    with pytest.raises(DataError, match=r"inspect: found|ids must be"):
        llm.gpt.inspect(ids)
