"""The compiled encoders against plain Python, and the kinds of vocabulary beside words."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import independent_reader
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_reference import encode_pairs, encode_words
from tokenizer_reference import pieces as reference_pieces

from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import GPTConfig
from cgpt.errors import CheckpointError, ConfigError, DataError
from cgpt.llm import LLM, load_model_auto
from cgpt.models.gpt2 import GPT
from cgpt.tokenizers import bpe
from cgpt.tokenizers._bpe import BytePairs, pieces
from cgpt.tokenizers._lattice import Lattice
from cgpt.tokenizers._merging import Merging
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.tokenizers.vocabulary import FIRST_WORD, RESERVED, SPECIAL_TOKENS

DATA = Path(__file__).parent / "data"
SAMPLES = Path(__file__).parents[2] / "shared" / "data"
TEXTS = [
    "山脉是高大的地形。山脉在长时间内形成，the range  is 1234567 m high.\n\n  GPT-2!",
    "月亮围绕地球运行，地球围绕太阳运行。😀😀 naïve café — “一心”…\u3000\u3000全角。\tx\r\n",
    "\0\x85\xa0 \u2028   a",
    "<eos> <eos> <0x41> <0x41>",
] * 3
letters = st.sampled_from("山脉月亮ab 1。\n\u3000😀é\ud800\0Z9—")
any_text = st.one_of(st.text(letters, max_size=80), st.text(st.characters(), max_size=40))
scores = st.one_of(st.floats(-30, 2), st.integers(-8, 0).map(float), st.just(-1 / 3))


@pytest.fixture(scope="module")
def pairs() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400, "bpe")


@given(
    st.dictionaries(
        st.text(letters.filter(lambda c: c != "\ud800"), min_size=1, max_size=5),
        scores,
        max_size=25,
    ),
    st.lists(any_text, max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_words_are_encoded_as_in_python(words: dict[str, float], texts: list[str]) -> None:
    tokenizer = Tokenizer([*words], [*words.values()])
    # Texts of the words themselves meet more ties and longer paths.
    for text in [*texts, "".join(words) * 2]:
        assert tokenizer.encode(text) == encode_words(words, text)


def test_long_pieces_grow_and_the_score_leaves_out_a_word() -> None:
    words = {"山": -1.0, "山山": -1.5, "山山山": -1.75}
    search = Lattice([*words], [*words.values()], -50.0)
    text = "山" * 5000
    assert list(memoryview(search.encode(text)).cast("i")) == [257] + [258] * 1666
    assert search.score(text) == -1.5 + 1666 * -1.75
    assert search.score("山山", 1) == -2.0 and search.score("山山") == -1.5
    assert search.score("é") == -100.0 and len(search) == 3
    with pytest.raises(ValueError, match="empty"):
        Lattice([""], [0.0], 0.0)
    with pytest.raises(ValueError, match="expected 1"):
        Lattice(["a"], [], 0.0)


@given(any_text)
@settings(max_examples=300, deadline=None)
def test_pieces_are_those_of_the_rule(text: str) -> None:
    assert pieces(text) == reference_pieces(text)
    assert b"".join(pieces(text)) == text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    "text",
    [
        " " * 100 + "a",
        "山" * 100,
        "1" * 10,
        "a  b",
        "  ",
        "。" * 70,
        " " * 32 + "a",
        " " * 33 + "a",
        " " * 31 + "a",
        "\n" * 32 + " a",
    ],
)
def test_pieces_at_their_longest(text: str) -> None:
    assert pieces(text) == reference_pieces(text)


@given(any_text)
@settings(max_examples=200, deadline=None)
def test_pairs_are_merged_as_in_python(text: str) -> None:
    tokenizer = _pairs()
    tokens = [bpe.token_of(name) for name in tokenizer.words[FIRST_WORD:]]
    ids = tokenizer.encode(text)
    assert ids == encode_pairs(tokens, text)
    assert tokenizer.decode(ids) == text
    decoder = tokenizer.decoder()
    assert "".join([*map(decoder.push, ids), decoder.flush()]) == text


def _pairs(found: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006  (made once)
    if not found:
        found.append(Tokenizer.train(TEXTS, 400, "bpe"))
    return found[0]


def slow_merges(texts: list[str], room: int) -> list[bytes]:
    """The most frequent pair of all, counted anew each time."""
    words = [[bytes([byte]) for byte in piece] for text in texts for piece in pieces(text)]
    rank = {bytes([byte]): byte for byte in range(256)}
    found: list[bytes] = []
    banned: set[tuple[bytes, bytes]] = set()
    while len(found) < room:
        counts: dict[tuple[bytes, bytes], int] = {}
        for parts in words:
            for pair in pairwise(parts):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(
            (
                (-times, rank[a], rank[b])
                for (a, b), times in counts.items()
                if (a, b) not in banned
            ),
            default=(0, 0, 0),
        )
        back = {number: token for token, number in rank.items()}
        a, b = back[best[1]], back[best[2]]
        if best[0] > -2:
            break
        if a + b in rank or bpe.name_of(a + b) in RESERVED:
            banned.add((a, b))
            continue
        rank[a + b] = 256 + len(found)
        found.append(a + b)
        for parts in words:
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == (a, b):
                    parts[place : place + 2] = [a + b]
                place += 1
    return found


@pytest.mark.parametrize("texts", [TEXTS, ["aaaaaaa aaa aa", "aaaa"], ["哈哈哈哈，哈哈"] * 2])
def test_merges_are_those_of_counting_anew(texts: list[str]) -> None:
    tokens = slow_merges(texts, 100)
    names = bpe.learn_pairs(texts, 100, frozenset(RESERVED))
    assert [bpe.token_of(name) for name in names] == tokens
    shuffled = texts[:]
    random.Random(3).shuffle(shuffled)
    assert bpe.learn_pairs(iter(shuffled), 100, frozenset(RESERVED)) == names


def test_no_pair_becomes_a_special_token(pairs: Tokenizer) -> None:
    assert not set(RESERVED) & set(pairs.words[FIRST_WORD:])
    for text in "<eos>", "<0x41>", "<user>":
        assert min(pairs.encode(text)) >= len(SPECIAL_TOKENS)
        assert pairs.decode(pairs.encode(text)) == text


def test_every_byte_has_a_name() -> None:
    every = bytes(range(256))
    assert bpe.token_of(bpe.name_of(every)) == every
    assert bpe.name_of(b"A~") == "A~" and bpe.name_of(b" \n") == "ĠĊ"  # as GPT-2 writes them
    with pytest.raises(ValueError, match="stands for no byte"):
        bpe.token_of("山")


def test_kernels_check_what_they_are_given() -> None:
    import numpy as np

    with pytest.raises(ValueError, match="two bytes"):
        BytePairs([b"a"])
    with pytest.raises(TypeError):
        BytePairs([]).encode(b"a")  # type: ignore[arg-type]
    symbols = np.array([1, 2], np.int32)
    links, times = np.empty((5, 2), np.int32), np.array([1])
    with pytest.raises(ValueError, match="closed"):
        Merging(symbols, np.zeros(2, np.int32), times, links)
    symbols[1] = -1
    with pytest.raises(ValueError, match="owner"):
        Merging(symbols, np.array([0, 1], np.int32), times, links)
    with pytest.raises(ValueError, match="places"):
        Merging(symbols, np.zeros(3, np.int32), times, links)


def test_characters_alone() -> None:
    tokenizer = Tokenizer.train(TEXTS, 300, "chars")
    assert tokenizer.kind == "chars" and len(tokenizer) == 300
    assert all(len(word) == 1 for word in tokenizer.words[FIRST_WORD:])
    for text in [*TEXTS, "龘\ud800"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("山脉")) == 2
    # The most frequent come first, and the rarest stay bytes.
    assert Tokenizer.train(["的" * 4999 + "甲乙"], 400, "chars").words[FIRST_WORD:] == ["的"]


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_kinds_are_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(TEXTS, 320, kind)
    state = json.loads(json.dumps(tokenizer.to_state()))
    assert Tokenizer.from_state(state).fingerprint() == tokenizer.fingerprint()
    config = GPTConfig(n_layer=1, n_head=1, n_embd=2, n_ff=2, block_size=4, vocab_size=320)
    llm = LLM(tokenizer, GPT(config))
    for save, name in (save_model_binary, "m.bin"), (save_model_json, "m.json"):
        save(llm, tmp_path / name)
        loaded = load_model_auto(tmp_path / name).tokenizer
        assert loaded.to_state() == tokenizer.to_state()
        assert [loaded.encode(text) for text in TEXTS] == [*map(tokenizer.encode, TEXTS)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiny_v1_bpe.bin", "bpe"),
        ("tiny_v1_bpe.json", "bpe"),
        ("tiny_v1_chars.bin", "chars"),
        ("tiny_v1.bin", "words"),
    ],
)
def test_kinds_in_files_of_long_ago(name: str, kind: str) -> None:
    if name.endswith(".bin"):
        found = independent_reader.read(str(DATA / name))
        assert found.tokenizer == {"kind": kind}
        # A reader that knows no kinds must not take byte pairs for words.
        assert [entry.flags for entry in found.entries if entry.kind == 7] == {
            "bpe": [0],
            "chars": [1],
            "words": [],
        }[kind]
    tokenizer = load_model_auto(DATA / name).tokenizer
    assert tokenizer.kind == kind
    if kind == "bpe":
        assert tokenizer.encode("山山水") == [263, 263, 265]
        assert tokenizer.decode([263, 265, 262]) == "山水\ufffd"


def test_a_kind_of_a_later_version_is_told(tmp_path: Path) -> None:
    text = (DATA / "tiny_v1_bpe.json").read_text("utf-8")
    assert '"kind": "bpe"' in text
    other = text.replace('"kind": "bpe"', '"kind": "xyz", "scores": []')
    other = other[: other.rindex(',\n"text_crc32"')] + "}" if '"text_crc32"' in other else other
    path = tmp_path / "other.json"
    path.write_text(other.replace('{"format"', '{ "format"', 1), "utf-8")
    with pytest.raises(CheckpointError):
        load_model_auto(path)


@pytest.mark.parametrize(
    ("kind", "words", "match"),
    [
        ("chars", ["山水"], "one character"),
        ("bpe", ["山山"], "stand for bytes"),
        ("bpe", ["a"], "two bytes"),
        ("xyz", [], "unknown kind"),
    ],
)
def test_bad_words_of_a_kind_are_refused(kind: str, words: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        Tokenizer.from_state({"kind": kind, "words": words, "scores": [0.0] * len(words)})


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="words, chars, bpe"):
        Tokenizer.train(TEXTS, 300, "sentencepiece")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/data")
def test_sample_text_is_encoded_as_in_python() -> None:
    texts = json.loads((SAMPLES / "pretraining_fantasy.json").read_text("utf-8"))
    tokenizer = Tokenizer.train(texts, 3000)
    state = tokenizer.to_state()
    words = dict(zip(state["words"], state["scores"], strict=True))
    assert all(tokenizer.encode(text) == encode_words(words, text) for text in texts[:400])
    pairs = Tokenizer.train(texts, 3000, "bpe")
    tokens = [bpe.token_of(name) for name in pairs.words[FIRST_WORD:]]
    assert all(pairs.encode(text) == encode_pairs(tokens, text) for text in texts[:60])
    assert sum(len(pairs.encode(text)) for text in texts) < sum(map(len, texts))
