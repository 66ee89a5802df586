"""LoRA on the command line: train --init --lora-rank, chat, merge, resume."""

# ruff: noqa: F401, F811 - `run` is a fixture: imported here, an argument below

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoint_helpers import same_bits
from test_cli import Run, run, write_data

from cgpt.llm import load_model_auto

ARGS = ("--chat", "chats.jsonl", "--finetune-epochs", "2", "--batch-size", "1", "--warmup", "1")


@pytest.fixture
def base(run: Run, tmp_path: Path) -> Path:
    """A pre-trained model, texts.json and chats.jsonl in tmp_path."""
    write_data(tmp_path)
    code, _, err = run(
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        "--max-steps",
        "2",
        "--out",
        "base.bin",
    )
    assert code == 0, err
    return tmp_path / "base.bin"


def test_train_chat_merge(run: Run, tmp_path: Path, base: Path) -> None:
    code, _, err = run(
        "train",
        "--init",
        "base.bin",
        *ARGS,
        "--lora-rank",
        "2",
        "--lora-alpha",
        "4",
        "--lora-layers",
        "h.0.*",
        "--out",
        "lora.bin",
    )
    assert code == 0, err
    assert (tmp_path / "lora.bin").stat().st_size < base.stat().st_size / 3
    llm = load_model_auto(tmp_path / "lora.bin")
    assert (llm.optimizer.rank, llm.optimizer.alpha, llm.optimizer.layers) == (2, 4.0, ("h.0.*",))
    assert llm.optimizer.base == str(base)
    first = load_model_auto(base)
    changed = {
        name
        for name, array in llm.gpt.parameters().items()
        if not np.array_equal(array, first.gpt.parameters()[name])
    }
    assert changed == {
        f"h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    code, _, err = run("merge", "base.bin", "lora.bin", "merged.bin")
    assert code == 0, err
    answers = [
        run("chat", name, "-p", "你好", "--temperature", "0", "--max-new-tokens", "8")[1]
        for name in ("lora.bin", "merged.bin")
    ]
    assert answers[0] == answers[1]
    code, out, err = run("info", "lora.bin", "--json", "--verify")
    assert code == 0 and '"gpt2+lora"' in out, err
    code, _, err = run("merge", "lora.bin", "base.bin", "x.bin", "--lang", "en")
    assert code == 3 and "name the model first, the adapter second" in err
    assert run("export", "lora.bin", "small.bin", "--weights", "int8")[0] == 0
    assert run("eval", "lora.bin", "chats.jsonl")[0] == 0
    for init, expected, sentence in (
        ("lora.bin", 3, "cgpt merge MODEL ADAPTER"),
        ("no.bin", 1, "does not exist"),
    ):
        code, _, err = run("train", "--init", init, *ARGS, "--out", "x.bin", "--lang", "en")
        assert code == expected and sentence in err


def test_resume_on_the_command_line(run: Run, tmp_path: Path, base: Path) -> None:
    whole = ("train", "--init", "base.bin", *ARGS, "--lora-rank", "2")
    assert run(*whole, "--out", "whole.bin")[0] == 0
    assert run(*whole, "--out", "part.bin", "--max-steps", "1")[0] == 0
    code, _, err = run("resume", "part.bin", "--out", "rest.bin")
    assert code == 0, err
    a, b = (load_model_auto(tmp_path / name) for name in ("whole.bin", "rest.bin"))
    assert same_bits(a.gpt.arena.data, b.gpt.arena.data)
    assert a.training_state.step == b.training_state.step > 1


def test_a_run_is_repeated_by_its_configuration(run: Run, tmp_path: Path, base: Path) -> None:
    code, _, err = run(
        "train",
        "--init",
        "base.bin",
        *ARGS,
        "--lora-rank",
        "2",
        "--lora-alpha",
        "3",
        "--out",
        "first.bin",
    )
    assert code == 0, err
    (tmp_path / "run.toml").write_text(run("info", "first.bin", "--toml")[1], "utf-8")
    code, _, err = run("train", "--config", "run.toml", "--out", "second.bin")
    assert code == 0, err
    a, b = (load_model_auto(tmp_path / name) for name in ("first.bin", "second.bin"))
    assert same_bits(a.gpt.arena.data, b.gpt.arena.data)
    assert a.optimizer.to_dict() == b.optimizer.to_dict()
    run(
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        "--max-steps",
        "1",
        "--seed",
        "9",
        "--out",
        "base.bin",
        "--overwrite",
    )
    code, _, err = run("train", "--config", "run.toml", "--out", "third.bin", "--lang", "en")
    assert code == 1 and "not that of the run to be repeated" in err and "init:" in err
    code, _, err = run("chat", "first.bin", "-p", "你好", "--lang", "en")
    assert code == 3 and "trained on other weights" in err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--init", "base.bin", "--out", "base.bin"], "name another file"),
        (["--init", "base.bin", "--optimizer", "muon"], "trained by adamw"),
        (["--init", "base.bin", "--lora-rank", "65"], "between 1 and 64"),
        (["--init", "base.bin", "--lora-rank", "0", "--lora-alpha", "8"], "has no rank"),
        (["--init", "base.bin", "--finetune-epochs", "0"], "name files by --chat"),
        (["--init", "checkpoints/checkpoint_last.bin"], "name another folder"),
        (["--init", "base.bin", "--preset", "small"], "leave out --preset"),
        (["--init", "base.bin", "--lora-layers", "ln_f.*"], "no matrix of the layers"),
        (["--init", "base.bin", "--freeze-attn"], "nothing to freeze"),
        (["--init", "base.bin", "--embedding-lr", "2"], "leave out --embedding-lr"),
    ],
)
def test_what_cannot_work_is_said_before_training(
    run: Run, tmp_path: Path, base: Path, more: list[str], sentence: str
) -> None:
    before = base.read_bytes()
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    shutil.copy(base, tmp_path / "checkpoints" / "checkpoint_last.bin")
    code, _, err = run("train", *ARGS, "--lora-rank", "2", *more, "--lang", "en")
    assert code == 1 and sentence in err
    assert base.read_bytes() == before


def test_an_adapter_on_a_model_that_the_run_pretrains(run: Run, tmp_path: Path, base: Path) -> None:
    code, _, err = run(
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        *ARGS,
        "--max-steps",
        "1",
        "--lora-rank",
        "2",
        "--save-pretrained",
        "pre.bin",
        "--out",
        "lora.bin",
    )
    assert code == 0, err
    assert load_model_auto(tmp_path / "lora.bin").optimizer.base == str(tmp_path / "pre.bin")


def test_a_model_that_is_in_no_file_is_carried(run: Run, tmp_path: Path) -> None:
    """Pre-trained in the same run and not saved: the adapter's file is all that is needed."""
    write_data(tmp_path)
    whole = (
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        "--pretrain-epochs",
        "1",
        *ARGS,
        "--batch-size",
        "1",
        "--lora-rank",
        "2",
    )
    code, _, err = run(*whole, "--out", "whole.bin", "--lang", "en")
    assert code == 0, err
    assert "carries its model" in err and "cgpt export whole.bin OUT.bin --weights-only" in err
    assert run("export", "whole.bin", "merged.bin", "--weights-only")[0] == 0
    answers = [
        run("chat", name, "-p", "你好", "--temperature", "0", "--max-new-tokens", "8")
        for name in ("whole.bin", "merged.bin")
    ]
    assert answers[0][:2] == answers[1][:2] and answers[0][0] == 0
    assert run(*whole, "--out", "part.bin", "--max-steps", "1")[0] == 0
    code, _, err = run("resume", "part.bin", "--out", "rest.bin", "--lang", "en")
    assert code == 0 and "carries its model" in err, err
    a, b = (load_model_auto(tmp_path / name) for name in ("whole.bin", "rest.bin"))
    assert a.training_state.step == b.training_state.step > 1


def test_init_trains_the_weights_themselves_without_lora(
    run: Run, tmp_path: Path, base: Path
) -> None:
    code, _, err = run("train", "--init", "base.bin", *ARGS, "--max-steps", "1", "--out", "x.bin")
    assert code == 0, err
    llm, first = load_model_auto(tmp_path / "x.bin"), load_model_auto(base)
    assert llm.config == first.config and llm.tokenizer.words == first.tokenizer.words
    moved = np.abs(llm.gpt.arena.data - first.gpt.arena.data).max()
    assert 0 < moved < 0.1
