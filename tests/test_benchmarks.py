"""A short run of every benchmark, so that none of them rots; no time is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHORT = {
    "bench_chat_quality.py": ["--preset", "tiny", "--max-steps", "2", "--every", "200"],
    "bench_checkpoint.py": ["--preset", "tiny", "--repeats", "2"],
    "bench_decode.py": ["--config", "S", "--repeats", "1"],
    "bench_kernels.py": ["--config", "S", "--repeats", "1"],
    "bench_startup.py": ["--repeats", "1"],
    "bench_train.py": ["--config", "S", "--repeats", "1"],
}


def run(name: str, *more: str) -> Any:
    done = subprocess.run([sys.executable, str(BENCHMARKS / name), *SHORT[name], "--json", *more],
                          capture_output=True, text=True,
                          env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_benchmark_is_run() -> None:
    assert {path.name for path in BENCHMARKS.glob("*.py")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_short_run(name: str) -> None:
    assert run(name)


def test_import_brings_in_nothing_heavy() -> None:
    """`import cgpt` brings in nothing heavy, whatever public name is used."""
    assert run("bench_startup.py")["heavy_imports"] == []
