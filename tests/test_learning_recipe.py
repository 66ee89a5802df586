"""The recipe of benchmarks/peers/learning.py is the command that docs/learning.md prints."""

from __future__ import annotations

import json
import runpy
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

from cgpt import LLM, Trainer
from cgpt.cli import main
from cgpt.llm import load_model_auto

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "tests" / "data" / "learning"
BUDGET = {"epochs", "schedule_steps", "max_steps", "max_minutes"}
OF_DIALOGUES = {"loss_on"}  # texts alone are learnt the same whatever it says


def printed_command() -> list[str]:
    """The words of the `cgpt train` with --decay-share, behind `cgpt`."""
    text = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [
        line
        for line in text.splitlines()
        if line.startswith("cgpt train") and "--decay-share" in line
    ]
    assert len(lines) == 1
    return shlex.split(lines[0])[1:]


def test_the_printed_command_trains_as_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(TEXTS.glob("pretraining_*.json"))
    texts = [text for file in files for text in json.loads(file.read_text(encoding="utf-8"))]
    texts = [*dict.fromkeys(texts)]
    words = printed_command()
    where = words.index("texts/")
    words[where : where + 1] = map(str, files)
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--max-steps", "3"]) == 0
    llm = load_model_auto("checkpoints/model_final.bin")

    shape, train = runpy.run_path(str(ROOT / "benchmarks" / "peers" / "learning.py"))["recipe"]({})
    run = llm.training_state.run
    ours = asdict(train)
    assert {
        name
        for name, value in run["pretrain_train"].items()
        if value != (list(ours[name]) if isinstance(ours[name], tuple) else ours[name])
    } <= BUDGET | OF_DIALOGUES
    assert {**llm.config.to_dict(), "vocab_size": 0} == {**shape.to_dict(), "vocab_size": 0}
    assert run["vocab_size"] == shape.vocab_size

    given = {name: run["pretrain_train"][name] for name in BUDGET}
    twin = LLM.from_texts(texts, shape)
    Trainer(twin, type(train).from_dict({**ours, **given})).fit(texts)
    history = [entry[:3] for entry in llm.training_state.history]
    assert [step for _, step, _ in history] == [1, 2, 3]
    assert [entry[:3] for entry in twin.training_state.history] == history
