"""Killed at random moments of a save, and every single call of a save failing once."""

from __future__ import annotations

import argparse
import errno
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Counted
from make_fixtures import tiny_llm
from small_llm import small_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CheckpointError
from cgpt.fileio.atomic import SUFFIX
from cgpt.kernels import get_num_threads, set_num_threads
from cgpt.llm import LLM, load_model_binary

KILLS = 200
MANAGED_KILLS = 60
KILLED_TRAININGS = 20


def child(work: Callable[[], object]) -> int:
    """A forked process that does this over and over; its id."""
    process = os.fork()
    if process == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    return process


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL  # it had not ended by itself


def left_over(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(SUFFIX)]


@pytest.mark.parametrize("suffix", ["bin", "json"])
def test_killed_while_saving(tmp_path: Path, counted: Counted, suffix: str) -> None:
    """The old file or the new one, to the byte, whenever the kill comes."""
    save = save_model_binary if suffix == "bin" else save_model_json
    path = tmp_path / f"m.{suffix}"
    llms = [tiny_llm(), tiny_llm(best=False)]
    whole = [save(llm, path).read_bytes() for llm in llms]
    began = time.perf_counter()
    save(llms[0], path)
    one_save = time.perf_counter() - began
    rng = random.Random(0)
    interrupted = 0
    seen = set()
    for _ in range(KILLS // 2):
        process = child(lambda: [save(llm, path) for llm in llms])
        time.sleep(rng.uniform(0.001, 0.003 + 3 * one_save))
        kill(process)
        found = path.read_bytes()
        assert found in whole
        seen.add(whole.index(found))
        interrupted += bool(left_over(tmp_path))
        save(llms[0], path)
        assert os.listdir(tmp_path) == [path.name]
    assert interrupted > KILLS // 20 and seen == {0, 1}  # the kills came in the middle of saves
    counted("SIGKILLs of a save", KILLS // 2)


def trained_llm() -> LLM:
    llm = small_llm(n_embd=32)
    llm.training_state.phase = "pretrain"
    llm.training_state.identify()
    return llm


def next_step(llm: LLM) -> None:
    state = llm.training_state
    state.step += 1
    state.epoch += 1
    state.history = [["pretrain", step, 1.0, 1.0 / step] for step in range(1, state.step + 1)]


def test_killed_while_a_manager_saves(tmp_path: Path, counted: Counted) -> None:
    """What was said to be saved is found again, and all that is there is whole."""
    reader, writer = os.pipe()
    rng = random.Random(1)
    llm = trained_llm()
    manager = CheckpointManager(tmp_path, "best+last", keep=2)
    interrupted = 0
    for _ in range(MANAGED_KILLS):

        def work() -> None:
            next_step(llm)
            manager.step_done(llm)
            manager.wait()
            os.write(writer, struct.pack("<q", llm.training_state.step))

        process = child(work)
        acknowledged = struct.unpack("<q", os.read(reader, 8))[0]
        time.sleep(rng.uniform(0, 0.01))
        kill(process)
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            acknowledged = struct.unpack("<q", os.read(reader, 1 << 16)[-8:])[0]
        os.set_blocking(reader, True)
        for path in tmp_path.glob("*.bin"):
            assert describe(path, verify=True)["verified"]
        found = manager.latest(lambda error: pytest.fail(str(error)))
        assert found is not None
        step = load_model_binary(found).training_state.step
        assert step >= acknowledged
        interrupted += bool(left_over(tmp_path))
        llm.training_state.step = llm.training_state.epoch = step
    next_step(llm)
    manager.step_done(llm)
    manager.close()
    assert not left_over(tmp_path)
    assert interrupted > MANAGED_KILLS // 20
    counted("SIGKILLs of a manager", MANAGED_KILLS)
    os.close(reader)
    os.close(writer)


def test_two_processes_of_one_path_and_a_third_that_is_killed(
    tmp_path: Path, counted: Counted
) -> None:
    path = tmp_path / "m.bin"
    llms = [tiny_llm(), tiny_llm(best=False)]
    whole = [save_model_binary(llm, path).read_bytes() for llm in llms]
    processes = [child(lambda llm=llm: save_model_binary(llm, path)) for llm in llms]
    try:
        for _ in range(20):
            third = child(lambda: save_model_binary(llms[0], path))
            time.sleep(0.004)
            assert path.read_bytes() in whole
            kill(third)
            assert path.read_bytes() in whole
            counted("SIGKILLs of one of three that save to one path")
    finally:
        for process in processes:
            kill(process)
    save_model_binary(llms[0], path)
    assert os.listdir(tmp_path) == ["m.bin"]


@pytest.fixture(scope="module")
def bench_kill() -> ModuleType:
    """benchmarks/bench_kill.py, which does the same for as long as one likes."""
    path = Path(__file__).parent.parent / "benchmarks" / "bench_kill.py"
    spec = spec_from_file_location("bench_kill", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_two_trainings_of_one_folder_are_killed(bench_kill: ModuleType, counted: Counted) -> None:
    """Both go on from their own checkpoints, and end with the bits of undisturbed trainings."""
    options = argparse.Namespace(kills=KILLED_TRAININGS, epochs=10, life=0.0, seed=1, json=True)
    threads = get_num_threads()
    result = bench_kill.measure(options)
    set_num_threads(threads)
    assert result.kills >= KILLED_TRAININGS and result.resumed > KILLED_TRAININGS // 2
    assert result.finished == 2 * result.rounds
    counted("SIGKILLs of two trainings in one folder", result.kills)


def test_other_bits_are_noticed(bench_kill: ModuleType, tmp_path: Path) -> None:
    training = bench_kill.Training(tmp_path, 0)
    whole = save_model_binary(tiny_llm(), tmp_path / "whole.bin")
    llm = tiny_llm()
    llm.training_state.seconds += 1
    save_model_binary(llm, training.out)
    bench_kill.compare(training, whole)
    llm.gpt.arena.require_moments()[1][0] += 1
    save_model_binary(llm, training.out)
    with pytest.raises(bench_kill.Damage, match="other bits"):
        bench_kill.compare(training, whole)
    with pytest.raises(bench_kill.Damage, match="cannot be used"):
        bench_kill.refuse(CheckpointError("damaged"))


# Calls that fail

CALLS = (
    "open",
    "write",
    "lseek",
    "fdatasync",
    "fsync",
    "replace",
    "close",
    "unlink",
    "link",
    "fchmod",
    "listdir",
    "mkdir",
    "fstat",
    "stat",
)
CODES = (errno.EIO, errno.ENOSPC)


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> list[int]:
    """Let the call `number` of os.<name> (from 0) fail; counts the calls."""
    real, calls = getattr(os, name), [0]

    def call(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == number + 1:
            if name == "close":  # on Linux the file is closed then all the same
                real(*args)
            raise OSError(code, os.strerror(code))
        return real(*args, **keywords)

    monkeypatch.setattr(os, name, call)
    return calls


def every_failure(
    monkeypatch: pytest.MonkeyPatch,
    save: Callable[[], object],
    names: tuple[str, ...] = CALLS,
    before: Callable[[], object] = lambda: None,
) -> Iterator[tuple[str, str]]:
    """Make every call of a save fail once: (name of the call, "failed" or "saved").

    before  is called before each save
    """
    for name in names:
        for code in CODES:
            for number in range(1000):
                before()
                with monkeypatch.context() as patch:
                    calls = failing(patch, name, number, code)
                    outcome = "saved"
                    try:
                        save()
                    except CheckpointError as error:
                        assert error.code == "write" and "\n" not in str(error)
                        outcome = "failed"
                if calls[0] <= number:
                    break
                yield name, outcome


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_every_call_of_a_save_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted, save: Callable[..., Path]
) -> None:
    path = tmp_path / "m"
    new = save(tiny_llm(), path).read_bytes()
    old = save(small_llm(), path).read_bytes()
    count: dict[tuple[str, str], int] = {}

    def before() -> None:
        save(small_llm(), path)
        assert os.listdir(tmp_path) == ["m"] and path.read_bytes() == old

    for name, outcome in every_failure(monkeypatch, lambda: save(tiny_llm(), path), before=before):
        count[name, outcome] = count.get((name, outcome), 0) + 1
        found = path.read_bytes()
        assert found in (old, new) and (found == new or outcome == "failed")
        if found == new and outcome == "failed":
            assert name in ("fsync", "open", "close")  # of the folder, after the rename
    assert {name for name, _ in count} >= {"open", "write", "fsync", "replace", "close"}
    assert all(count.get((name, "failed")) for name in ("open", "write", "fsync", "replace"))
    counted("failures of single calls of a save", sum(count.values()))


def test_every_call_of_a_manager_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted
) -> None:
    """Whatever fails, the checkpoint before or the new one is found, and nothing is left over."""
    llm = trained_llm()
    manager = CheckpointManager(tmp_path, "best+last", keep=1)

    def save() -> None:
        next_step(llm)
        manager.step_done(llm)
        manager.wait()

    save()
    failures = 0
    for _ in every_failure(
        monkeypatch, save, ("open", "write", "fsync", "replace", "close", "unlink", "link")
    ):
        failures += 1
        found = manager.latest(lambda error: pytest.fail(str(error)))
        assert found is not None
        step = load_model_binary(found).training_state.step
        assert step in (llm.training_state.step, llm.training_state.step - 1)
        save()
        assert not left_over(tmp_path)
        best = [path.name for path in tmp_path.glob("checkpoint_best*.bin")]
        assert len(best) == 1
    manager.close()
    assert failures > 60
    counted("failures of single calls of a manager", failures)


# A disk that is full, a folder that is read-only, a limit, for real

SAVE = """
import os, sys
sys.path.insert(0, {tests!r})
from make_fixtures import tiny_llm
from cgpt.checkpoint.saving import save_model_binary
from cgpt.errors import CheckpointError
from cgpt.kernels import get_num_threads, set_num_threads
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    save_model_binary(tiny_llm(), {path!r})
except CheckpointError as error:
    print(error.code, error)
"""


def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = save_model_binary(small_llm(), folder / "m.bin")
    before = path.read_bytes()
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        above.chmod(0o755)
    folder.chmod(0o555)
    path.chmod(0o666)
    try:
        code = SAVE.format(tests=str(Path(__file__).parent), path=str(path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        last = done.stderr.rpartition("\nModuleNotFoundError")[2] if done.returncode else ""
        if last and last != done.stderr:
            pytest.skip("another user cannot read what is imported:" + last)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("write ") and "no permission to write in" in done.stdout
        assert path.read_bytes() == before and os.listdir(folder) == ["m.bin"]
    finally:
        folder.chmod(0o755)


@pytest.mark.skipif(
    not os.path.exists("/dev/full") or os.geteuid() != 0 or not hasattr(os, "fork"),
    reason="a small file system can be mounted by the superuser only",
)
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(small)], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        path = save_model_binary(tiny_llm(), small / "m.bin")
        before = path.read_bytes()
        with pytest.raises(CheckpointError, match="free") as info:
            save_model_binary(tiny_llm(), path)
        assert info.value.code == "write"
        with pytest.MonkeyPatch.context() as patch:  # it fills up while it is written
            patch.setattr("cgpt.fileio.atomic._check_space", lambda *args: None)
            with pytest.raises(CheckpointError, match="full disk"):
                save_model_binary(tiny_llm(), path)
        assert path.read_bytes() == before and os.listdir(small) == ["m.bin"]
    finally:
        subprocess.run(["umount", str(small)], check=True)
