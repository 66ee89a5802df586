"""`cgpt tokenizer train`, `encode`, `inspect`, and `cgpt train --tokenizer`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Counted

from cgpt.cli import main
from cgpt.errors import CheckpointError
from cgpt.llm import load_model_auto
from cgpt.tokenizers.tokenizer import Tokenizer

TEXTS = [
    "山脉是高大的地形，山脉很长。",
    "月亮围绕地球运行，地球围绕太阳运行。",
    "GPT-2 is a model.",
] * 3
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts."""
    monkeypatch.chdir(tmp_path)
    for name in ("CGPT_LANG", "CGPT_TOKENIZER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    return tmp_path


def found(capsys: Captured, *args: str) -> dict:
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_train_encode_inspect(kind: str, capsys: Captured) -> None:
    made = found(
        capsys,
        "tokenizer",
        "train",
        "a.json",
        "--kind",
        kind,
        "--vocab-size",
        "300",
        "--out",
        "t.json",
    )
    tokenizer = Tokenizer.load("t.json")
    assert made["kind"] == tokenizer.kind == kind and made["tokens"] == len(tokenizer) <= 300
    assert made["text_tokens"] == sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert made["text_characters"] == sum(map(len, TEXTS))
    encoded = found(capsys, "tokenizer", "encode", "t.json", "月亮 A龘")
    assert encoded["ids"] == tokenizer.encode("月亮 A龘") and encoded["characters"] == 5
    looked = found(capsys, "tokenizer", "inspect", "t.json", "a.json")
    assert {key: looked[key] for key in ("tokens", "text_tokens", "unused", "lengths")} == {
        key: made[key] for key in ("tokens", "text_tokens", "unused", "lengths")
    }
    for language in "zh", "en":
        assert main(["--lang", language, "tokenizer", "inspect", "t.json", "a.json"]) == 0
    shown = capsys.readouterr().out
    assert "种类" in shown and "characters a token" in shown


def test_encode_reads_stdin_and_shows_blanks(
    capsys: Captured, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    Tokenizer.train(TEXTS, 400, "chars").save(place / "t.json")
    monkeypatch.setattr("sys.stdin", io.StringIO("月 \n"))
    assert main(["tokenizer", "encode", "t.json"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in shown] == ["月", "␣", "⏎"]


def test_a_model_is_trained_with_any_kind_or_a_saved_vocabulary(
    capsys: Captured, place: Path
) -> None:
    common = [
        "train",
        "--pretrain",
        "a.json",
        "--preset",
        "tiny",
        "--max-steps",
        "1",
        "--pretrain-epochs",
        "1",
        "--overwrite",
    ]
    assert main([*common, "--tokenizer", "bpe", "--vocab-size", "280", "--out", "b.bin"]) == 0
    model = load_model_auto("b.bin")
    assert model.tokenizer.kind == "bpe" and model.config.vocab_size == 280
    assert model.training_state.run["tokenizer"] == "bpe"
    for source in "b.bin", "t.json":
        if source == "t.json":
            model.tokenizer.save(place / source)
        assert main([*common, "--tokenizer", source, "--out", "c.json"]) == 0
        again = load_model_auto("c.json")
        assert again.tokenizer.to_state() == model.tokenizer.to_state()
    capsys.readouterr()
    assert main([*common, "--tokenizer", "sentencepiece"]) == 1
    assert "tokenizer" in capsys.readouterr().err
    assert main(["tokenizer"]) == 2 and "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text[:-20], "damaged"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version"),
        (lambda text: text.replace('"kind": "chars"', '"kind": "xyz"'), "damaged"),
        (lambda text: '{"a": 1}', "foreign"),
        (lambda text: "", "damaged"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_told(change, code: str, place: Path) -> None:
    path = place / "t.json"
    Tokenizer.train(TEXTS, 400, "chars").save(path)
    path.write_text(change(path.read_text()), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(path)
    assert caught.value.code == code


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_every_flipped_bit_of_a_vocabulary_is_noticed(
    kind: str, tmp_path: Path, counted: Counted
) -> None:
    """Or says the same, as \\u4F60 does where \\u4f60 was written."""
    words, scores = {"words": (["山", "长江"], [-1.5, -1e-07]), "bpe": (["ab"], [0.0])}[kind]
    tokenizer = Tokenizer.from_state({"words": words, "scores": scores, "kind": kind})
    path = tokenizer.save(tmp_path / "t.json")
    whole, same = path.read_bytes(), 0
    for at, byte in enumerate(whole):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([byte ^ 1 << bit]) + whole[at + 1 :])
            try:
                assert Tokenizer.load(path).to_state() == tokenizer.to_state(), (at, bit)
                same += 1
            except CheckpointError as error:
                assert error.code in ("damaged", "version", "foreign")
    assert same < 20
    counted("flipped bits of a vocabulary's file", 8 * len(whole))
    without = json.loads(whole)
    del without["crc32"]
    path.write_text(json.dumps(without), encoding="ascii")
    assert Tokenizer.load(path).to_state() == tokenizer.to_state()
