"""examples/model_persistence.py does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "model_persistence.py"


def run(folder: Path, action: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), action],
        cwd=folder,
        text=True,
        capture_output=True,
        encoding="utf-8",
    )


def test_save_load_continue(tmp_path: Path) -> None:
    nothing = run(tmp_path, "load")
    assert nothing.returncode == 1 and "does not exist" in nothing.stderr
    for action, expected in (
        ("save", "saved exports/example.json"),
        ("load", "长江是中国最长"),
        ("continue", "saved checkpoints/example.bin"),
    ):
        done = run(tmp_path, action)
        assert done.returncode == 0 and expected in done.stdout, done.stderr
        assert done.stderr == ""
