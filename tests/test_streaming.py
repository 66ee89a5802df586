"""Text from tokens: whole characters, stop strings of which no part is ever shown."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_llm import FACTS, small_llm, small_tokenizer, trained_llm

from cgpt.chat.session import ChatSession
from cgpt.config import SamplingConfig
from cgpt.generation.results import Token
from cgpt.generation.streaming import Assembler, Piece, StopFilter, pieces, stop_of, text_of
from cgpt.tokenizers.vocabulary import FIRST_WORD, SPECIAL_TOKENS

TOKENIZER = small_tokenizer()


def cut(text: str, stop: Iterable[str]) -> str:
    """The text up to the stop string that is completed first, looked for end by end."""
    for end in range(1, len(text) + 1):
        starts = [end - len(one) for one in stop if text[:end].endswith(one)]
        if starts:
            return text[: min(starts)]
    return text


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.text("ab", max_size=4), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_what_is_shown_is_the_text_up_to_the_first_stop_string(parts, stop):
    texts = StopFilter(stop)
    shown = ""
    for part in parts:
        shown += texts.push(part)
        # at every moment: a beginning of the result, and all that no stop string can still take
        assert cut("".join(parts), stop).startswith(shown)
        if texts.stop is not None:
            break
    shown += texts.end()
    whole = "".join(parts)
    assert shown == cut(whole, stop)
    assert not any(one in shown for one in stop)
    assert whole.startswith(shown)


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_nothing_is_held_back_that_can_be_shown(text, stop):
    """Character by character: what is held back is always the beginning of a stop string."""
    texts, shown = StopFilter(stop), ""
    for i, char in enumerate(text):
        shown += texts.push(char)
        if texts.stop is not None:
            break
        held = text[len(shown) : i + 1]
        assert not held or any(one.startswith(held) for one in stop)


def tokens_of(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def streamed(ids: list[int], stop: tuple[str, ...] = (), half: bool = True) -> list[Piece]:
    return list(pieces((Token(token, -0.5) for token in ids), TOKENIZER, stop, half=half))


def test_pieces_carry_all_tokens_and_their_log_probabilities():
    ids = tokens_of("长江é，")
    found = streamed(ids)
    assert [piece.text for piece in found] == ["长", "江", "é", "，"]
    assert [token for piece in found for token in piece.ids] == ids
    assert [len(piece.ids) for piece in found] == [len(piece.logprobs) for piece in found]
    assert len(found[2].ids) == 2


def test_a_stop_string_ends_the_text_but_its_tokens_are_told():
    ids = tokens_of("长江全长约")
    found = streamed(ids, ("全长",))
    assert [piece.text for piece in found] == ["长", "江", ""]
    assert [token for piece in found for token in piece.ids] == ids[:4]
    assert streamed(ids, ("长江全黄",))[-1].text == "长约"
    assert "".join(piece.text for piece in streamed(ids, ("约黄",))) == "长江全长约"
    assert text_of(ids, TOKENIZER, ("全长", "江")) == "长"


def test_a_stop_string_may_be_part_of_a_token_or_of_several():
    words = small_llm().tokenizer.from_state(
        {"words": ["你好吗", "长", "江"], "scores": [-1.0, -2.0, -2.0]}
    )
    ids = words.encode("长你好吗江")
    assert len(ids) == 3
    assert text_of(ids, words, ("好",)) == "长你"
    assert text_of(ids, words, ("吗江",)) == "长你好"
    text = Assembler(words, ("吗江",))
    assert [(text.push(token), text.stop) for token in ids] == [
        ("长", None),
        ("你好", None),
        ("", "吗江"),
    ]


@settings(max_examples=200, deadline=None)
@given(st.text("长江黄é𠮷a", max_size=24), st.data())
def test_the_cut_is_the_same_whatever_the_tokens(text, data):
    """Words, characters and bytes: the stop string that is completed first in the text counts."""
    texts = st.text("长江黄é𠮷a", min_size=1, max_size=5)
    stop = data.draw(st.lists(texts, min_size=1, max_size=4))
    expected = cut(text, stop)
    words = TOKENIZER.from_state(
        {
            "words": ["长江", "江黄", "长江黄河", "黄黄", "长", "江", "黄"],
            "scores": [-1.0, -1.5, -1.2, -2.0, -4.0, -4.0, -4.0],
        }
    )
    for ids, tokenizer in (
        (words.encode(text), words),
        (TOKENIZER.encode(text), TOKENIZER),
        ([6 + byte for byte in text.encode()], TOKENIZER),
    ):
        assert text_of(ids, tokenizer, stop) == expected
        found = Assembler(tokenizer, stop)
        shown = "".join(found.push(token) for token in ids if found.stop is None)
        assert shown + found.end() == expected
        assert found.stop == stop_of(ids, tokenizer, stop)
        assert (found.stop is None) == (expected == text)
        if found.stop is not None:
            assert found.stop in stop and text.startswith(expected + found.stop)


def test_of_stop_texts_that_overlap_the_first_to_end_counts():
    words = TOKENIZER.from_state(
        {"words": ["甲乙丙丁", "甲", "乙", "丙", "丁"], "scores": [-1.0, -3.0, -3.0, -3.0, -3.0]}
    )
    one = words.encode("甲乙丙丁")
    single = [token for char in "甲乙丙丁" for token in words.encode(char)]
    assert (len(one), len(single)) == (1, 4)
    for stop, text, ended_by in (
        (["甲乙丙丁", "乙丙"], "甲", "乙丙"),
        (["丙", "乙丙"], "甲", "乙丙"),
        (["丁", "丙丁", "乙"], "甲", "乙"),
        (["乙丙丁", "丙"], "甲乙", "丙"),
    ):
        for ids in (one, single):
            assert (text_of(ids, words, stop), stop_of(ids, words, stop)) == (text, ended_by)


@pytest.mark.parametrize(
    "stop",
    [["江全长", "全"], ["约六千公里", "六", "千公"], ["长江全", "江全长约"], ["长约", "全长约六"]],
)
def test_streams_batches_and_sessions_cut_alike(stop):
    llm, question = trained_llm(), FACTS[0][0]
    options = {"temperature": 0.0, "max_new_tokens": 30, "stop": stop}
    for calls, text in (
        (
            (
                lambda **now: ChatSession(llm).reply(question, **now).read(),
                lambda **now: llm.chat([{"role": "user", "content": question}], **now),
            ),
            FACTS[0][1],
        ),
        (
            (
                lambda **now: llm.generate(question, **now),
                lambda **now: llm.generate(["你好", question], **now)[1],
                lambda **now: llm.stream(question, **now).read(),
            ),
            llm.generate(question, 30),
        ),
    ):
        for call in calls:
            for more in ({}, {"speculate": 3}, {"beam": 2}):
                assert call(**options, **more) == cut(text, stop) != text


def test_half_a_character_at_the_end():
    ids = tokens_of("长𠮷")[:-1]
    assert [piece.text for piece in streamed(ids)] == ["长", "\ufffd"]
    found = streamed(ids, half=False)
    assert [piece.text for piece in found] == ["长", ""]
    assert [token for piece in found for token in piece.ids] == ids


def test_a_lone_surrogate_is_shown_as_what_can_be_encoded():
    tokenizer = small_tokenizer()
    ids = tokenizer.encode("你\udf1d好")
    assert tokenizer.decode(ids) == "你\udf1d好"
    assert text_of(ids, tokenizer, ()) == "你\ufffd好"
    assert text_of(ids, tokenizer, ("\ufffd",)) == "你"
    text = Assembler(tokenizer, ("\ufffd",))
    assert [(text.push(token), text.stop)[1] for token in ids[:-1]] == [None] * 3 + ["\ufffd"]


def test_the_tokens_are_closed_with_the_pieces():
    closed = []

    def endless():
        try:
            while True:
                yield Token(tokens_of("长")[0])
        finally:
            closed.append(True)

    found = pieces(endless(), TOKENIZER)
    next(found)
    found.close()
    assert closed == [True]
    list(pieces(endless(), TOKENIZER, ["长长"]))
    assert closed == [True, True]


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"beam": 3}]
)
def test_generated_text_ends_before_a_stop_string(options):
    llm = small_llm()
    no_bytes = dict.fromkeys(range(len(SPECIAL_TOKENS), FIRST_WORD), -99.0)
    options = {"logit_bias": no_bytes, **options}
    text = llm.generate("长江", max_new_tokens=30, **options)
    assert len(text) > 8
    for stop in (text[4], text[3:6], text[-1]):
        at = text.index(stop)
        found = list(llm.stream("长江", max_new_tokens=30, stop=[stop, "xyz"], **options))
        assert "".join(found) == text[:at] == llm.generate("长江", 30, stop=stop, **options)
    ids = [
        token
        for piece in llm.continuation(
            "长江", SamplingConfig(**{"max_new_tokens": 30, **options, "stop": [text[4]]})
        )
        for token in piece.ids
    ]
    assert llm.tokenizer.decode(ids) == text[: text.index(text[4]) + 1]
