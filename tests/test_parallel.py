"""Training by several processes: real ones over MPI, and what each of them computes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import asked_for
from small_llm import TEXTS, small_llm

from cgpt import ConfigError, TrainConfig, Trainer, load_model_auto
from cgpt.cli import ranks
from cgpt.corpus.packing import pack
from cgpt.locale import set_language
from cgpt.runtime.process_group import SINGLE_PROCESS
from cgpt.training import mpi
from cgpt.training.data_parallel import GradientSum, buckets, share

BIN = Path(sys.executable).parent
MPIEXEC = BIN / "mpiexec"
needs_mpi = pytest.mark.skipif(not asked_for("mpi"), reason="mpich has no wheel for this system")
RECIPE = ["--preset", "tiny", "--vocab-size", "400", "--pretrain-epochs", "1", "--batch-size", "1"]


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "CGPT_LANG": "en",
        "CGPT_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        **more,
    }


def command(size: int, *args: str) -> list[str]:
    own = [sys.executable, "-m", "cgpt", *args]
    return own if size == 1 else [str(MPIEXEC), "-n", str(size), *own, "--parallel", "mpi"]


def run(size: int, *args: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(size, *args),
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(**more),
        start_new_session=True,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifty short texts."""
    path = tmp_path_factory.mktemp("data") / "texts.json"
    path.write_text(json.dumps([f"{text}{i}。" for i in range(8) for text in TEXTS]), "utf-8")
    return str(path)


def trained(size: int, folder: Path, data: str, *more: str) -> tuple[Any, list[float]]:
    """(model, loss of every step) of a training by so many processes."""
    out, log = folder / f"{size}.bin", folder / f"{size}.jsonl"
    run(size, "train", "--pretrain", data, *RECIPE, *more, "--out", str(out), "--log", str(log))
    steps = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return load_model_auto(out), [step["loss"] for step in steps if "loss" in step]


@needs_mpi
def test_cuts_that_move_and_own_validation_data_are_those_of_one_process(
    tmp_path: Path, data: str
) -> None:
    (tmp_path / "long.json").write_text(json.dumps(["".join(TEXTS) * 3 + TEXTS[0]] * 6), "utf-8")
    more = (
        "--grad-accum",
        "2",
        "--validation",
        data,
        "--eval-every",
        "1",
        "--pretrain-epochs",
        "2",
        "--keep-duplicates",
    )
    one, losses = trained(1, tmp_path, str(tmp_path / "long.json"), *more)
    two, same = trained(2, tmp_path, str(tmp_path / "long.json"), *more)
    assert len(losses) > 2 and losses == same and one.training_state.moving_cuts
    assert np.array_equal(one.gpt.arena.data, two.gpt.arena.data)
    assert one.training_state.history == two.training_state.history


@needs_mpi
def test_processes_train_what_one_does(tmp_path: Path, data: str) -> None:
    """Two against two accumulation steps: the same bits; three: rounding apart."""
    accumulated = ("--grad-accum", "2", "--val-fraction", "0.2")
    one, losses = trained(1, tmp_path, data, *accumulated)
    two, same = trained(2, tmp_path, data, *accumulated)
    assert len(losses) > 1 and losses == same
    assert np.array_equal(one.gpt.arena.data, two.gpt.arena.data)
    assert np.array_equal(one.gpt.arena.m, two.gpt.arena.m)
    assert one.training_state.best_loss == two.training_state.best_loss
    three, near = trained(3, tmp_path, data, *accumulated)
    assert near == pytest.approx(losses, rel=1e-5)
    assert np.abs(one.gpt.arena.data - three.gpt.arena.data).max() < 1e-4


@needs_mpi
def test_resume_with_another_number_of_processes(tmp_path: Path, data: str) -> None:
    whole, losses = trained(1, tmp_path, data, "--grad-accum", "2")
    out = tmp_path / "part.bin"
    run(
        2,
        "train",
        "--pretrain",
        data,
        *RECIPE,
        "--grad-accum",
        "2",
        "--max-steps",
        "2",
        "--out",
        str(out),
    )
    run(3, "resume", str(out), "--out", str(out), "--checkpoint-dir", str(tmp_path))
    resumed = load_model_auto(out)
    assert resumed.training_state.step == whole.training_state.step == len(losses)
    assert np.abs(whole.gpt.arena.data - resumed.gpt.arena.data).max() < 1e-4


@needs_mpi
def test_processes_share_a_cache_and_a_mix(tmp_path: Path, data: str) -> None:
    code = (
        "import sys, cgpt.cli, cgpt.corpus.documents, cgpt.corpus.token_cache\n"
        "cgpt.corpus.token_cache.LARGE_CORPUS, cgpt.corpus.documents.SHARD_CHARACTERS = 0, 200\n"
        "sys.exit(cgpt.cli.main(sys.argv[1:]))"
    )
    found = []
    for size in 1, 2:
        out, cache = (str(tmp_path / f"{size}.{suffix}") for suffix in ("bin", "cache"))
        own = [
            sys.executable,
            "-c",
            code,
            "train",
            "--pretrain",
            data,
            *RECIPE,
            "--grad-accum",
            "2",
            "--mix",
            f"{data}=1.5",
            "--cache",
            cache,
            "--out",
            out,
        ]
        together = [str(MPIEXEC), "-n", str(size), *own, "--parallel", "mpi"]
        subprocess.run(
            own if size == 1 else together,
            check=True,
            timeout=120,
            capture_output=True,
            env=environment(),
            start_new_session=True,
        )
        assert len(list(Path(cache).glob("*/*.shard"))) > 2
        found.append(load_model_auto(out))
    assert np.array_equal(found[0].gpt.arena.data, found[1].gpt.arena.data)


@needs_mpi
def test_an_adapter_is_trained_and_resumed_by_processes(tmp_path: Path, data: str) -> None:
    """The others get the model that the adapter belongs to from process 0: the same bits."""
    chats = tmp_path / "chats.json"
    chats.write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": f"{text}{i}"},
                        {"role": "assistant", "content": text},
                    ]
                }
                for i in range(16)
                for text in TEXTS
            ]
        ),
        "utf-8",
    )
    base, whole, part = (str(tmp_path / name) for name in ("base.bin", "whole.bin", "part.bin"))
    run(1, "train", "--pretrain", data, *RECIPE, "--max-steps", "1", "--out", base)
    adapt = (
        "train",
        "--init",
        base,
        "--chat",
        str(chats),
        "--lora-rank",
        "2",
        "--batch-size",
        "2",
        "--finetune-epochs",
        "2",
        "--grad-accum",
        "2",
    )
    run(1, *adapt, "--out", whole)
    run(2, *adapt, "--max-steps", "2", "--out", part)
    run(2, "resume", part, "--out", part, "--checkpoint-dir", str(tmp_path))
    one, two = map(load_model_auto, (whole, part))
    assert one.training_state.step == two.training_state.step > 2
    assert np.array_equal(one.gpt.arena.data, two.gpt.arena.data)
    assert np.array_equal(one.optimizer.arena.m, two.optimizer.arena.m)


def started(folder: Path, data: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A long training of two processes that is under way, and their pids in order."""
    log = folder / "log.jsonl"
    process = subprocess.Popen(
        command(
            2,
            "train",
            "--pretrain",
            data,
            *RECIPE,
            "--pretrain-epochs",
            "300",
            "--log",
            str(log),
            "--checkpoint-dir",
            str(folder),
            "--out",
            str(folder / "out.bin"),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while not log.exists() or log.read_text("utf-8").count("\n") < 3:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    return process, [rank_of(folder, rank) for rank in (0, 1)]


def rank_of(folder: Path, rank: int) -> int:
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                asked = (path / "cmdline").read_bytes()
                variables = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                os.fsencode(folder / "log.jsonl") in asked
                and f"PMI_RANK={rank}".encode() in variables
            ):
                return int(path.name)
    raise AssertionError(f"no process of rank {rank}")


@needs_mpi
@pytest.mark.parametrize(
    ("number", "rank", "code"),
    [(signal.SIGTERM, 1, 143), (signal.SIGINT, 0, 130), (signal.SIGKILL, 1, 9)],
)
def test_what_ends_one_ends_all_with_a_checkpoint(
    number: int, rank: int, code: int, tmp_path: Path, data: str
) -> None:
    process, pids = started(tmp_path, data)
    os.kill(pids[rank], number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    last = tmp_path / "checkpoint_last.bin"
    until = time.monotonic() + 30  # behind SIGKILL process 0 outlives mpiexec
    while not last.exists() and time.monotonic() < until:
        time.sleep(0.05)
    state = load_model_auto(last).training_state
    assert state.unfinished and state.step > 0
    if number != signal.SIGKILL:
        assert output.count("to go on: cgpt resume") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_ends_the_first_process_ends_the_one_that_waits_for_it(number: int) -> None:
    code = (
        "import os, signal; from cgpt.cli.ranks import run_in_own_session\n"
        f"run_in_own_session(); os.kill(os.getpid(), {int(number)}); signal.pause()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr) == (-number, "")


@needs_mpi
def test_a_failure_of_one_ends_all_and_is_said_once(tmp_path: Path, data: str) -> None:
    """The second process has no permission to unpack the run that it is sent."""
    code = (
        "import os, sys, cgpt.training.broadcast, cgpt.cli\n"
        "def fail(path): raise cgpt.DataError('no room for the run')\n"
        "if os.environ.get('PMI_RANK') == '1': cgpt.training.broadcast.LLM.from_bytes = fail\n"
        "sys.exit(cgpt.cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            str(MPIEXEC),
            "-n",
            "2",
            sys.executable,
            "-c",
            code,
            "train",
            "--pretrain",
            data,
            *RECIPE,
            "--out",
            str(tmp_path / "m.bin"),
            "--parallel",
            "mpi",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        start_new_session=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("no room for the run") == 1 and "process 1 of 2" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "m.bin").exists()


@needs_mpi
def test_processes_that_are_not_alike_are_refused(tmp_path: Path, data: str) -> None:
    code = (
        "import os, sys, cgpt.cli, cgpt.version\n"
        "if os.environ.get('PMI_RANK') == '1': cgpt.version.__version__ = '0.0.9'\n"
        "sys.exit(cgpt.cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            str(MPIEXEC),
            "-n",
            "2",
            sys.executable,
            "-c",
            code,
            "train",
            "--pretrain",
            data,
            "--parallel",
            "mpi",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        start_new_session=True,
    )
    assert done.returncode == 1
    assert "process 1 on" in done.stderr and "found 0.0.9" in done.stderr


def test_one_process_alone_is_told_what_to_do(data: str) -> None:
    done = run(1, "train", "--pretrain", data, "--parallel", "mpi", code=1)
    assert "mpiexec" in done.stderr or "pip install" in done.stderr
    done = run(1, "train", "--pretrain", data, code=1, PMI_RANK="0", PMI_SIZE="2")
    assert "--parallel mpi" in done.stderr


def test_a_missing_mpi4py_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cgpt.training.mpi import connect

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ConfigError, match=r"pip install 'cgpt\[mpi\]'"):
        connect()


# ---- what each process computes --------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("grad_accum", [1, 2, 3, 4])
def test_shares_are_the_whole(size: int, grad_accum: int) -> None:
    llm = small_llm()
    batches = list(pack(llm.samples(TEXTS * 3), 90))[:grad_accum]
    parts = [share(batches, grad_accum, rank, size) for rank in range(size)]
    found = [(micro, first, part) for one in parts for micro, first, part in one]
    for i, batch in enumerate(batches):
        mine = [part for micro, _, part in found if micro == i]
        for name in ("ids", "targets", "positions"):
            whole = np.concatenate([getattr(part, name) for part in mine])
            assert np.array_equal(whole, getattr(batch, name))
        assert sum(part.counted for part in mine) == batch.counted
        assert all(part.offsets[0] == 0 and part.offsets[-1] == len(part.ids) for part in mine)
    if grad_accum % size == 0:
        assert len(found) == len(batches)  # none is cut


def test_a_gradient_of_micro_batches_is_their_sum() -> None:
    llm = small_llm()
    batches = list(pack(llm.samples(TEXTS * 2), 90))[:3]
    counted = sum(batch.counted for batch in batches)
    separate = []
    for last in (False, True):
        gradient = GradientSum(llm.gpt, SINGLE_PROCESS)
        for i, batch in enumerate(batches):
            llm.gpt.forward(
                batch.ids,
                batch.targets,
                offsets=batch.offsets,
                positions=batch.positions,
                scale=1 / counted,
            )
            gradient.add(last=not last or i == len(batches) - 1)
        gradient.finish()
        separate.append(llm.gpt.arena.require_grad().copy())
        llm.gpt.arena.grad.fill(0)
        llm.gpt.arena.clean = True
    assert separate[0].any()
    np.testing.assert_allclose(*separate, rtol=1e-4, atol=1e-7)  # sums in another order


def test_buckets_cover_the_arena_once() -> None:
    gpt = small_llm(n_layer=3).gpt
    found = buckets(gpt.arena, gpt.block_names(), least=1)
    assert [name for name, _, _ in found] == ["h.2", "h.1", "h.0", "", ""]
    taken = sorted((start, stop) for _, start, stop in found)
    assert taken[0][0] == 0 and taken[-1][1] == gpt.arena.size
    assert all(a[1] == b[0] for a, b in pairwise(taken))


def test_a_stop_of_any_process_is_taken_up() -> None:
    """The training asks the others after each step and takes their word."""

    class Other(type(SINGLE_PROCESS)):  # type: ignore[misc]
        calls = 0

        def gather(self, values: Any) -> Any:
            self.calls += 1
            return np.array([values, [float(self.calls == 3), 0.0]])

    result = Trainer(small_llm(), TrainConfig(epochs=9, batch_tokens=64), parallel=Other()).fit(
        TEXTS
    )
    assert result.stopped == "interrupted" and result.steps == 3


def test_the_first_line_fits_a_narrow_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Narrow()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(
        mpi, "connect", lambda: SimpleNamespace(rank=0, size=12, machines=3, threads=16)
    )
    monkeypatch.setattr(ranks, "share_processors", lambda team: None)
    monkeypatch.setattr(ranks, "together", lambda team, others, work: 0)
    set_language("en")
    try:
        assert ranks.in_parallel(lambda **values: 1)(parallel="mpi", cache=None) == 0
    finally:
        set_language("zh")
    lines = shown.getvalue().splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 40
    assert " ".join(lines) == "12 processes train together (3 machines, 16 threads each)"
