"""What commands write to: what is named or announced, and nothing that is not their own unasked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from screen import Screen, environment
from small_llm import FACTS, TEXTS, small_llm

from cgpt.checkpoint.latest import read
from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import training_session
from cgpt.llm import load_model_auto
from cgpt.training.step_log import read_log

MODEL = "checkpoints/model_final.bin"
LAST = "checkpoints/checkpoint_last.bin"
TRAIN = (
    "train",
    "--pretrain",
    "texts.json",
    "--preset",
    "tiny",
    "--seed",
    "3",
    "--pretrain-epochs",
    "6",
    "--sample-every",
    "0",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_cgpt: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run_cgpt` where texts.json is; in English."""
    monkeypatch.setenv("CGPT_LANG", "en")
    write_data(tmp_path)
    return run_cgpt


def write_data(folder: Path) -> None:
    (folder / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    (folder / "chats.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                }
            )
            + "\n"
            for question, answer in FACTS
        ),
        encoding="utf-8",
    )


def stopped_at(monkeypatch: pytest.MonkeyPatch, step: int, run: Run, *args: str) -> str:
    """The command, interrupted after that step; its stderr."""
    fit = training_session.Session.fit

    def stop(self: training_session.Session, one: object, phase: str, request: object) -> object:
        def done(llm: object) -> None:
            training_session.Session.step_done(self, llm)  # type: ignore[arg-type]
            if llm.training_state.step == step:  # type: ignore[attr-defined]
                request.number = 2  # type: ignore[attr-defined]

        self.step_done = done  # type: ignore[method-assign]
        return fit(self, one, phase, request)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training_session.Session, "fit", stop)
        code, _, err = run(*args)
    assert code == 130, err
    return err


def step_of(path: str) -> int:
    return load_model_auto(path).training_state.step


# ---- resume --------------------------------------------------------------------------------


def test_the_file_that_is_named_is_the_file_that_is_written(run: Run, tmp_path: Path) -> None:
    assert run(*TRAIN, "--max-steps", "3", "--out", "my.bin", "--log", "my.jsonl")[0] == 0
    shutil.copy("my.bin", "experiment.bin")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, out, err = run("resume", "experiment.bin", "--json")
    assert code == 0 and json.loads(out)["out"] == "experiment.bin"
    assert "the model goes to experiment.bin" in err
    assert "my.jsonl belongs to the training that this file was copied from" in err
    assert step_of("experiment.bin") > 3
    for name in set(before) - {"experiment.bin"}:
        assert (tmp_path / name).read_bytes() == before[name]
    assert {path.name for path in tmp_path.iterdir()} == {*before}
    code, _, err = run("resume", "my.bin", "--out", "more.bin")
    assert code == 0 and step_of("my.bin") == 3 and step_of("more.bin") > 3
    assert "the log goes to my.jsonl" in err  # its own file was named


def test_copies_are_trainings_of_their_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, stopped in one folder, after too few steps to tell them apart by their losses:
    each is found again, and goes on to the bits of one that was not stopped."""
    assert run(*TRAIN, "--out", "base.bin")[0] == 0
    rates = {"a.bin": "0.001", "b.bin": "0.002"}
    for name, rate in rates.items():
        shutil.copy("base.bin", name)
        err = stopped_at(monkeypatch, 7, run, "resume", name, "--epochs", "12", "--lr", rate)
        assert err.rstrip().endswith(f"--out {name}")
    last = sorted(Path("checkpoints").glob("checkpoint_last*.bin"))
    assert sorted(read(path).out for path in last) == ["a.bin", "b.bin"]
    for path in last:
        code, _, err = run("resume", str(path), "--out", read(path).out)
        assert code == 0, err
    for name, rate in rates.items():
        whole = f"whole_{name}"
        assert run("resume", "base.bin", "--epochs", "12", "--lr", rate, "--out", whole)[0] == 0
        one, other = load_model_auto(name), load_model_auto(whole)
        assert (one.gpt.arena.data == other.gpt.arena.data).all()
        ids = {read(Path(file)).state.run_id for file in (name, whole, "base.bin")}
        assert len(ids) == 3


def test_a_finished_phase_that_goes_on_is_found_and_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*TRAIN, "--out", "my.bin")[0] == 0
    before = read(Path("my.bin")).state
    stopped_at(monkeypatch, 7, run, "resume", "my.bin", "--epochs", "12")
    assert run("resume")[0] == 0
    after = read(Path("my.bin")).state
    assert after.step > before.step and after.run_id == before.run_id


def test_a_training_that_is_found_goes_where_it_was_to_go(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = stopped_at(monkeypatch, 2, run, *TRAIN, "--out", "my.bin", "--log", "log/a.jsonl")
    assert err.rstrip().endswith(f"cgpt resume {LAST} --out my.bin")
    code, _, err = run("resume")
    assert code == 0 and "the model goes to my.bin" in err and "the log goes to log/a.jsonl" in err
    (curve,) = read_log("log/a.jsonl").curves
    assert curve.steps == list(range(1, step_of("my.bin") + 1))
    head = json.loads(Path("log/a.jsonl").read_text().splitlines()[0])
    assert head["run_id"] == read(Path("my.bin")).state.run_id


def test_the_recorded_path_may_be_another_models_by_now(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, 2, run, *TRAIN, "--out", "my.bin")
    save_model_binary(small_llm(), "my.bin")
    before = Path("my.bin").read_bytes()
    code, _, err = run("resume")
    assert code == 1 and "my.bin: the file exists" in err and "--overwrite" in err
    assert Path("my.bin").read_bytes() == before
    assert run("resume", "--out", "other.bin")[0] == 0 and Path("my.bin").read_bytes() == before


def test_resuming_a_checkpoint_by_name_writes_that_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, 2, run, *TRAIN, "--out", "my.bin")
    assert run("resume", LAST)[0] == 0
    assert not Path("my.bin").exists() and load_model_auto(LAST).training_state.done == ["pretrain"]
    # It is the only copy of that model: a later training leaves it.
    before = Path(LAST).read_bytes()
    stopped_at(monkeypatch, 1, run, *TRAIN, "--seed", "4", "--out", "next.bin")
    assert Path(LAST).read_bytes() == before


def test_several_unfinished_trainings(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(monkeypatch, 2, run, *TRAIN, "--out", "a.bin")
    first = Path(LAST).read_bytes()
    err = stopped_at(monkeypatch, 3, run, *TRAIN, "--seed", "4", "--out", "b.bin")
    other = next(path.as_posix() for path in Path("checkpoints").glob("checkpoint_last_*.bin"))
    assert err.rstrip().endswith(f"cgpt resume {other} --out b.bin")
    assert Path(LAST).read_bytes() == first
    code, out, err = run("resume")
    assert (code, out) == (1, "") and err.count("step ") == 2
    assert LAST in err.splitlines()[-1] and other in err.splitlines()[-1]
    assert run("resume", other, "--out", "b.bin")[0] == 0
    code, _, err = run("resume")  # the only one that is left
    assert code == 0 and f"going on with {LAST}" in err
    for name, seed in (("a.bin", "3"), ("b.bin", "4")):
        assert run(*TRAIN, "--seed", seed, "--out", "whole.bin", "--overwrite")[0] == 0
        one, whole = load_model_auto(name), load_model_auto("whole.bin")
        assert (one.gpt.arena.data == whole.gpt.arena.data).all()
        assert (one.gpt.arena.v == whole.gpt.arena.v).all()


def test_which_training_is_asked_at_a_terminal(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in (("3", "a.bin"), ("4", "b.bin")):
        stopped_at(monkeypatch, 2, run, *TRAIN, "--seed", seed, "--out", name)
    with Screen("resume", cwd=tmp_path, CGPT_LANG="en") as screen:
        screen.expect("trainings that can go on:")
        screen.answer("Your choice (1/2): ", "2")
        assert screen.end() == 0
    assert Path("a.bin").exists() != Path("b.bin").exists()


# ---- files that are there ------------------------------------------------------------------


def test_train_refuses_what_is_not_its_own(run: Run) -> None:
    assert run(*TRAIN, "--max-steps", "1")[0] == 0
    before = Path(MODEL).read_bytes()
    for more in (
        (),
        ("--out", MODEL),
        ("--out", "new.bin", "--save-pretrained", MODEL),
        ("--out", "new.bin", "--log", MODEL),
    ):
        code, out, err = run(*TRAIN, "--max-steps", "2", *more)
        assert (code, out) == (1, "") and err.rstrip().endswith(
            f"error: {MODEL}: the file exists, expected a new one; name another file, or replace "
            "it by --overwrite"
        )
        assert Path(MODEL).read_bytes() == before and not Path("new.bin").exists()
    assert run(*TRAIN, "--max-steps", "2", "--overwrite")[0] == 0 and step_of(MODEL) == 2
    Path("empty.bin").touch()
    assert run(*TRAIN, "--max-steps", "2", "--out", "empty.bin")[0] == 0


def test_data_are_never_replaced_by_what_is_made_of_them(run: Run, tmp_path: Path) -> None:
    Path("data").mkdir()
    shutil.copy("texts.json", "data/a.json")
    Path("link.json").symlink_to("data/a.json")
    before = Path("data/a.json").read_bytes()
    train = ("train", "--preset", "tiny", "--max-steps", "1", "--overwrite")
    save_model_binary(small_llm(), "a.bin")
    assert run(*train, "--pretrain", "data", "--out", "begun.bin")[0] == 0
    for command, option, path in (
        (("resume", "begun.bin", "--overwrite"), "--out", "data/a.json"),
        ((*train, "--pretrain", "data/a.json"), "--out", "data/a.json"),
        ((*train, "--pretrain", "data"), "--out", "link.json"),
        ((*train, "--pretrain", "data"), "--log", str(tmp_path / "data/a.json")),
        ((*train, "--data", "link.json"), "--save-pretrained", "data/a.json"),
        (("tokenizer", "train", "data", "--overwrite"), "--out", "./data/a.json"),
        (("eval", "a.bin", "data", "--overwrite"), "--answers", "data/a.json"),
    ):
        code, out, err = run(*command, option, path)
        assert (code, out) == (1, "") and err.rstrip().endswith(
            f"error: {path}: {option} would replace a file of the data that is read; name "
            "another file"
        )
        assert Path("data/a.json").read_bytes() == before


def test_two_results_of_a_training_are_two_files(run: Run) -> None:
    for more in (("--save-pretrained", "./a.bin"), ("--log", "a.bin")):
        code, out, err = run(*TRAIN, "--max-steps", "1", "--overwrite", "--out", "a.bin", *more)
        assert (code, out) == (1, "") and err.rstrip().endswith(
            f"error: {more[1]}: both --out and {more[0]} name this file, expected a file for each; "
            "name another one"
        )
        assert not Path("a.bin").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("export", "a.bin", "OUT"),
        ("export", "a.bin", "OUT", "--weights", "int8"),
        ("import", "a.bin", "OUT"),
        ("tokenizer", "train", "texts.json", "--out", "OUT"),
        ("eval", "a.bin", "chats.jsonl", "--answers", "OUT"),
    ],
)
def test_other_commands_refuse_too(run: Run, command: tuple[str, ...]) -> None:
    save_model_binary(small_llm(), "a.bin")
    Path("there.bin").write_text("precious")
    args = [word.replace("OUT", "there.bin") for word in command]
    code, out, err = run(*args)
    assert (code, out) == (1, "") and "there.bin: the file exists" in err
    assert Path("there.bin").read_text() == "precious"
    code, _, err = run(*args, "--overwrite")
    assert code == 0 and Path("there.bin").read_bytes() != b"precious", err
    assert run(*[word.replace("OUT", "new.bin") for word in command])[0] == 0


def test_merge_refuses_too(run: Run) -> None:
    save_model_binary(small_llm(), "a.bin")
    code, _, err = run("merge", "a.bin", "a.bin", "a.bin")
    assert code == 1 and "a.bin: the file exists" in err


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(tmp_path: Path, answer: str) -> None:
    write_data(tmp_path)
    save_model_binary(small_llm(), tmp_path / "a.bin")
    (tmp_path / "b.bin").write_text("precious")
    with Screen("export", "a.bin", "b.bin", cwd=tmp_path, CGPT_LANG="en") as screen:
        screen.answer("The file exists, overwrite b.bin? (y/n): ", answer)
        assert screen.end() == (0 if answer == "y" else 1)
    assert ((tmp_path / "b.bin").read_bytes() == b"precious") == (answer == "n")


def test_a_log_goes_on_only_in_a_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at(monkeypatch, 2, run, *TRAIN, "--out", "my.bin")
    Path("notes.txt").write_text("precious")
    code, _, err = run("resume", "--log", "notes.txt")
    assert code == 1 and "notes.txt: the file exists" in err
    assert Path("notes.txt").read_text() == "precious"


def test_what_another_program_writes_meanwhile_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings that were begun with the same --out: both models are there in the end."""

    def other(self: object, path: str) -> None:
        save_model_binary(small_llm(), path)

    save = training_session.Session.save

    def late(self: training_session.Session, llm: object, path: str) -> str:
        save_model_binary(small_llm(), "my.bin")
        return save(self, llm, path)  # type: ignore[arg-type]

    monkeypatch.setattr(training_session.Session, "save", late)
    code, out, err = run(*TRAIN, "--max-steps", "2", "--out", "my.bin", "--json")
    assert code == 0 and "another program has written my.bin meanwhile" in err
    assert json.loads(out)["out"] == "my_2.bin" and step_of("my_2.bin") == 2
    assert step_of("my.bin") == 0
    assert load_model_auto("my_2.bin").metadata["out"] == "my_2.bin"


# `cgpt` that waits, once it has looked at the files it will write, until two processes have.
TOGETHER = """
import os, sys, time
from pathlib import Path
import cgpt.tokenizers.vocabulary
from cgpt.cli import main
from cgpt.training.run import TrainingRun

cgpt.tokenizers.vocabulary._jieba_cut = lambda: list
start = TrainingRun.start

def together(*args, **named):
    Path(f"looked_{os.getpid()}").touch()
    end = time.monotonic() + 60
    while len(list(Path().glob("looked_*"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return start(*args, **named)

TrainingRun.start = together
sys.exit(main())
"""


def test_two_trainings_at_once_in_one_folder(tmp_path: Path) -> None:
    """As two shells would start them: each has its checkpoints, and each its model."""
    write_data(tmp_path)
    command = [sys.executable, "-c", TOGETHER, *TRAIN, "--save-every", "1", "--out", "same.bin"]
    runs = [
        subprocess.Popen(
            [*command, "--seed", seed],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("3", "4")
    ]
    for one in runs:
        _, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
    seeds = {
        load_model_auto(tmp_path / name).training_state.run["seed"]
        for name in ("same.bin", "same_2.bin")
    }
    assert seeds == {3, 4}
