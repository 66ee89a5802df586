"""What applications do with a vocabulary: save it, compare it, look tokens up, see the specials."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import TEXTS, small_llm, small_tokenizer

from cgpt.checkpoint.saving import save_model_binary
from cgpt.errors import CgptError, CheckpointError, ConfigError, DataError
from cgpt.tokenizers.rustgpt import SPECIAL
from cgpt.tokenizers.tokenizer import RustTokenizer, Tokenizer
from cgpt.tokenizers.vocabulary import FIRST_WORD, SPECIAL_TOKENS


def rust() -> RustTokenizer:
    words = [*SPECIAL, "用户", "：", "助手", "长江", "river"]
    return RustTokenizer.from_state({"words": words, "scores": [None] * 7 + [-1.0] * 5})


def bpe() -> Tokenizer:
    return Tokenizer.train([*TEXTS, "the river the river"], 300, "bpe")


MAKERS = [small_tokenizer, bpe, rust]


@pytest.mark.parametrize("make", MAKERS)
def test_saved_and_loaded(make: Any, tmp_path: Path) -> None:
    tokenizer = make()
    path = tokenizer.save(tmp_path / "words.json")
    assert path == tmp_path / "words.json"
    assert path.read_bytes() == tokenizer.save(tmp_path / "other.json").read_bytes()
    found = Tokenizer.load(str(path))
    assert found == tokenizer and type(found) is type(tokenizer)
    assert hash(found) == hash(tokenizer) and len({found, tokenizer}) == 1


def test_the_vocabulary_of_a_model_is_loaded(tmp_path: Path) -> None:
    path = save_model_binary(small_llm(), tmp_path / "m.bin")
    assert Tokenizer.load(path) == small_tokenizer()


@pytest.mark.parametrize(("name", "code"), [("none.json", "missing"), ("bad.json", "foreign")])
def test_what_cannot_be_loaded_is_told(name: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError) as info:
        Tokenizer.load(tmp_path / name)
    assert info.value.code == code
    with pytest.raises(CheckpointError):
        small_tokenizer().save(tmp_path)


def test_equality_is_of_what_ids_follow_from() -> None:
    state = small_tokenizer().to_state()
    assert small_tokenizer() == small_tokenizer() == copy.copy(small_tokenizer())
    others = [
        {**state, "words": state["words"][::-1]},
        {**state, "kind": "chars"},
        {**state, "scores": [-1.0, *state["scores"][1:]]},
        {"words": state["words"][:-1], "scores": state["scores"][:-1]},
    ]
    for other in others:
        assert Tokenizer.from_state(other) != small_tokenizer()
    assert small_tokenizer() != rust() and small_tokenizer() != "a tokenizer"


@pytest.mark.parametrize("make", MAKERS)
def test_names_and_ids(make: Any) -> None:
    tokenizer = make()
    assert tokenizer.vocab == {name: id for id, name in enumerate(tokenizer.words)}
    assert len(tokenizer.vocab) == len(tokenizer)
    for id in (0, 3, len(tokenizer) - 1):
        name = tokenizer.id_to_token(np.int64(id))
        assert name == tokenizer.words[id] and tokenizer.token_to_id(np.str_(name)) == id
        assert type(name) is str
    assert tokenizer.token_to_id("no such token") is None
    tokenizer.vocab.clear()
    assert tokenizer.vocab


def test_names_of_the_kinds() -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.token_to_id("<eos>") == tokenizer.eos_id == 2
    assert tokenizer.id_to_token(6) == "<0x00>" and tokenizer.token_to_id("<0xFF>") == 261
    assert tokenizer.encode("长") == [tokenizer.token_to_id("长")]
    assert bpe().encode("the") == [bpe().token_to_id("the")] != [None]
    assert rust().token_to_id("</s>") == rust().eos_id


@pytest.mark.parametrize("make", MAKERS)
def test_specials_are_shown_or_skipped(make: Any) -> None:
    tokenizer = make()
    bos, eos = tokenizer.id_to_token(tokenizer.bos_id), tokenizer.id_to_token(tokenizer.eos_id)
    ids = [tokenizer.bos_id, *tokenizer.encode("长江"), tokenizer.eos_id, tokenizer.eos_id]
    assert tokenizer.decode(ids) == tokenizer.decode(ids, specials=False) == "长江"
    assert tokenizer.decode(ids, specials=True) == f"{bos}长江{eos}{eos}"
    decoder = tokenizer.decoder(specials=True)
    assert "".join(map(decoder.push, ids)) + decoder.flush() == f"{bos}长江{eos}{eos}"
    assert tokenizer.encode(f"{bos}长江{eos}{eos}", specials=True) == ids
    assert tokenizer.eos_id not in tokenizer.encode(f"{bos}长江{eos}")
    assert tokenizer.encode("长江", specials=True) == tokenizer.encode("长江")


def test_half_a_character_before_a_special() -> None:
    tokenizer = small_tokenizer()
    ids = [*tokenizer.encode("é")[:1], tokenizer.eos_id, *tokenizer.encode("长")]
    assert tokenizer.decode(ids, specials=True) == "\ufffd<eos>长"


@pytest.mark.parametrize("make", MAKERS)
def test_ids_come_as_anything_that_gives_them(make: Any) -> None:
    tokenizer = make()
    ids = tokenizer.encode("长江")
    for given in (
        tuple(ids),
        iter(ids),
        np.array(ids),
        np.array(ids, np.uint16),
        map(int, ids),
        np.array(ids, object),
        [np.int8(0), *map(np.int64, ids)],
    ):
        assert tokenizer.decode(given) == "长江"
    assert tokenizer.decode([]) == tokenizer.decode(np.array([])) == ""


@pytest.mark.parametrize(
    "ids",
    [
        5,
        None,
        "12",
        b"12",
        bytearray(b"1"),
        {1: 2},
        [1.0],
        [None],
        ["1"],
        [[1]],
        [True],
        [-1],
        [10**6],
        [10**400],
        np.zeros((1, 2), np.int32),
        np.array(5),
        np.array([1.5]),
        object(),
    ],
)
def test_what_are_no_ids_is_told(ids: Any) -> None:
    for tokenizer in (small_tokenizer(), rust()):
        with pytest.raises(DataError, match=r"token id|Tokenizer\.decode"):
            tokenizer.decode(ids)


class Text(str):
    """As an application may have it."""


@pytest.mark.parametrize("make", MAKERS)
def test_texts_come_as_any_str(make: Any) -> None:
    tokenizer = make()
    wanted = tokenizer.encode("长江")
    assert tokenizer.encode(Text("长江")) == tokenizer.encode(np.str_("长江")) == wanted
    assert np.frombuffer(tokenizer.encode_bytes(Text("长江")), np.int32).tolist() == wanted
    for texts in (
        ["长江", Text("长江")],
        ("长江", np.str_("长江")),
        iter(["长江"] * 2),
        np.array(["长江", "长江"]),
    ):
        ids, counts = tokenizer.encode_many(texts)
        assert ids.tolist() == wanted * 2 and counts.tolist() == [len(wanted)] * 2


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["a"], object(), 1.5])
def test_what_is_no_text_is_told(wrong: Any) -> None:
    for tokenizer in (small_tokenizer(), rust()):
        for call in (tokenizer.encode, tokenizer.encode_bytes, tokenizer.token_to_id):
            with pytest.raises(DataError, match=rf"Tokenizer\.{call.__name__}: expected a str"):
                call(wrong)
        with pytest.raises(DataError, match=r"encode_many.*texts\[1\]"):
            tokenizer.encode_many(["a", wrong])
    for texts in ("ab", b"ab", None, 3, {"a": 1}):
        with pytest.raises(DataError, match="encode_many"):
            small_tokenizer().encode_many(texts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((None,), DataError, "a list of strings, found None"),
        ((3,), DataError, "found 3"),
        (("ab",), DataError, "found one string"),
        ((["a", 3],), DataError, "text 2 is not a str"),
        ((["a"], "9"), ConfigError, "vocab_size must be a whole"),
        ((["a"], 262), ConfigError, "at least 263"),
        ((["a"], True), ConfigError, "whole number"),
        ((["a"], 300, "letters"), ConfigError, "unknown kind"),
        ((["a"], 300, None), ConfigError, "unknown kind"),
        ((["a"], 300, ["bpe"]), ConfigError, "unknown kind"),
    ],
)
def test_what_cannot_be_learnt_is_told(arguments: Any, kind: type[CgptError], message: str) -> None:
    with pytest.raises(kind, match=message):
        Tokenizer.train(*arguments)


def test_training_takes_numpy_values() -> None:
    found = Tokenizer.train(np.array(TEXTS), np.int64(300), np.str_("chars"))
    assert found == Tokenizer.train(TEXTS, 300, "chars")
    assert all(type(word) is str for word in found.words)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, None),
        (["a"], None),
        (["a"], []),
        (["ab"], [0.0], "chars"),
        (["a"], ["x"]),
        ([3], [0.0]),
        (["a"], [0.0], "letters"),
        (["a", "a"], [0.0, 0.0]),
        ("ab", [0.0, 0.0]),
    ],
)
def test_a_vocabulary_that_cannot_be_is_told(arguments: Any) -> None:
    with pytest.raises(DataError, match="saved vocabulary"):
        Tokenizer(*arguments)


def test_the_specials_are_where_they_were() -> None:
    assert small_tokenizer().words[:FIRST_WORD][:6] == list(SPECIAL_TOKENS)
