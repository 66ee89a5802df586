"""Saves that fail: the old file stays whole, nothing is left over, and the reason is told."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from make_fixtures import tiny_llm
from small_llm import small_llm

from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CheckpointError
from cgpt.fileio import atomic
from cgpt.fileio.atomic import PREFIX, SUFFIX, write_file
from cgpt.llm import load_model_auto, load_model_binary

SAVES = [save_model_binary, save_model_json]
Save = Callable[..., Path]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> list[int]:
    """Let the call `number` of os.<name> (from 0) fail with `code`; counts the calls."""
    real, calls = getattr(os, name), [0]

    def call(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == number + 1:
            raise OSError(code, os.strerror(code))
        return real(*args, **keywords)

    monkeypatch.setattr(os, name, call)
    return calls


def refused(save: Save, path: Path | str, pattern: str) -> None:
    """The save fails with code "write" and a sentence that names file, reason and way out."""
    with pytest.raises(CheckpointError, match=pattern) as info:
        save(tiny_llm(), path)
    text = str(info.value)
    assert info.value.code == "write"
    assert text.startswith(str(path)) and "expected" in text and "; " in text and "\n" not in text


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize(
    ("code", "pattern"),
    [
        (errno.ENOSPC, "full disk.*free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "input/output error"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "read-only file system.*another folder"),
    ],
)
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, code: int, pattern: str
) -> None:
    path = save(small_llm(), tmp_path / "model")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        failing(patch, "write", 0, code)
        refused(save, path, pattern)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("name", ["write", "fsync", "replace", "lseek"])
def test_every_single_call_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, name: str
) -> None:
    path = save(small_llm(), tmp_path / "model")
    old, new = path.read_bytes(), save(tiny_llm(), tmp_path / "new").read_bytes()
    (tmp_path / "new").unlink()
    failed = 0
    for number in range(400):
        with monkeypatch.context() as patch:
            calls = failing(patch, name, number, errno.EIO)
            try:
                save(tiny_llm(), path)
            except CheckpointError as error:
                assert error.code == "write"
                failed += 1
        if calls[0] <= number:  # the save has no such call: every one has failed once
            break
        assert os.listdir(tmp_path) == ["model"]
        if path.read_bytes() != old:  # only the last fsync comes after the rename
            assert path.read_bytes() == new and name == "fsync"
            path.write_bytes(old)
    else:
        pytest.fail("the save never succeeded")
    assert failed == number and (failed > 0 or (name == "lseek" and save is save_model_json))
    assert path.read_bytes() == new


def test_a_disk_error_met_while_writing_on_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data is sent to the disk ahead of the last sync; what that reports must count."""
    path = save_model_binary(small_llm(), tmp_path / "model")
    before = path.read_bytes()
    monkeypatch.setattr(atomic, "_MOST", 1000)
    with monkeypatch.context() as patch:
        calls = failing(patch, "fdatasync", 0, errno.EIO)
        refused(save_model_binary, path, "input/output error")
    assert calls[0] > 0
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model"]
    save_model_binary(tiny_llm(), path)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    whole = save_model_binary(tiny_llm(), tmp_path / "a").read_bytes()
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    assert save_model_binary(tiny_llm(), tmp_path / "b").read_bytes() == whole


def test_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    calls = failing(monkeypatch, "write", -1, 0)
    for save in SAVES:
        refused(save, tmp_path / "x", "0.0 MB free on the disk, expected 0.0 MB")
    assert calls == [0] and os.listdir(tmp_path) == []


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
from make_fixtures import tiny_llm
from cgpt.checkpoint.saving import save_model_binary
llm = tiny_llm()
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
save_model_binary(llm, {path!r})
"""


def test_limit_on_file_sizes(tmp_path: Path) -> None:
    path = save_model_binary(small_llm(), tmp_path / "m.bin")
    before = path.read_bytes()
    code = LIMITED.format(tests=str(Path(__file__).parent), path=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "ulimit -f" in done.stderr
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.bin"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 8192


# Places where no file can be


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.symlink("loop_b", tmp_path / "loop_a")
    os.symlink("loop_a", tmp_path / "loop_b")
    os.mkfifo(tmp_path / "pipe")
    for save in SAVES:
        refused(save, tmp_path / "file" / "m.bin", "a file where .* needs a folder")
        refused(save, tmp_path / "file" / "deep" / "m.bin", "a file where .* needs a folder")
        refused(save, tmp_path / "folder", "a folder of this name")
        refused(save, tmp_path / "loop_a", "symbolic links that point to each other")
        refused(save, tmp_path / "pipe", "a device or pipe")
        refused(save, "/dev/full", "a device or pipe")
        refused(save, tmp_path / ("x" * 300), "too long")
        refused(save, tmp_path / "a\0b", "NUL")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "loop_a", "loop_b", "pipe"]
    assert (tmp_path / "file").read_text() == "x"


def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model_binary(small_llm(), tmp_path / "m.bin")
    before = path.read_bytes()
    with monkeypatch.context() as patch:  # the superuser has every permission
        patch.setattr(os, "access", lambda path, mode: False)
        refused(save_model_binary, path, "write-protected")
    real = os.open

    def denied(name: Any, flags: int, *args: Any, **keywords: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(name, flags, *args, **keywords)

    monkeypatch.setattr(os, "open", denied)
    refused(save_model_binary, path, "no permission to write in .*another folder")
    assert path.read_bytes() == before


def test_missing_folders_are_made(tmp_path: Path) -> None:
    for save in SAVES:
        path = tmp_path / save.__name__ / "a" / "b" / "m"
        assert save(tiny_llm(), path) == path
        load_model_auto(path)


def test_a_symbolic_link_keeps_pointing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.bin", tmp_path / "there" / "real.bin"
    os.symlink("there/real.bin", link)
    save_model_binary(tiny_llm(), link)
    assert link.is_symlink() and target.is_file() and not target.is_symlink()
    save_model_binary(small_llm(), link)
    assert load_model_binary(target).config == small_llm().config
    assert os.listdir(tmp_path / "there") == ["real.bin"]


def test_permissions_of_the_old_file_stay(tmp_path: Path) -> None:
    path = save_model_binary(tiny_llm(), tmp_path / "m.bin")
    path.chmod(0o640)
    save_model_binary(tiny_llm(), path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model_binary(small_llm(), tmp_path / "m.bin")
    before = path.read_bytes()

    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    for save in SAVES:
        with pytest.raises(KeyboardInterrupt):
            save(tiny_llm(), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.bin"]


# Processes that die, and processes that meet


def test_stale_files_are_removed_and_living_ones_are_not(tmp_path: Path) -> None:
    stale = tmp_path / f"{PREFIX}0123456789abcdef{SUFFIX}"
    stale.write_bytes(b"left by a process that died")
    other = tmp_path / ".cgpt-notes.txt"
    other.write_text("not a temporary file")
    inside = threading.Event()
    go_on = threading.Event()

    def slow(out: Any) -> None:
        out.write(b"slow")
        inside.set()
        assert go_on.wait(10)

    writer = threading.Thread(target=write_file, args=(tmp_path / "slow", 4, slow))
    writer.start()
    try:
        assert inside.wait(10)
        assert not stale.exists()
        save_model_binary(tiny_llm(), tmp_path / "quick.bin")  # must not remove the slow one
    finally:
        go_on.set()
        writer.join()
    assert (tmp_path / "slow").read_bytes() == b"slow"
    assert sorted(os.listdir(tmp_path)) == [".cgpt-notes.txt", "quick.bin", "slow"]


SAVING = """
import sys
sys.path.insert(0, {tests!r})
from small_llm import small_llm
from cgpt.checkpoint.saving import save_model_binary
models = [small_llm(seed=seed, n_embd=128) for seed in (1, 2)]
print("ready", flush=True)
while True:
    for llm in models:
        save_model_binary(llm, {path!r})
"""


def saving_process(path: Path) -> subprocess.Popen[str]:
    code = SAVING.format(tests=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_two_processes_save_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    processes = [saving_process(path) for _ in range(2)]
    try:
        time.sleep(0.2)
        for _ in range(30):
            if path.exists():
                assert describe(path, verify=True)["verified"]
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    save_model_binary(tiny_llm(), path)
    assert os.listdir(tmp_path) == ["m.bin"]
