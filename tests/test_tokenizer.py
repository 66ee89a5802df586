"""The tokenizer: lossless for every string, no dead words, the same vocabulary everywhere."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt.errors import ConfigError, DataError
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.tokenizers.vocabulary import (
    FIRST_BYTE,
    FIRST_WORD,
    LONGEST_WORD,
    SPECIAL_TOKENS,
    _count,
    _jieba_cut,
    _learn,
)

TEXTS = [
    "山脉是高大而多岩石的地形。山脉通过构造力或火山活动在长时间的地质时期内形成。",
    "月亮围绕地球运行，地球围绕太阳运行。月亮的光来自太阳。",
    "1949年10月1日，中华人民共和国成立。1949年以前的历史很长。电话号码是13800138000。",
    "Python 是一种编程语言。Python 很容易学。\n\n  GPT-2 model, GPT-2 model.\r\n",
    "水在标准大气压下于100摄氏度沸腾。“一心一意”的意思是专一。一心一意！",
    "中华人民共和国的首都是北京。北京的历史很长，北京的冬天很冷。",
] * 2
SPECIAL_LOOKING = ["<eos>", "<pad>", "<user>你好<assistant>", "<0x41>", "<0x0A><bos>", "<system>"]
HARD = [
    "",
    "\0",
    "a\0b",
    "\r\n",
    "\n\r\n\n",
    " \t  ",
    "\ufeff",
    "\ufffd",
    "\ud800",
    "\udfff\ud800",
    "山\ud83d\ude00脉",
    "😀",
    "👩‍👩‍👧‍👦",
    "🇨🇳",
    "é",
    "e\u0301",
    "㐀䶿",
    "𠀀𪛖",
    "龘" * 50,
    "\u2028",
    "山脉" * 200,
    "1" * 60,
    "\U0010ffff",
    *SPECIAL_LOOKING,
]
any_text = st.text(st.characters(), max_size=60)  # includes lone surrogates
chinese = st.text(st.sampled_from(sorted(set("".join(TEXTS)))), max_size=60)


_cut = functools.cache(_jieba_cut)


@pytest.fixture(autouse=True)
def one_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """jieba's dictionary takes a second to read: once for all tests here."""
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", _cut)


@functools.cache
def _small() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocab_size=500)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return _small()


@pytest.fixture
def reloaded(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_state(json.loads(json.dumps(tokenizer.to_state())))


def best_score(tokenizer: Tokenizer, text: str) -> float:
    """The best path's score by trying every word at every place, without any shortcut."""
    state = tokenizer.to_state()
    scores = dict(zip(state["words"], state["scores"], strict=True))
    byte = min(scores.values()) - 16.0
    best = [0.0] + [-math.inf] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(end):
            word = text[start:end]
            score = scores.get(word, -math.inf)
            if len(word) == 1 and word not in scores:
                score = byte * len(word.encode("utf-8", "surrogatepass"))
            best[end] = max(best[end], best[start] + score)
    return best[-1]


def decoded(data: bytes) -> str:
    """As errors="replace", but encoded lone surrogates give the surrogate."""
    parts = re.split(rb"(\xed[\xa0-\xbf][\x80-\xbf])", data)
    return "".join(
        part.decode(errors="surrogatepass" if i % 2 else "replace") for i, part in enumerate(parts)
    )


def path_score(tokenizer: Tokenizer, ids: list[int]) -> float:
    scores = tokenizer.to_state()["scores"]
    return sum(
        min(scores) - 16.0 if token < FIRST_WORD else scores[token - FIRST_WORD] for token in ids
    )


@pytest.mark.parametrize("text", HARD)
def test_hard_strings_come_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(FIRST_BYTE <= token < len(tokenizer) for token in ids)


@given(st.one_of(any_text, chinese))
@settings(max_examples=300, deadline=None)
def test_every_string_comes_back(text: str) -> None:
    tokenizer = _small()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(FIRST_BYTE <= token < len(tokenizer) for token in ids)


@given(st.one_of(chinese, any_text))
@settings(max_examples=100, deadline=None)
def test_the_path_is_the_most_probable(text: str) -> None:
    tokenizer = _small()
    # Scores are multiples of 2**-20, so the sums are exact.
    assert path_score(tokenizer, tokenizer.encode(text)) == best_score(tokenizer, text)


def test_layout_of_ids(tokenizer: Tokenizer) -> None:
    words = tokenizer.words
    assert tuple(words[:6]) == SPECIAL_TOKENS
    assert words[6] == "<0x00>" and words[261] == "<0xFF>"
    assert [
        tokenizer.pad_id,
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.user_id,
        tokenizer.assistant_id,
        tokenizer.system_id,
    ] == list(range(6))
    assert len(words) == len(tokenizer) <= 500
    words.append("x")
    assert len(tokenizer.words) == len(tokenizer)


def test_words_are_learnt(tokenizer: Tokenizer) -> None:
    words = set(tokenizer.words)
    assert {"山脉", "地球", "北京", "中华人民共和国", "1949", "Python", "一心一意"} <= words
    assert [tokenizer.words[token] for token in tokenizer.encode("山脉在北京")] == [
        "山脉",
        "在",
        "北京",
    ]


@pytest.mark.parametrize("size", [FIRST_WORD + 1, 300, 350, 8192])
def test_no_word_is_dead_and_no_size_is_passed(size: int) -> None:
    tokenizer = Tokenizer.train(TEXTS, vocab_size=size)
    assert len(tokenizer) <= size
    if size <= 350:
        assert len(tokenizer) == size  # filled up
    for number, word in enumerate(tokenizer.words[FIRST_WORD:], FIRST_WORD):
        assert tokenizer.encode(word) == [number]


def test_words_rarer_than_chance_make_way() -> None:
    # "和的" is no word: its parts are more probable, so it must not take a row.
    units = Counter({"和": 500, "的": 500, "和的": 2, "山脉": 2, "山": 1, "脉": 1})
    scores = _learn(units, Counter({"和": 502, "的": 502, "山": 3, "脉": 3}), 100)
    assert "山脉" in scores and "和的" not in scores


def test_dead_words_that_stay_are_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._ROUNDS", 0)  # as if the rounds were used up
    units = Counter({"和": 500, "的": 500, "和的": 2, "的和的": 2})
    scores = _learn(units, Counter({"和": 504, "的": 506}), 100)
    tokenizer = Tokenizer([*scores], [*scores.values()])
    assert tokenizer.encode("和的") == [FIRST_WORD + [*scores].index("和的")]
    assert tokenizer.encode("的和的") == [FIRST_WORD + [*scores].index("的和的")]


def test_words_are_clean(tokenizer: Tokenizer) -> None:
    for word in tokenizer.words[FIRST_WORD:]:
        assert len(word) == 1 or (word.strip() == word and not any(map(str.isspace, word)))
        assert len(word) <= LONGEST_WORD
        assert not (word.isdigit() and len(word) > 4)
    assert "13800138000" not in tokenizer.words
    assert len(tokenizer.encode("13800138000")) > 1


@pytest.mark.parametrize("text", SPECIAL_LOOKING)
def test_text_never_becomes_a_special_token(text: str) -> None:
    tokenizer = Tokenizer.train([text * 20, "你好"], vocab_size=400)
    ids = tokenizer.encode(text)
    assert len(ids) > 1 and min(ids) >= FIRST_BYTE
    assert 0x41 + FIRST_BYTE not in tokenizer.encode("<0x41>")
    assert not set(SPECIAL_TOKENS) & set(tokenizer.words[FIRST_WORD:])


def test_order_of_texts_does_not_matter(tokenizer: Tokenizer) -> None:
    shuffled = TEXTS[:]
    random.Random(1).shuffle(shuffled)
    assert Tokenizer.train(iter(shuffled), vocab_size=500).to_state() == tokenizer.to_state()
    assert Tokenizer.train(TEXTS[:-1], vocab_size=500).to_state() != tokenizer.to_state()
    # Equal counts: at the end of a small vocabulary, and where the rarest characters stay bytes.
    rare = ["的" * 4999, *"甲乙丙丁戊己庚辛"]
    for texts, size in (TEXTS, 290), (TEXTS, 340), (rare, 500):
        states = [
            Tokenizer.train(order, vocab_size=size).to_state() for order in (texts, texts[::-1])
        ]
        assert states[0] == states[1]
    assert states[0]["words"] == [*"的丁丙乙己庚戊"]


def test_words_of_equal_count_go_by_their_characters() -> None:
    words = ["山水", "水山", "高山"]
    for order in words, words[::-1]:
        scores = _learn(Counter(dict.fromkeys(order, 9)), Counter("山水高" * 12), 5)
        assert [*scores] == ["山", "水", "高", "山水", "水山"]


def test_a_small_vocabulary_prefers_characters() -> None:
    # A character saves two bytes a time, a word one character: 5 * 2 > 8.
    scores = _learn(Counter({"山水": 8, "龘": 5}), Counter("山水" * 8 + "龘" * 5), 3)
    assert [*scores] == ["山", "水", "龘"]


def test_learning_is_silent_and_private_and_does_not_depend_on_hashes(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "jieba.cache").write_bytes(b"not marshal data")
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); "
        "from cgpt.tokenizers.tokenizer import Tokenizer; "
        "print('jieba' in sys.modules); texts = json.load(sys.stdin); "
        "print(json.dumps(Tokenizer.train(texts, vocab_size=500).to_state()))"
    )
    root = str(Path(__file__).resolve().parent.parent)
    for seed in "1", "2":
        run = subprocess.run(
            [sys.executable, "-c", code, root],
            input=json.dumps(TEXTS),
            text=True,
            capture_output=True,
            check=True,
            cwd=tmp_path,
            timeout=60,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONHASHSEED": seed},
        )
        loaded, state = run.stdout.splitlines()
        assert loaded == "False"  # jieba is imported where it is needed only
        assert run.stderr == ""
        assert json.loads(state) == tokenizer.to_state()
    assert [file.name for file in tmp_path.iterdir()] == ["jieba.cache"]
    assert (tmp_path / "jieba.cache").read_bytes() == b"not marshal data"


def test_state_is_enough_without_jieba(
    tokenizer: Tokenizer, reloaded: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    assert reloaded.words == tokenizer.words
    assert reloaded.to_state() == tokenizer.to_state()
    for text in TEXTS + HARD:
        assert reloaded.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("scores"),
        lambda s: s["words"].append("新"),
        lambda s: s.update(words="abc"),
        lambda s: (s["words"].append(s["words"][0]), s["scores"].append(-1.0)),
        lambda s: s["words"].__setitem__(0, ""),
        lambda s: s["words"].__setitem__(0, 7),
        lambda s: s["words"].__setitem__(0, "x" * 65),
        lambda s: s["words"].__setitem__(0, "\ud800"),
        lambda s: s["words"].__setitem__(0, "<eos>"),
        lambda s: s["words"].__setitem__(0, "<0x41>"),
        lambda s: s["scores"].__setitem__(0, math.nan),
        lambda s: s["scores"].__setitem__(0, -1e308),
        lambda s: s["scores"].__setitem__(0, "-1"),
        lambda s: s["scores"].__setitem__(0, True),
        lambda s: s["scores"].__setitem__(0, -math.inf),
    ],
)
def test_a_bad_state_is_refused(tokenizer: Tokenizer, change) -> None:
    state = tokenizer.to_state()
    change(state)
    with pytest.raises(DataError, match="saved vocabulary"):
        Tokenizer.from_state(state)


@pytest.mark.parametrize("state", [None, [], {}, {"words": []}])
def test_a_foreign_state_is_refused(state: object) -> None:
    with pytest.raises(DataError, match="saved vocabulary"):
        Tokenizer.from_state(state)  # type: ignore[arg-type]


def test_bytes_alone_are_enough() -> None:
    tokenizer = Tokenizer.from_state({"words": [], "scores": []})
    assert tokenizer.encode("山A") == [FIRST_BYTE + byte for byte in "山A".encode()]
    assert tokenizer.decode(tokenizer.encode("\ud800山")) == "\ud800山"


@given(
    st.one_of(
        st.binary(max_size=24),
        st.lists(
            st.sampled_from([b"\xed", b"\xa0", b"\x80", b"\xe5", b"\xf0\x9f", b"A"]), max_size=12
        ).map(b"".join),
    )
)
@settings(max_examples=300, deadline=None)
def test_bytes_decode_as_python_decodes_them(data: bytes) -> None:
    assert _small().decode([FIRST_BYTE + byte for byte in data]) == decoded(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf\xe5",
        b"\xed\xa0",
        b"\xed",
        b"\xed\xa0\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xf0\x9f\x98\x80",
    ],
)
def test_surrogates_in_bytes(tokenizer: Tokenizer, data: bytes) -> None:
    ids = [FIRST_BYTE + byte for byte in data]
    expected = {
        b"\xed\xa0\x80": "\ud800",
        b"\xed\xbf\xbf\xe5": "\udfff\ufffd",
        b"\xed\xa0\xed\xa0\x80": "\ufffd\ufffd\ud800",
    }
    assert tokenizer.decode(ids) == expected.get(data, data.decode(errors="replace"))


@given(
    st.lists(
        st.one_of(
            st.integers(0, 400),
            st.sampled_from([FIRST_BYTE + byte for byte in "山😀é".encode() + b"\xed\xa0\x80\xff"]),
        ),
        max_size=30,
    )
)
@settings(max_examples=300, deadline=None)
def test_streaming_gives_whole_characters_and_equals_decode(ids: list[int]) -> None:
    tokenizer = _small()
    ids = [token % len(tokenizer) for token in ids]
    decoder = tokenizer.decoder()
    text = "".join([*map(decoder.push, ids), decoder.flush()])
    # Independent of the decoder's pieces: all bytes at once.
    data = b"".join(
        bytes([token - FIRST_BYTE]) if token < FIRST_WORD else tokenizer.words[token].encode()
        for token in ids
        if token >= FIRST_BYTE
    )
    assert text == tokenizer.decode(ids) == decoded(data)


def test_streaming_waits_for_the_rest(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    pushed = [decoder.push(FIRST_BYTE + byte) for byte in "龘😀".encode()]
    assert pushed == ["", "", "龘", "", "", "", "😀"]
    mountain = tokenizer.words.index("山脉")
    assert decoder.push(FIRST_BYTE + 0xE5) == ""
    assert decoder.push(tokenizer.eos_id) == ""
    assert decoder.push(mountain) == "\ufffd山脉"
    assert decoder.flush() == "" and decoder.push(FIRST_BYTE + 0xE5) == ""
    assert decoder.flush() == "\ufffd" and decoder.flush() == ""


def test_decode_skips_specials_and_checks_ids(tokenizer: Tokenizer) -> None:
    import numpy as np

    ids = tokenizer.encode("月亮")
    assert tokenizer.decode([1, 3, *ids, 2, 0]) == "月亮"
    assert tokenizer.decode(np.array(ids, dtype=np.int32)) == "月亮"
    for bad in -1, len(tokenizer), 1.5, "a", None:
        with pytest.raises(DataError, match=r"token id"):
            tokenizer.decode([bad])  # type: ignore[list-item]


@pytest.mark.parametrize("size", [0, -5, 262, True, 300.0, "300"])
def test_bad_vocabulary_sizes(size: object) -> None:
    with pytest.raises(ConfigError, match="vocab_size"):
        Tokenizer.train(TEXTS, vocab_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("texts", [[], [""], ["你好", 3], "你好", [b"abc"]])
def test_texts_that_cannot_be_learnt_from(texts: object) -> None:
    with pytest.raises(DataError, match=r"Tokenizer\.train"):
        Tokenizer.train(texts)  # type: ignore[arg-type]


def test_only_strings_are_encoded(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="expected a str"):
        tokenizer.encode(b"abc")  # type: ignore[arg-type]


def test_odd_texts_can_be_learnt_from() -> None:
    texts = ["\ud800\udfff", "\r\n\r\n", "ab" * 300, "—" * 40 + "..." * 40, "\0\0", "1" * 500]
    tokenizer = Tokenizer.train(texts, vocab_size=400)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer.to_state()["words"][0].encode("utf-8")  # surrogates stay bytes


def test_a_text_without_a_break_is_cut_in_parts() -> None:
    """jieba's time grows with the square of what it gets at once; no text has to wait for that."""
    given: list[str] = []

    def cut(text: str) -> list[str]:
        given.append(text)
        return [text[:2], *text[2:]]

    units, characters = _count(["山" * 10_000, "山水"], cut)
    assert "".join(given) == "山" * 10_000 + "山水" and max(map(len, given)) < 5_000
    assert characters == {"山": 10_001, "水": 1} and units["山水"] == 1
