"""All rows that cannot be used are found in one pass, reported, and left out where asked for."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from small_llm import small_llm

from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import main
from cgpt.corpus import invalid_rows, token_cache
from cgpt.corpus.invalid_rows import InvalidRow, InvalidRows, InvalidRowsError, merged
from cgpt.corpus.reader import Reading, fingerprint_of, read_corpus
from cgpt.llm import load_model_auto
from cgpt.training.run import TrainingRun

GOOD = {"instruction": "问", "output": "答"}
# A row that cannot be used, and its kind.
BAD: list[tuple[str, str]] = [
    ('{"instruction": "问", "output": ""}', "empty"),
    ('{"instruction": "问"}', "type"),
    ('{"instruction": "问", "output": 3}', "type"),
    ('{"instruction": "问", "output": "答", "output": "另"}', "repeated_key"),
    (
        '{"messages": [{"role": "user", "content": "a", "role": "user"}, '
        '{"role": "assistant", "content": "b"}]}',
        "repeated_key",
    ),
    ('{"meta": {"a": 1, "a": 2}, "text": "山"}', "repeated_key"),
    ('{"unknown": 1}', "form"),
    ("[1]", "form"),
    ("null", "form"),
    ("7", "form"),
    ('{"messages": [{"role": "narrator", "content": "a"}]}', "role"),
    ('{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', "order"),
    ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "part"),
]
BROKEN: list[tuple[str, str]] = [
    ('{"instruction": "问", ', "json"),
    ("{", "json"),
    ("[" * 100_000, "json"),
    ('"' + "\x01" + '"', "json"),
]


def rows_file(folder: Path, name: str, n: int, bad: list[tuple[str, str]]) -> tuple[Path, list]:
    """(a file of n rows with these among them, (number of the row, kind) of each)."""
    lines = [json.dumps({**GOOD, "instruction": f"第{i}问"}, ensure_ascii=False) for i in range(n)]
    places = sorted(random.Random(3).sample(range(n), len(bad)))
    for place, (row, _) in zip(places, bad, strict=True):
        lines[place] = row
    text = "\n".join(lines) + "\n" if ".jsonl" in name else "[\n" + ",\n".join(lines) + "\n]"
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path, [(place, kind) for place, (_, kind) in zip(places, bad, strict=True)]


@pytest.mark.parametrize("large", [0, 1 << 30])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.gz"])
def test_all_are_found_in_one_pass(name: str, large: int, tmp_path: Path) -> None:
    lines = name.startswith("a.jsonl")
    path, expected = rows_file(tmp_path, name, 60, BAD + BROKEN * lines)
    reading = Reading(path, large=large)
    with pytest.raises(InvalidRowsError) as caught:
        list(reading)
    error = caught.value
    assert error.code == "data" and len(error.rows) == len(expected)
    # "[" stands on a line of its own.
    assert [(row.line - (1 if lines else 2), row.kind) for row in error.rows] == expected
    assert sum(error.counts.values()) == len(expected) and error.counts["repeated_key"] == 3
    first = error.rows[0]
    assert str(error).startswith(f"{len(expected)} invalid rows, the first is {path}, ")
    assert first.place in str(error) and first.reason in str(error) and "\n" not in str(error)
    corpus = read_corpus(path, skip_invalid=True)
    assert len(corpus.dialogues) == 60 - len(expected) == corpus.files[0].dialogues
    assert corpus.files[0].invalid == len(corpus.invalid) == len(expected)
    assert tuple(corpus.invalid.rows) == error.rows
    assert corpus.fingerprint == fingerprint_of(path)


def test_of_all_files(tmp_path: Path) -> None:
    first, found = rows_file(tmp_path, "a.jsonl", 30, BAD)
    second, more = rows_file(tmp_path, "b.json", 30, BAD[:2])
    with pytest.raises(InvalidRowsError, match=rf"^{len(BAD) + 2} invalid rows in 2 files") as one:
        read_corpus(tmp_path)
    assert [row.path for row in one.value.rows] == [str(first)] * len(found) + [str(second)] * len(
        more
    )
    assert [file.invalid for file in read_corpus(tmp_path, skip_invalid=True).files] == [
        len(found),
        len(more),
    ]


def test_the_sentence_of_one_row_is_that_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"山"\n{"text": 3}\n', encoding="utf-8")
    with pytest.raises(InvalidRowsError) as caught:
        read_corpus(path)
    (row,) = caught.value.rows
    assert (
        str(caught.value)
        == str(row)
        == f"{path}, line 2: found the number 3 under 'text', expected a string"
    )
    assert (row.path, row.place, row.line, row.kind) == (str(path), "line 2", 2, "type")


def test_a_line_that_is_no_utf8_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('"山"\n'.encode() + '"你好"\n'.encode("gbk") + '"水"\n'.encode())
    with pytest.raises(InvalidRowsError, match=r"line 2: found byte 0xC4 at .*GBK") as caught:
        read_corpus(path)
    assert caught.value.counts == {"encoding": 1}
    assert read_corpus(path, skip_invalid=True).documents == ["山", "水"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '["a",\n {x}]'),
        ("a.json", '["a", 3'),
        ("a.txt", b"\xff"),
        ("a.json", '{"a": 1}'),
        ("a.json", '{"data": ["a"], "data": ["b"]}'),
    ],
)
def test_what_is_of_the_whole_file_stays_fatal(
    name: str, content: str | bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Exception, match=str(path)) as caught:
        read_corpus(path, skip_invalid=True)
    assert not isinstance(caught.value, InvalidRowsError)


def test_in_an_object_around_the_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"version": 1, "data": ["山", 3, {"text": "a", "text": "b"}]}')
    with pytest.raises(InvalidRowsError) as caught:
        read_corpus(path)
    assert [(row.place, row.line, row.kind) for row in caught.value.rows] == [
        ("item 2", 0, "form"),
        ("item 3", 0, "repeated_key"),
    ]


def test_a_file_without_a_usable_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n3\n")
    with pytest.raises(InvalidRowsError, match=r"^3 invalid rows.* skip_invalid=True$"):
        read_corpus(path)
    with pytest.raises(InvalidRowsError, match="no row of it can be used, 3 are invalid") as caught:
        read_corpus(path, skip_invalid=True)
    assert "skip_invalid" not in str(caught.value)  # no advice that was followed


def test_the_error_can_be_copied_and_sent(tmp_path: Path) -> None:
    error = InvalidRows()
    for line in 1, 2:
        error.add(InvalidRow("a.jsonl", f"line {line}", line, "form", "found nothing"))
    one = error.error()
    for other in copy.copy(one), pickle.loads(pickle.dumps(one)):
        assert str(other) == str(one) and other.rows == one.rows and other.counts == {"form": 2}


def test_only_so_many_rows_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(invalid_rows, "MOST_ROWS", 5)
    path = tmp_path / "a.jsonl"
    path.write_text("1\n" * 20 + '"a"\n')
    invalid = read_corpus(path, skip_invalid=True).invalid
    assert len(invalid.rows) == 5 and len(invalid) == 20
    assert merged([invalid.error()]).counts == {"form": 20}


# ---------------------------------------------------------------- commands


def train(*args: object) -> list[str]:
    return [
        str(one)
        for one in (
            "train",
            "--preset",
            "tiny",
            "--tokenizer",
            "chars",
            "--lang",
            "en",
            "--max-steps",
            2,
            "--sample-every",
            0,
            *args,
        )
    ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_refuses_or_leaves_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "a.jsonl", 80, BAD + BROKEN + BAD)
    assert main(train("--chat", "a.jsonl", "--out", "m.bin")) == 1
    said = capsys.readouterr().err.splitlines()
    assert (
        "invalid rows: 30 (broken JSON 4, repeated key 6, unknown form 8, wrong type 4, "
        "not text 2, unknown role 2, turns out of order 2, empty message 2)" in said
    )
    assert sum(line.startswith("  a.jsonl, line ") for line in said) == 20
    assert "  ... and 10 more" in said and "(option: --skip-invalid; " in said[-1]
    assert said[-1].startswith("error: 30 invalid rows, the first is a.jsonl, line ")
    assert not (here / "m.bin").exists()
    assert main(train("--chat", "a.jsonl", "--out", "m.bin", "--skip-invalid")) == 0
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith("left out: invalid rows: 30 (") for line in said)
    run = TrainingRun.resume(load_model_auto("m.bin"))  # as the run was begun
    assert run.config.skip_invalid and len(run.sources["finetune"].invalid) == 30
    assert main(["resume", "m.bin", "--max-steps", "3", "--lang", "en"]) == 0


def test_both_phases_are_reported_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "a.jsonl", 20, BAD[:3])
    rows_file(here, "b.jsonl", 20, BAD[:4])
    assert main(train("--pretrain", "a.jsonl", "--chat", "b.jsonl", "a.jsonl")) == 1
    assert "error: 7 invalid rows in 2 files" in capsys.readouterr().err


def test_data_given_by_kind_is_reported_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "a.jsonl", 20, BAD[:3])
    (here / "b.jsonl").write_text("1\n2\n")
    assert main(train("--data", "a.jsonl", "b.jsonl")) == 1
    assert "error: 5 invalid rows in 2 files" in capsys.readouterr().err


def test_data_lists_them_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, expected = rows_file(here, "a.jsonl", 80, BAD + BROKEN + BAD)
    command = ["data", "a.jsonl", "--tokenizer", "chars", "--lang", "en"]
    assert main(command) == 1
    shown = capsys.readouterr().out
    assert shown.count("\n  a.jsonl, line ") == 30
    assert main([*command, "--skip-invalid"]) == 0
    capsys.readouterr()
    assert main([*command, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["invalid"] == report["files"][0]["invalid"] == 30
    assert [(row["line"] - 1, row["kind"]) for row in report["invalid_rows"]] == expected
    assert sum(report["invalid_by_kind"].values()) == 30 and report["dialogues"] == 50


def test_other_commands_leave_them_out_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "a.jsonl", 20, BAD[:3])
    save_model_binary(small_llm(), "m.bin")
    for command in (
        ["eval", "m.bin", "a.jsonl", "--json"],
        ["tokenizer", "train", "a.jsonl", "--kind", "chars", "--out", "t.json", "--json"],
        ["tokenizer", "inspect", "m.bin", "a.jsonl", "--json"],
    ):
        assert main([*command, "--lang", "en"]) == 1
        assert "error: 3 invalid rows" in capsys.readouterr().err
        assert main([*command, "--lang", "en", "--skip-invalid"]) == 0
        shown = capsys.readouterr()
        assert "left out: invalid rows: 3 (" in shown.err and json.loads(shown.out)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_data_lists_them_where_nothing_else_is_there(
    flags: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.jsonl").write_text("1\n2\n3\n")
    assert main(["data", "a.jsonl", "--lang", "en", *flags]) == 1
    out = capsys.readouterr().out
    found: Any = json.loads(out) if flags else out
    assert found["invalid"] == 3 if flags else found.count("a.jsonl, line") == 3


def test_in_chinese(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "a.jsonl", 40, BAD + BROKEN)
    assert main(["data", "a.jsonl", "--tokenizer", "chars", "--lang", "zh"]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  a.jsonl")]
    assert len(said) == len(BAD + BROKEN) and all(" 第 " in line for line in said)
    assert not [line for line in said if "expected" in line or "found" in line]


def test_from_the_cache(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(token_cache, "LARGE_CORPUS", 0)
    monkeypatch.setenv("CGPT_CACHE", str(here / "cache"))
    _, expected = rows_file(here, "a.jsonl", 40, BAD + BROKEN)
    command = ["data", "a.jsonl", "--tokenizer", "chars", "--lang", "en", "--json"]
    reports = []
    for _ in range(2):
        assert main(command) == 1
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[1].pop("cached") and not reports[0].pop("cached")
    assert reports[0] == reports[1] and reports[0]["invalid"] == len(expected)
    assert main(train("--chat", "a.jsonl")) == 1  # whole as the entry is
    assert f"error: {len(expected)} invalid rows" in capsys.readouterr().err


def test_no_advice_that_was_followed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file(here, "ok.jsonl", 5, [])
    for bad, said in (
        (['{"x": 1}', "[]"], "no row of it can be used, 2 are invalid, the first"),
        (['{"x": 1}'], "found an object with the keys 'x'"),
    ):
        (here / "bad.jsonl").write_text("\n".join(bad))
        command = ["train", "--chat", "ok.jsonl", "bad.jsonl", "--preset", "tiny", "--out", "m.bin"]
        assert main([*command, "--skip-invalid", "--lang", "en"]) == 1
        err = capsys.readouterr().err
        assert f"bad.jsonl{', line 1' if len(bad) == 1 else ''}: {said}" in err
        assert "skip" not in err
    (here / "bad.jsonl").write_text('{"x": 1}\n[]\n')
    assert main([*command, "--lang", "zh"]) == 1
    err = capsys.readouterr().err
    assert "--skip-invalid" in err and "expected" not in err and "an object" not in err
