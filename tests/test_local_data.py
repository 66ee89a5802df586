"""data/ of the current directory: its .json files, or else all that can be read."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cgpt.cli import main
from cgpt.cli.ui.data_report import local_notes
from cgpt.corpus.files import packaged_data
from cgpt.locale import set_language
from cgpt.training.recipe import continued_chat, default_recipe, local_data

TEXTS, CHAT = ["山高水长。", "天空是蓝色的。"], {"prompt": "你好", "completion": "你好！"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_language("zh")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", lambda: list)
    monkeypatch.delenv("CGPT_LANG", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path


def write(path: Path, text: str = "山高水长。") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_files_of_other_kinds_are_taken_in_natural_order(here: Path) -> None:
    for name in ("part10.txt", "part2.txt", "more/a.csv", ".gitkeep", "LICENSE.txt", "notes.docx"):
        write(here / "data" / name, "text\n山\n")
    write(here / "data/chat.jsonl", json.dumps(CHAT))
    assert local_data() == (
        "data/chat.jsonl",
        "data/more/a.csv",
        "data/part2.txt",
        "data/part10.txt",
    )
    config = default_recipe(None)
    assert config.chat == ("data/chat.jsonl",)
    assert config.pretrain == ("data/more/a.csv", "data/part2.txt", "data/part10.txt")
    assert continued_chat((), {}) == ("data/chat.jsonl",)
    notes = " ".join(local_notes())
    assert "data/notes.docx" in notes and "data/LICENSE.txt" in notes and "gitkeep" not in notes


def test_json_files_come_alone_as_ever_and_the_others_are_named(here: Path) -> None:
    write(here / "data/b.json", json.dumps(TEXTS))
    write(here / "data/a.json", json.dumps([CHAT]))
    assert local_data() == ("data/a.json", "data/b.json") and not local_notes()
    write(here / "data/c.txt")
    write(here / "data/sub/d.json", json.dumps(TEXTS))
    assert local_data() == ("data/a.json", "data/b.json")
    notes = local_notes()
    assert len(notes) == 2 and all("--data" in note for note in notes)
    for number in range(20):
        write(here / f"data/e{number}.txt")
    assert len(local_notes()) == 11 and "12" in local_notes()[-1]


def test_the_packaged_data_is_taken_only_with_a_word(here: Path) -> None:
    packaged = tuple(map(str, packaged_data()))
    for names in [], [".gitkeep"]:
        for name in names:
            write(here / "data" / name)
        config = default_recipe(None)
        assert (*config.pretrain, *config.chat) == packaged and not local_notes()
    write(here / "data/notes.docx")
    config = default_recipe(None)
    assert (*config.pretrain, *config.chat) == packaged
    assert len(local_notes()) == 2 and "自带的数据" in local_notes()[-1]


def test_train_and_the_guided_run_read_them(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "data/a.txt", "\n\n".join(TEXTS))
    write(here / "data/b.jsonl", json.dumps(CHAT, ensure_ascii=False))
    write(here / "data/c.docx")
    quick = ["--preset", "tiny", "--max-steps", "1", "--lang", "en"]
    assert main(["train", *quick, "--sample-every", "0"]) == 0
    said = capsys.readouterr().err
    assert "data: 2 documents, 1 dialogues, 2 files" in said
    assert said.count("data/c.docx: not read") == 1
    (here / "checkpoints/model_final.bin").unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\nn\n"))
    main(quick)
    shown = " ".join(capsys.readouterr().out.split())
    assert "data: 2 documents, 1 dialogues, 2 files" in shown
    assert "data/c.docx: not read" in shown


def test_invalid_rows_in_the_guided_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [CHAT, {"prompt": "山", "completion": ""}, {**CHAT, "prompt": "水"}]
    write(here / "data/b.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    quick = ["--preset", "tiny", "--max-steps", "1", "--lang", "en"]

    def run(answers: str, *options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        code = main([*quick, *options])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    code, said = run("n\nn\n")
    assert code == 1 and "data/b.jsonl, line 2: message 2 (assistant) is empty" in said
    assert "--skip-invalid" in said
    code, said = run("y\n1\n\n", "--skip-invalid")
    assert code == 0 and "left out: invalid rows: 1 (empty message 1)" in said
    assert "0 documents, 2 dialogues, 1 files" in said
    # Trained further on the same files as the run that it comes from, likewise without them.
    code, said = run("y\n1\ny\n1\n0.001\nn\n")
    assert "left out: invalid rows: 1 (empty message 1)" in said
