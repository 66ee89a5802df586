"""The Python example of both READMEs prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "README.en.md"])
def test_the_example_answers_sensibly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    found = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)
    assert len(found) == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(found[0], name, "exec"), {})
    said = [line.rpartition("# ")[2] for line in found[0].splitlines() if line.startswith("print")]
    assert len(said) >= 4 and capsys.readouterr().out.splitlines() == said
