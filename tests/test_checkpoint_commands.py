"""Checkpoints on the command line: strategies, new data, forms of weights, diff."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from screen import environment
from small_llm import FACTS, TEXTS

from cgpt.checkpoint.info import describe
from cgpt.llm import load_model_auto

TRAIN = (
    "train",
    "--pretrain",
    "texts.json",
    "--preset",
    "tiny",
    "--out",
    "out.bin",
    "--seed",
    "3",
    "--overwrite",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run_cgpt: Run, tmp_path: Path) -> Run:
    """`run_cgpt` where texts.json is."""
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    return run_cgpt


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.bin"))


def test_strategies(run: Run, tmp_path: Path) -> None:
    epochs = ("--pretrain-epochs", "4")
    assert run(*TRAIN, *epochs, "--checkpoint-dir", "none")[0] == 0
    assert not (tmp_path / "none").exists()
    assert (
        run(
            *TRAIN,
            *epochs,
            "--checkpoint-dir",
            "a",
            "--strategy",
            "best+last",
            "--keep",
            "2",
            "--val-fraction",
            "0.3",
        )[0]
        == 0
    )
    found = checkpoints(tmp_path / "a")
    assert found[-2:] == ["checkpoint_last.bin", "checkpoint_previous.bin"] and len(found) == 4
    assert all(name.startswith("checkpoint_best_epoch_") for name in found[:2])
    assert run(*TRAIN, *epochs, "--checkpoint-dir", "b", "--strategy", "periodic")[0] == 0
    assert checkpoints(tmp_path / "b") == [f"checkpoint_epoch_{n}.bin" for n in (2, 3, 4)]
    about = json.loads((tmp_path / "b" / "checkpoint_epoch_3.json").read_text())
    assert about["preset"] == "tiny" and 0 < about["learning_rate"] < 1
    assert run(*TRAIN, *epochs, "--checkpoint-dir", "c", "--save-every", "1")[0] == 0
    assert checkpoints(tmp_path / "c") == ["checkpoint_last.bin", "checkpoint_previous.bin"]
    assert run(*TRAIN, "--strategy", "newest")[0] == 2
    assert run(*TRAIN, "--keep", "0")[0] == 2


def test_a_failing_checkpoint_does_not_end_the_training(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = run(
        *TRAIN,
        "--pretrain-epochs",
        "3",
        "--checkpoint-dir",
        "file/folder",
        "--strategy",
        "periodic",
        "--lang",
        "en",
    )
    assert code == 0 and "training goes on" in err and "model saved: out.bin" in err
    assert load_model_auto(tmp_path / "out.bin").training_state.epoch == 3


def test_other_data_is_refused_and_taken_with_new_data(run: Run, tmp_path: Path) -> None:
    assert run(*TRAIN, "--pretrain-epochs", "4", "--max-steps", "2", "--save-every", "1")[0] == 0
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS[:4]), encoding="utf-8")
    code, _, err = run("resume", "--epochs", "6")
    assert code == 1 and "--new-data" in err and "texts.json" in err
    code, _, err = run("resume", "--epochs", "6", "--new-data", "--lang", "en")
    assert code == 0 and "the data has changed, beginning anew on it: pre-training" in err
    state = load_model_auto(tmp_path / "out.bin").training_state
    assert state.epoch == 6 and state.step == state.total_steps
    assert run("resume")[0] == 0  # the new data is now the data


def test_forms_of_weights(run: Run, tmp_path: Path) -> None:
    assert run(*TRAIN, "--pretrain-epochs", "2")[0] == 0
    sizes = {}
    for form in ("float32", "float16", "int8"):
        assert run("export", "out.bin", f"{form}.bin", "--weights-only", "--weights", form)[0] == 0
        sizes[form] = (tmp_path / f"{form}.bin").stat().st_size
        code, out, _ = run("info", f"{form}.bin", "--json", "--verify")
        dtypes = {record["dtype"] for record in json.loads(out)["records"]}
        assert code == 0 and form in dtypes
        assert run("generate", f"{form}.bin", "长江", "--max-new-tokens", "3")[0] == 0
    assert sizes["int8"] < 0.4 * sizes["float32"] and sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["float32"] < 0.4 * (tmp_path / "out.bin").stat().st_size
    assert run("export", "out.bin", "again.bin", "--weights", "int8")[0] == 0
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "int8.bin").read_bytes()
    code, _, err = run("resume", "int8.bin", "--lang", "en")
    assert code == 1 and "int8.bin: the file holds weights rounded to int8 without" in err
    code, _, err = run("resume", "float32.bin", "--epochs", "3", "--lang", "en")
    assert code == 1 and "cannot go on from step" in err and "complete" not in err
    assert run("resume", "float32.bin")[0] == 1
    assert run("resume", "out.bin")[0] == 0
    code, _, err = run("export", "out.bin", "x.json", "--weights", "int8")
    assert code == 1 and "float32" in err and not (tmp_path / "x.json").exists()


def test_diff(run: Run, tmp_path: Path) -> None:
    assert run(*TRAIN, "--pretrain-epochs", "2", "--max-steps", "3")[0] == 0
    shutil.copy("out.bin", "a.bin")
    assert run("export", "a.bin", "a.json")[0] == 0
    code, out, _ = run("diff", "a.bin", "a.json", "--lang", "en")
    assert code == 0 and out.startswith("the models are the same (84 tensors)")
    llm = load_model_auto("a.bin")
    llm.gpt.parameters()["ln_f.bias"][3] += np.float32(0.5)
    llm.gpt.arena.require_moments()[1][0] = -0.0
    llm.metadata["note"] = "x"
    from cgpt.checkpoint.saving import save_model_binary

    save_model_binary(llm, "b.bin")
    code, out, _ = run("diff", "a.bin", "b.bin", "--json")
    found = json.loads(out)
    assert code == 1 and not found["same"] and found["metadata"] == {"note": [None, "x"]}
    rows = {(row["kind"], row["name"]): row for row in found["tensors"]}
    assert rows.keys() <= {("weights", "ln_f.bias"), ("v", "wte.weight")}
    row = rows["weights", "ln_f.bias"]
    assert row["changed"] == 1 and row["a"] == row["b"] == [64]
    assert row["largest"] == pytest.approx(0.5)
    assert not found["config"] and not found["vocabulary"] and not found["training_state"]
    code, out, _ = run("diff", "a.bin", "b.bin")
    assert code == 1 and "ln_f.bias" in out and "附加信息:\n  note: - -> x" in out
    assert run("export", "a.bin", "w.bin", "--weights-only")[0] == 0
    code, out, _ = run("diff", "a.bin", "w.bin", "--json")
    assert code == 1 and {row["kind"] for row in json.loads(out)["tensors"]} == {"m", "v"}
    assert run(*TRAIN, "--preset", "small", "--max-steps", "1")[0] == 0
    code, out, _ = run("diff", "a.bin", "out.bin", "--json")
    assert code == 1 and json.loads(out)["config"]["n_embd"] == [64, 256]
    assert run("diff", "a.bin", "texts.json")[0] == 3


STOPPED = """
import sys
from cgpt.cli import main
import cgpt.tokenizers.tokenizer
cgpt.tokenizers.vocabulary._jieba_cut = lambda: list
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_while_checkpoints_are_written(tmp_path: Path, signals: int) -> None:
    """After one, and after a second that ends at once, every file that is there is whole."""
    (tmp_path / "texts.json").write_text(
        json.dumps([question + answer for question, answer in FACTS]), encoding="utf-8"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            STOPPED,
            *TRAIN,
            "--pretrain-epochs",
            "100000",
            "--save-every",
            "1",
            "--strategy",
            "best+last",
        ],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    folder = tmp_path / "checkpoints"
    deadline = time.monotonic() + 30
    while not (folder / "checkpoint_previous.bin").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    found = checkpoints(folder)
    assert "checkpoint_last.bin" in found
    for name in found:
        assert describe(folder / name, verify=True)["verified"]
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")] or signals == 2
