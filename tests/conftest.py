"""Shared by all tests: two threads at most, and one where pytest's workers share the processors,
so that a loaded machine does not stall them; every model file that a test writes is read by the
independent reader too; and the figures of docs/notes/reliability.md, which are counted while the
tests run, in all workers, and printed at their end."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("CGPT_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ.pop("COLUMNS", None)  # of the terminal that the tests were started from
os.environ.pop("LINES", None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import catalogue
import independent_reader
from packaging.requirements import Requirement

from cgpt.checkpoint.binary_writer import Packed

if catalogue.outdated():
    catalogue.compile_catalogue()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)

Counted = Callable[..., None]
_COUNTS: Counter[str] = Counter()
_SMALL = 1 << 22  # bytes of a file that plain Python reads soon enough


def asked_for(name: str) -> bool:
    """Whether the extra `dev`, which tests are run with, has this package or extra here.

    A test is skipped where it has not, and fails where it has and the package is not there.
    """
    for line in metadata.requires("cgpt") or ():
        one = Requirement(line)
        if name in (one.name, *one.extras) and one.marker and one.marker.evaluate({"extra": "dev"}):
            return True
    return False


@pytest.fixture(autouse=True)
def independently_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever small binary file is saved is read by a reader of the specification."""
    write = Packed.write

    @wraps(write)
    def written(packed: Packed, path: str | os.PathLike[str]) -> Path:
        found = write(packed, path)
        if packed.size < _SMALL:
            independent_reader.read(str(found))
            _COUNTS["model files read by the independent reader"] += 1
        return found

    monkeypatch.setattr(Packed, "write", written)


@pytest.fixture
def counted() -> Counted:
    """counted(what, n=1): so many of them ended as they must."""

    def add(what: str, n: int = 1) -> None:
        _COUNTS[what] += n

    return add


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No CGPT_ variable from outside; vocabularies of words learnt without jieba's dictionary."""
    for name in list(os.environ):
        if name.startswith("CGPT_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", lambda: list)


@pytest.fixture
def run_cgpt(
    clean_environment: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """run_cgpt(*args, stdin=None) -> (exit code, stdout, stderr), in this process and tmp_path."""
    from cgpt.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def call(*args: object, stdin: str | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return call


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # this is a worker: to the process that prints
        session.config.workeroutput["counts"] = dict(_COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _COUNTS.update(getattr(node, "workeroutput", {}).get("counts", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _COUNTS:
        terminalreporter.section("counted")
    for what, n in _COUNTS.items():
        terminalreporter.write_line(f"{n:9,}  {what}")
