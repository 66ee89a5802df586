"""Rows and files as people have them: other keys, roles, parts, tools, packed files, tables."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import asked_for

from cgpt.cli import main
from cgpt.config import RunConfig
from cgpt.corpus import files, reader, table_rows, text_rows, token_cache
from cgpt.corpus.inputs import as_documents
from cgpt.corpus.invalid_rows import InvalidRowsError
from cgpt.corpus.reader import Reading, data_size, read_corpus
from cgpt.corpus.records import CHANGES, FAULTS, Message, Unusable, read_item
from cgpt.corpus.sources import Source
from cgpt.errors import CgptWarning, DataError
from cgpt.training.config_file import load_toml
from cgpt.training.recipe import split_by_kind


def turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    first = (Message("system", system),) if system else ()
    return first + tuple(
        Message("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)
    )


def spoken(*pairs: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **more}


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
RESULT = {"role": "tool", "content": "20 °C"}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (spoken(("User", "a"), ("ASSISTANT", "b")), turns("a", "b")),
        (spoken((" Human ", "a"), ("Gpt", "b")), turns("a", "b")),
        (
            spoken(("developer", "s"), ("user", "a"), ("assistant", "b")),
            turns("a", "b", system="s"),
        ),
        (spoken(("System", "s"), ("user", "a"), ("assistant", "b")), turns("a", "b", system="s")),
        (
            spoken(
                ("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "c"}]),
                ("assistant", [{"type": "text", "text": "b"}]),
            ),
            turns("a\nc", "b"),
        ),
        (spoken(("user", ["a", {"text": "c"}]), ("assistant", "b")), turns("a\nc", "b")),
        ({"prompt": "a", "completion": "b"}, turns("a", "b")),
        (
            {
                "prompt": [{"role": "user", "content": "a"}],
                "completion": [{"role": "assistant", "content": "b"}],
            },
            turns("a", "b"),
        ),
        ({"question": "a", "answer": "b"}, turns("a", "b")),
        ({"query": "a", "response": "b"}, turns("a", "b")),
        ({"input": "a", "output": "b"}, turns("a", "b")),
        ({"prompt": "a", "response": "b", "id": 7}, turns("a", "b")),
        ({"instruction": "a", "context": "c", "response": "b"}, turns("a\nc", "b")),
        ({"system_prompt": "s", "question": "a", "response": "b"}, turns("a", "b", system="s")),
        ({"question": "a", "answer": "b", "history": [["x", "y"]]}, turns("x", "y", "a", "b")),
        ({"instruction": "a", "input": None, "output": "b", "system": None}, turns("a", "b")),
        ({"content": "山"}, "山"),
        ({"text": "山", "question": "a", "answer": "b"}, "山"),
        ({"content": " "}, None),
    ],
)
def test_forms(item: dict[str, Any], expected: Any) -> None:
    changes: dict[str, int] = {}
    assert read_item(item, changes=changes) == expected and not changes


@pytest.mark.parametrize(
    ("item", "expected", "changed"),
    [
        (
            spoken(("assistant", "hi"), ("user", "a"), ("assistant", "b")),
            turns("a", "b"),
            {"openings": 1},
        ),
        (
            spoken(("system", "s"), ("assistant", "hi"), ("user", "a"), ("assistant", "b")),
            turns("a", "b", system="s"),
            {"openings": 1},
        ),
        (
            spoken(("user", "a"), ("assistant", "b"), ("user", "c")),
            turns("a", "b"),
            {"unanswered": 1},
        ),
        (
            spoken(("user", "a"), ("assistant", "b"), ("user", "")),
            turns("a", "b"),
            {"unanswered": 1},
        ),
        (
            {
                "conversations": [
                    {"from": "gpt", "value": "hi"},
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                    {"from": "human", "value": "c"},
                ]
            },
            turns("a", "b"),
            {"openings": 1, "unanswered": 1},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    CALL,
                    RESULT,
                    {"role": "assistant", "content": "b"},
                ]
            },
            turns("a", "b"),
            {"tool_turns": 2},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {**CALL, "content": "let me look"},
                    RESULT,
                    {"role": "assistant", "content": "b"},
                ]
            },
            turns("a", "let me look\nb"),
            {"tool_turns": 1, "joined_answers": 1},
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "tool_calls": [1]},
                    {"role": "function", "content": "r"},
                    {"role": "assistant", "content": "b"},
                ]
            },
            turns("a", "b"),
            {"tool_turns": 2},
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "function_call", "value": "f()"},
                    {"from": "observation", "value": "1"},
                    {"from": "gpt", "value": "b"},
                ]
            },
            turns("a", "b"),
            {"tool_turns": 2},
        ),
    ],
)
def test_what_is_left_out_is_counted(
    item: dict[str, Any], expected: Any, changed: dict[str, int], tmp_path: Path
) -> None:
    changes = {"unanswered": 1}
    assert read_item(item, changes=changes) == expected
    assert {name: count for name, count in changes.items() if count} == {
        **changed,
        "unanswered": 1 + changed.get("unanswered", 0),
    }
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(item)}\n" * 3)
    assert read_corpus(path).files[0].changes == {name: 3 * n for name, n in changed.items()}
    assert set(changed) <= set(CHANGES)


@pytest.mark.parametrize(
    ("item", "kind", "reason"),
    [
        (
            spoken(("user", [{"type": "image_url", "image_url": {}}]), ("assistant", "b")),
            "part",
            "message 1 holds a part of the type 'image_url', expected text",
        ),
        (spoken(("user", [3]), ("assistant", "b")), "part", "holds the number 3 among its parts"),
        (spoken(("user", []), ("assistant", "b")), "empty", "message 1 (user) is empty"),
        (spoken(("user", "a"), ("tool", "r")), "order", "the last message is from the user"),
        (spoken(("assistant", "a")), "order", "message 1 is from the assistant"),
        (spoken(("assistant", "a"), ("user", "b")), "order", "message 1 is from the assistant"),
        (
            spoken(("user", "a"), ("tool", "r"), ("user", "c"), ("assistant", "b")),
            "order",
            "message 3 is from the user",
        ),  # by its own number
        (
            spoken(("user", "a"), ("assistant", "b"), ("assistant", "c")),
            "order",
            "message 3 is from",
        ),
        ({"prompt": "a"}, "form", "found an object with the keys 'prompt'"),
        ({"question": "a", "answer": 42}, "type", "found the number 42 under 'answer'"),
        ({"role": "user", "content": "a"}, "form", "the keys 'role', 'content'"),
    ],
)
def test_what_cannot_be_used(item: dict[str, Any], kind: str, reason: str) -> None:
    changes: dict[str, int] = {}
    with pytest.raises(Unusable) as caught:
        read_item(item, changes=changes)
    assert reason in str(caught.value) and caught.value.code == kind in FAULTS and not changes


def test_rows_of_callers_are_not_changed_without_a_word() -> None:
    rows = [
        spoken(("user", "a"), ("assistant", "b"), ("user", "c")),
        {"prompt": "a", "completion": "b"},
    ]
    with pytest.warns(CgptWarning, match=r"^fit: turns of the documents .*\(unanswered 1\)"):
        assert list(as_documents("fit", rows)) == [turns("a", "b")] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(as_documents("fit", rows[1:])) == [turns("a", "b")]


# ---------------------------------------------------------------- strings that stay texts

LOOKS = "用户：你好\n助手：你好！"


def test_a_paragraph_can_be_forced_to_be_text(tmp_path: Path) -> None:
    for name in "a.txt", "b.txt":
        (tmp_path / name).write_text(LOOKS, encoding="utf-8")
    assert len(read_corpus(tmp_path).dialogues) == 2
    assert read_corpus(tmp_path, as_text=True).documents == [LOOKS, LOOKS]
    assert read_corpus(tmp_path, as_text=[tmp_path]).documents == [LOOKS, LOOKS]
    one = read_corpus(tmp_path, as_text=[tmp_path / "b.txt"])
    assert one.documents == [LOOKS] and len(one.dialogues) == 1
    assert read_item({"text": LOOKS}, as_text=True) == LOOKS
    assert split_by_kind([str(tmp_path / "a.txt")], as_text=True)[1] == ()


def test_as_text_in_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(LOOKS, encoding="utf-8")
    for flags, found in ([], (0, 1)), (["--as-text"], (1, 0)):
        assert main(["data", "a.txt", "--tokenizer", "chars", "--json", *flags]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["documents"], report["dialogues"]) == found
    assert (
        main(
            [
                "train",
                "--pretrain",
                "a.txt",
                "--as-text",
                "--preset",
                "tiny",
                "--tokenizer",
                "chars",
                "--max-steps",
                "1",
                "--sample-every",
                "0",
                "--lang",
                "en",
                "--out",
                "m.bin",
            ]
        )
        == 0
    )
    assert "data: 1 documents, 0 dialogues" in capsys.readouterr().err.lower()
    assert main(["info", "m.bin", "--toml"]) == 0
    toml = capsys.readouterr().out
    (tmp_path / "again.toml").write_text(toml, encoding="utf-8")
    assert load_toml("again.toml")["plain_text"] == ["a.txt"]
    assert main(["train", "--config", "again.toml", "--out", "n.bin", "--lang", "en"]) == 0
    assert "data: 1 documents, 0 dialogues" in capsys.readouterr().err.lower()


def test_the_cache_knows_texts_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from small_llm import small_tokenizer

    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 0)
    path = tmp_path / "a.txt"
    path.write_text(LOOKS, encoding="utf-8")
    tokenizer = small_tokenizer()
    for as_text in ([], [str(path)], [], [str(path)]):
        source = Source([str(path)], "pretrain", as_text=as_text, cache=tmp_path / "cache")
        assert source.documents(tokenizer).store.dialogues.tolist() == [not as_text]


def test_settings() -> None:
    with pytest.raises(DataError, match="no such file"):
        Source(["none.txt"], "pretrain")
    config = RunConfig(pretrain="a.txt", plain_text="a.txt", skip_invalid=True)
    assert config.plain_text == ("a.txt",)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# ---------------------------------------------------------------- packed files

ITEMS = ["山", {"text": "水\r\n流"}, {"prompt": "a", "completion": "b"}, "火" * 500, ""]
JSONL = "\n".join(json.dumps(one, ensure_ascii=False) for one in ITEMS)
CONTENTS = {
    "a.jsonl": JSONL,
    "a.json": json.dumps(ITEMS),
    "b.json": json.dumps({"data": ITEMS}),
    "a.txt": "山\r\n水\n\n火",
    "a.csv": 'text\n山\n"水\n流"\n',
    "a.tsv": "text\n山\n水\n",
}


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    if not asked_for("data"):
        pytest.skip("zstandard has no wheel for this system")
    import zstandard

    return bytes(zstandard.ZstdCompressor().compress(data))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", CONTENTS)
def test_packed_files_give_the_same(name: str, suffix: str, tmp_path: Path) -> None:
    plain, other = tmp_path / name, tmp_path / (name.upper() + suffix)
    data = CONTENTS[name].encode()
    plain.write_bytes(data)
    # Two members, as `cat` makes them.
    other.write_bytes(packed(suffix, data[:40]) + packed(suffix, data[40:]))
    one, two = read_corpus(plain), read_corpus(other)
    assert (one.documents, one.dialogues) == (two.documents, two.dialogues)
    assert two.fingerprint == reader.fingerprint_of(other) != one.fingerprint
    assert data_size(str(other), 1 << 20) == len(data)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_packing(suffix: str, tmp_path: Path) -> None:
    whole = packed(suffix, (JSONL * 99).encode())
    path = tmp_path / f"a.jsonl{suffix}"
    for data in whole[:-9], whole[: len(whole) // 2], b"no archive", whole[:20] + b"\0" * 20:
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"packed as \{suffix} is damaged") as caught:
            read_corpus(path, skip_invalid=True)
        assert not isinstance(caught.value, InvalidRowsError)


@pytest.mark.parametrize(
    ("module", "name"), [("zstandard", "a.jsonl.zst"), ("pyarrow", "a.parquet")]
)
def test_a_missing_extra_is_named(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / name
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(DataError, match=rf"{module}; .*pip install 'cgpt\[data\]'"):
        read_corpus(path)


@pytest.mark.parametrize(
    "name",
    ["a.jsonl.gz", "a.txt.gz", "a.json.gz", "b.json.gz", "a.csv.gz", "a.jsonl.zst", "a.txt.zst"],
)
def test_a_bomb_costs_little_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line of 40 MB in 40 KB; limits are made small so that this is enough."""
    for module, limit in (
        (files, "LONGEST_LINE"),
        (reader, "_MOST_AT_ONCE"),
        (table_rows, "LONGEST_CELL"),
    ):
        monkeypatch.setattr(module, limit, 1 << 18)
    for module in reader, text_rows:
        monkeypatch.setattr(module, "LONGEST_TEXT", 1 << 18)
    monkeypatch.setattr(text_rows, "_LONGEST", 1 << 18)
    monkeypatch.setattr(text_rows, "_CHUNK", 1 << 16)
    path = tmp_path / name
    start = {
        "a.jsonl": b'"a"\n"',
        "a.txt": "山\n\n".encode(),
        "a.json": b'["a", "',
        "b.json": b'{"data": ["',
        "a.csv": b'text\n"',
    }[path.stem]
    path.write_bytes(packed(path.suffix, start + b"a" * 40_000_000))
    tracemalloc.start()
    try:
        for item in Reading(path, skip_invalid=True):
            assert len(item) <= 1 << 18
    except DataError:
        assert name in ("a.json.gz", "b.json.gz", "a.csv.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (24 << 20 if path.suffix == ".zst" else 12 << 20)  # of 40 MB


def test_a_small_file_that_unpacks_to_much_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 1 << 20)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'"%d %s"\n' % (i, b"a" * 1000) for i in range(3000))))
    assert path.stat().st_size < 1 << 18 and Source([str(path)], "pretrain").large


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("content", "documents", "dialogues"),
    [
        ("text,id\n山,1\n水,2\n", ["山", "水"], []),
        ('\ufeffText\r\n山\r\n\r\n"水\r\n流"\r\n', ["山", "水\r\n流"], []),
        ('Question;Answer\na;"b;"\n', [], [turns("a", "b;")]),
        (
            "instruction\tinput\toutput\na\t\tb\nc\td\te\n",
            [],
            [turns("a", "b"), turns("c\nd", "e")],
        ),
        ('id,prompt,completion\n1,"say ""hi""","hi, you"\n', [], [turns('say "hi"', "hi, you")]),
    ],
)
def test_csv(content: str, documents: list[str], dialogues: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    corpus = read_corpus(path)
    assert (corpus.documents, corpus.dialogues) == (documents, dialogues)


def test_rows_of_csv_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\na,b\n"x\ny",\na,b,c\nd\n"e"f,g\n"h\ni",j\nk,"l\n')
    with pytest.raises(InvalidRowsError) as caught:
        read_corpus(path)
    assert [(row.place, row.kind) for row in caught.value.rows] == [
        ("line 3", "empty"),
        ("line 5", "csv"),
        ("line 6", "csv"),
        ("line 7", "csv"),
        ("line 10", "csv"),
    ]
    assert read_corpus(path, skip_invalid=True).dialogues == [turns("a", "b"), turns("h\ni", "j")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n", "found the columns 'a', 'b', expected text, messages, or a question"),
        ("prompt,other\n1,2\n", "found the columns 'prompt', 'other'"),
        ("text,text\na,b\n", "the column 'text' occurs twice"),
        ("", "no usable document"),
        ("text\n", "no usable document"),
        ("text\n\udcff", "line 2: found byte 0xFF"),
    ],
)
def test_csv_that_cannot_be_read(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=sentence):
        read_corpus(path)


def test_a_long_cell(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text(f"text\n{'a' * 300_000}\n")
    assert len(read_corpus(path).documents[0]) == 300_000 and csv.field_size_limit() == before


def parquet(path: Path, columns: dict[str, list[Any]]) -> Path:
    if not asked_for("data"):
        pytest.skip("pyarrow has no wheel for this system")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        {
            "messages": [
                [
                    {"role": "user", "content": "a", "tool_calls": None},
                    {"role": "assistant", "content": "b", "tool_calls": None},
                ],
                None,
                [],
            ],
            "id": [1, 2, 3],
        },
    )
    corpus = read_corpus(path, skip_invalid=True)
    assert corpus.dialogues == [turns("a", "b")]
    assert [(row.place, row.line, row.kind) for row in corpus.invalid.rows] == [
        ("row 2", 2, "type"),
        ("row 3", 3, "empty"),
    ]
    assert corpus.fingerprint == reader.fingerprint_of(path) and data_size(str(path), 0) > 0
    pairs = parquet(
        tmp_path / "b.parquet", {"instruction": ["a"], "input": [None], "output": ["b"]}
    )
    assert read_corpus(pairs).dialogues == [turns("a", "b")]
    texts = parquet(tmp_path / "c.parquet", {"text": [f"第{i}句" for i in range(700)]})
    assert len(read_corpus(texts).documents) == 700


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", {"x": [1]})
    with pytest.raises(DataError, match="found the columns 'x'"):
        read_corpus(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        read_corpus(path)
