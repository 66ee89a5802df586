"""Whatever fails after the first step: the training is saved first, then one sentence says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_helpers import assert_same
from screen import environment
from small_llm import DIALOGUES, FACTS, TEXTS, small_llm

from cgpt.checkpoint import binary_writer
from cgpt.checkpoint.saving import save_model_binary
from cgpt.cli import training_session
from cgpt.cli.guided_run import GuidedRun
from cgpt.cli.ui.terminal import Terminal
from cgpt.config import TrainConfig
from cgpt.errors import CgptError, CheckpointError, DataError, Templated
from cgpt.fileio.text import JsonLines, json_text, utf8
from cgpt.llm import LLM, load_model_auto
from cgpt.locale import set_language
from cgpt.training.data_parallel import GradientSum
from cgpt.training.samples import Samples
from cgpt.training.step_log import StepLog, read_log
from cgpt.training.trainer import Trainer

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
    "5",
    "--sample-every",
    "1",
    "--out",
    "m.bin",
    "--val-fraction",
    "0.3",
)
Run = Callable[..., tuple[int, str, str]]
MONKEY = pytest.MonkeyPatch


@pytest.fixture
def run(run_cgpt: Run, monkeypatch: MONKEY, tmp_path: Path) -> Run:
    """`run_cgpt` where data is; in English."""
    monkeypatch.setenv("CGPT_LANG", "en")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    set_language("en")
    return run_cgpt


def raising(error: BaseException, at: int = 3) -> Callable[..., Any]:
    """A function that fails when it is called so often."""
    calls = [0]

    def fail(*args: Any, **values: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise error
        return ("", "") if args and isinstance(args[0], Samples) else None

    return fail


# ---- commands ------------------------------------------------------------------------------

FAILURES: dict[str, tuple[str, BaseException, str]] = {
    "a sample": ("cgpt.training.samples.Samples.make", RuntimeError("no words"), "no words"),
    "memory": ("cgpt.training.samples.Samples.make", MemoryError(), "out of memory"),
    "the display": (
        "cgpt.cli.ui.progress.ProgressDisplay._show",
        ValueError("a wide screen"),
        "ValueError: a wide screen (test_failing",
    ),
    "stderr": (
        "cgpt.cli.ui.progress.ProgressDisplay._show",
        BrokenPipeError(32, "Broken pipe"),
        "Broken pipe",
    ),
    "the disk": (
        "cgpt.fileio.text.JsonLines.write",
        DataError("the log cannot be written"),
        "the log cannot be written",
    ),
    "an evaluation": ("cgpt.llm.LLM.summed_loss", RuntimeError("not comparable"), "not comparable"),
    "divergence": (
        "cgpt.training.data_parallel.GradientSum.finish",
        CgptError("pretrain: the loss is nan", code="diverged"),
        "the loss is nan",
    ),
    "a hook": (
        "cgpt.cli.training_session.Session.step_done",
        ZeroDivisionError("by zero"),
        "by zero",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_saves_first(run: Run, monkeypatch: MONKEY, name: str) -> None:
    target, error, sentence = FAILURES[name]
    more = ("--log", "a.jsonl") if name == "the disk" else ()
    if name in ("an evaluation", "divergence"):
        owner, method = target.rsplit(".", 1)
        real = getattr(LLM if "llm" in owner else GradientSum, method)
        fail = raising(error)
        replacement: Any = lambda *args, **values: (fail(), real(*args, **values))[1]  # noqa: E731
    else:
        replacement = raising(error)
    with monkeypatch.context() as patch:
        patch.setattr("cgpt.cli.ui.progress.PLAIN_SECONDS", 0)
        patch.setattr(target, replacement)
        code, out, err = run(*TRAIN, "--optimizer", "adamw", *more)
    assert (code, out) == (1, "") and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and sentence in last
    assert last.endswith(f"; the training is saved in {LAST}")
    assert f"to go on: cgpt resume {LAST} --out m.bin" in err
    stopped = load_model_auto(LAST).training_state
    assert stopped.step >= 1 and stopped.unfinished and not Path("m.bin").exists()
    code, _, err = run("resume")
    assert code == 0, err
    assert run(*TRAIN, "--optimizer", "adamw", "--out", "whole.bin")[0] == 0
    same_training("m.bin", "whole.bin")


def same_training(one: str, other: str) -> None:
    first, second = load_model_auto(one), load_model_auto(other)
    for llm in (first, second):
        llm.training_state.seconds = 0.0
        llm.training_state.run = {}
        llm.metadata = {}
    assert_same(first, second)


def test_a_failure_while_resuming(run: Run, monkeypatch: MONKEY) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "make", raising(RuntimeError("first")))
        assert run(*TRAIN)[0] == 1
    step = load_model_auto(LAST).training_state.step
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "make", raising(RuntimeError("second"), 2))
        code, _, err = run("resume", "--sample-every", "1")
    assert code == 1 and "second" in err.splitlines()[-1]
    assert load_model_auto(LAST).training_state.step == step + 2
    assert run("resume")[0] == 0
    assert run(*TRAIN, "--out", "whole.bin")[0] == 0
    same_training("m.bin", "whole.bin")


def test_before_the_first_step_nothing_is_saved(run: Run, monkeypatch: MONKEY) -> None:
    monkeypatch.setattr("cgpt.llm.LLM.samples", lambda *args: [])
    monkeypatch.setattr("cgpt.training.trainer.Trainer.fit", raising(RuntimeError("at once"), 1))
    with pytest.raises(RuntimeError, match="at once"):
        run(*TRAIN)
    assert not Path("checkpoints").exists() or not os.listdir("checkpoints")


def full(path: object) -> CheckpointError:
    return CheckpointError(
        f"{path} could not be saved: found a full disk at /x, expected a file "
        "that can be written; free some space or choose another folder "
        "(nothing was overwritten)",
        code="write",
    )


@pytest.mark.parametrize("free", ["the temporary folder", "little", "nothing"])
def test_a_full_disk_falls_back(run: Run, monkeypatch: MONKEY, tmp_path: Path, free: str) -> None:
    """Where the checkpoint does not fit either: elsewhere, else without the optimizer."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    real = binary_writer.Packed.write

    def write(self: binary_writer.Packed, path: Any) -> Path:
        whole = any(record.kind_name == "adam_m" for record in self.records)
        if free == "nothing" or (free == "little" and whole) or "tmp/" not in str(path):
            raise full(path)
        return real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Samples, "make", raising(RuntimeError("no words")))
        patch.setattr(binary_writer.Packed, "write", write)
        if free == "nothing":
            with pytest.raises(RuntimeError, match="no words"):
                run(*TRAIN)
            return
        code, _, err = run(*TRAIN)
    assert code == 1 and "no words" in err.splitlines()[-1] and "full disk" in err
    (found,) = (tmp_path / "tmp").glob("*.bin")
    assert err.splitlines()[-1].endswith(f"; the training is saved in {found}")
    llm = load_model_auto(found)
    assert llm.training_state.step == 3
    assert (llm.optimizer is not None) == (free != "little") == ("to go on: cgpt" in err)


def test_a_full_disk_for_real(tmp_path: Path) -> None:
    """The log fills the disk: its sentence, and the model on another one."""
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small file system can be mounted by the superuser only")
    try:
        (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
        code = (
            "import sys; import cgpt.tokenizers.vocabulary; from cgpt.cli import main; "
            "cgpt.tokenizers.vocabulary._jieba_cut = lambda: list; sys.exit(main())"
        )
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                *TRAIN,
                "--pretrain-epochs",
                "400",
                "--log",
                "small/a.jsonl",
                "--checkpoint-dir",
                "small/c",
            ],
            cwd=tmp_path,
            text=True,
            env=environment(CGPT_LANG="en", TMPDIR=str(tmp_path)),
            capture_output=True,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert "small/a.jsonl: the log cannot be written (No space left" in last
        assert last.endswith("; the training is saved in checkpoints/model_final.bin")
        state = load_model_auto(tmp_path / "checkpoints/model_final.bin").training_state
        steps = read_log(str(small / "a.jsonl")).curves[0].steps[-1]
        assert state.unfinished and state.step in (steps, steps + 1)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_closed_pipe_for_real(tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    code = (
        "import sys; import cgpt.tokenizers.vocabulary; from cgpt.cli import main; "
        "from cgpt.cli.ui import progress; "
        "progress.PLAIN_SECONDS = 0; "
        "cgpt.tokenizers.vocabulary._jieba_cut = lambda: list; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *TRAIN, "--pretrain-epochs", "9999"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for _ in range(8):
        process.stderr.readline()
    process.stderr.close()
    assert process.wait(60) == 1
    assert load_model_auto(tmp_path / LAST).training_state.unfinished


# ---- the guided run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [RuntimeError("no words"), OSError(28, "No space left"), CgptError("it diverged")]
)
def test_the_guided_run_saves_before_it_asks(
    tmp_path: Path,
    monkeypatch: MONKEY,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    (tmp_path / "chats.json").write_text(
        json.dumps(
            [
                {
                    "messages": [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                }
                for question, answer in FACTS
            ]
        ),
        encoding="utf-8",
    )
    monkeypatch.setattr(Samples, "due", lambda self, progress: True)
    monkeypatch.setattr(Samples, "make", raising(error))
    guided = GuidedRun(
        Terminal(),
        preset="tiny",
        data=("texts.json", "chats.json"),
        pretrain_epochs=5,
        finetune_epochs=2,
    )
    assert guided.run() == 0
    shown = capsys.readouterr().out
    saved = shown.index("it is now in: checkpoints/model_pretrained.bin")
    assert saved < shown.index(str(error.args[-1])) < shown.index("Save the current model?")
    llm = load_model_auto("checkpoints/model_pretrained.bin")
    assert llm.training_state.step == 3 and llm.optimizer is not None


def test_continued_training_saves_too(
    tmp_path: Path, monkeypatch: MONKEY, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from cgpt.cli import guided_run as module

    llm = small_llm()
    save_model_binary(llm, "checkpoints/model_final.bin")
    monkeypatch.setattr(Samples, "due", lambda self, progress: True)
    monkeypatch.setattr(Samples, "make", raising(RuntimeError("no words"), 2))
    monkeypatch.setattr("cgpt.training.run.packaged_data", lambda: ("", str(tmp_path / "c.json")))
    (tmp_path / "c.json").write_text(
        json.dumps(
            [
                {"messages": [{"role": one.role, "content": one.content} for one in dialogue]}
                for dialogue in DIALOGUES
            ]
        ),
        encoding="utf-8",
    )
    answers = iter(["y", "1", "y", "3", ""])

    def ask(self: Terminal, prompt: str, **more: Any) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(module.Terminal, "ask", ask)
    assert GuidedRun(Terminal()).run() == 0
    shown = capsys.readouterr().out
    assert "it is now in: checkpoints/model_final_2.bin" in shown and "no words" in shown
    assert load_model_auto("checkpoints/model_final_2.bin").training_state.step == 2


# ---- the library ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["on_progress", "on_checkpoint", "should_stop"])
def test_a_raising_callback_leaves_a_whole_step(where: str) -> None:
    config = TrainConfig(epochs=4, batch_tokens=40, lr=1e-2, warmup=2, val_fraction=0.3, ema=0.9)
    whole = small_llm()
    Trainer(whole, config).fit(TEXTS)
    llm = small_llm()
    for at in (1, 2, 3):
        with pytest.raises(RuntimeError, match="mine"):
            Trainer(llm, config).fit(TEXTS, **{where: raising(RuntimeError("mine"), at)})
    assert llm.training_state.step == 6
    Trainer(llm, config).fit(TEXTS)
    whole.training_state.seconds = llm.training_state.seconds = 0.0
    assert_same(whole, llm)


# ---- text ----------------------------------------------------------------------------------

HALF = "山\ud83d水\udc80"  # what no encoding has


def as_error(reason: Templated) -> DataError:
    return DataError("{reason}", reason=reason)


def test_any_text_can_be_written(tmp_path: Path) -> None:
    value = {HALF: [HALF, float("nan"), Path(HALF)], "n": 1}
    text = json_text(value)
    assert text.encode() and json.loads(text) == {HALF: [HALF, None, HALF], "n": 1}
    assert utf8(HALF).decode() == "山\\ud83d水\\udc80"
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path, as_error)
    lines.write(value)
    lines.close()
    with open(path, "ab") as file:
        file.write(b'{"cut": ')
    lines = JsonLines(path, as_error, append=True)
    lines.write([2])
    lines.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [json.loads(text), [2]]
    with pytest.raises(DataError, match="No such file"):
        JsonLines(tmp_path / "none" / "a", as_error)
    full = JsonLines("/dev/full", as_error)
    with pytest.raises(DataError, match="No space left"):
        full.write([])
    full.close()


def test_half_a_pair_in_the_data_ends_nothing(run: Run, tmp_path: Path) -> None:
    dialogues = [
        {
            "messages": [
                {"role": "user", "content": question + HALF},
                {"role": "assistant", "content": HALF + answer},
            ]
        }
        for question, answer in FACTS
    ]
    (tmp_path / "chats.json").write_text(json.dumps(dialogues))
    (tmp_path / "half.json").write_text(json.dumps([text + HALF for text in TEXTS]))
    code, _, err = run(
        "train",
        "--pretrain",
        "half.json",
        "--chat",
        "chats.json",
        "--preset",
        "tiny",
        "--pretrain-epochs",
        "2",
        "--finetune-epochs",
        "40",
        "--sample-every",
        "1",
        "--log",
        "a.jsonl",
        "--out",
        "m.bin",
    )
    assert code == 0 and "Traceback" not in err, err
    lines = [json.loads(line) for line in Path("a.jsonl").read_text("utf-8").splitlines()]
    assert lines[-1]["step"] and len(read_log("a.jsonl").curves) == 2
    code, out, err = run("eval", "m.bin", "chats.json", "--answers", "b.jsonl", "--json")
    assert code == 0, err
    answers = [json.loads(line) for line in Path("b.jsonl").read_text("utf-8").splitlines()]
    assert answers[0]["question"] == FACTS[0][0] + HALF and len(answers) == len(FACTS)
    for command in (
        ("data", "chats.json", "--json"),
        ("eval", "m.bin", "chats.json"),
        ("chat", "m.bin", "-p", "你好", "--session", "s.json"),
        ("generate", "m.bin", "长江", "--max-new-tokens", "8", "--json"),
        ("info", "m.bin", "--json"),
        ("export", "m.bin", "m.json"),
        ("tokenizer", "train", "half.json", "--kind", "chars"),
        ("tokenizer", "inspect", "exports/tokenizer.json", "half.json", "--json"),
    ):
        code, out, err = run(*command)
        assert code == 0 and "Traceback" not in err, (command, err)
        if "--json" in command:
            json.loads(out)


def test_the_log_is_whole_whatever_was_written_before(tmp_path: Path) -> None:
    path = str(tmp_path / "a.jsonl")
    log = StepLog(path, {"version": "1"})
    log.close()
    with pytest.raises(DataError, match="cannot be written") as info:
        StepLog(str(tmp_path), {})
    assert info.value.code == "write"
    assert training_session.is_log(path) and not training_session.is_log(str(tmp_path))
