"""A failing command with --json prints one JSON object beside the sentence on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_llm import TEXTS

from cgpt.cli import guard
from cgpt.errors import CgptError, DataError, Phrase, phrase_of

Run = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize(
    ("code", "kind", "args"),
    [
        (1, "missing", ("info", "none.bin")),
        (3, "foreign", ("info", "foreign.bin")),
        (1, "missing", ("generate", "none.bin", "长江")),
        (1, "missing", ("chat", "none.bin", "-p", "你好")),
        (1, "missing", ("eval", "none.bin", "texts.json")),
        (1, "missing", ("diff", "none.bin", "none.bin")),
        (1, "missing", ("inspect", "none.bin", "长江")),
        (1, "missing", ("resume", "none.bin")),
        (1, "data", ("data", "none.json")),
        (1, "data", ("train", "--pretrain", "none.json", "--preset", "tiny")),
        (3, None, ("tokenizer", "encode", "foreign.bin", "长江")),
        (1, None, ("tokenizer", "inspect", "none.bin", "texts.json")),
        (1, None, ("plot", "none.jsonl", "-o", "curve.png")),
    ],
)
def test_object(
    run_cgpt: Run, tmp_path: Path, code: int, kind: str | None, args: tuple[str, ...]
) -> None:
    Path("texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    Path("foreign.bin").write_bytes(b"no model at all" * 9)
    ended, out, err = run_cgpt(*args, "--lang", "en", stdin="")
    assert (ended, out) == (code, "")
    again, out, said = run_cgpt(*args, "--lang", "en", "--json", stdin="")
    assert (again, said) == (ended, err)
    found = json.loads(out)
    assert list(found) == ["code", "message", "template", "fields"]
    assert found["code"] == kind or kind is None
    assert found["message"] == str(phrase_of(found))
    assert found["message"] in err


def test_environment_asks_for_it(run_cgpt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CGPT_JSON", "1")
    code, out, _ = run_cgpt("info", "none.bin", stdin="")
    assert (code, json.loads(out)["code"]) == (1, "missing")


def raising(error: BaseException) -> Callable[[], int]:
    def action() -> int:
        raise error

    return action


def test_nested_messages(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("{path}: {fault}", path="a.json", fault=Phrase("row {n}", n=3))
    assert guard(raising(error), {"json": True}) == 1
    assert json.loads(capsys.readouterr().out) == {
        "code": "data",
        "message": "a.json: row 3",
        "template": "{path}: {fault}",
        "fields": {"path": "a.json", "fault": {"template": "row {n}", "fields": {"n": 3}}},
    }


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), "memory", "out of memory; use a smaller model or a smaller batch"),
        (OSError(28, "No space left on device"), "system", "No space left on device"),
        (FileNotFoundError(2, "No such file", "a"), "system", "a: No such file"),
        (CgptError("short"), "error", "short"),
    ],
)
def test_errors_of_python(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: str, message: str
) -> None:
    assert guard(raising(error), {}) == 1
    assert capsys.readouterr().out == ""
    assert guard(raising(error), {"json": True}) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["code"], found["message"]) == (code, message)
