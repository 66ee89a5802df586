"""A model shaped at the command line: over any preset, in TOML, recorded, resumed, refused."""

# ruff: noqa: F401, F811 - fixtures of test_cli: imported here, arguments below

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_cli import Run, run, write_data

from cgpt.config import SHAPE, GPTConfig, RunConfig
from cgpt.errors import ConfigError
from cgpt.llm import load_model_auto

TRAIN = (
    "train",
    "--pretrain",
    "texts.json",
    "--chat",
    "chats.jsonl",
    "--preset",
    "tiny",
    "--max-steps",
    "2",
    "--out",
    "a.bin",
)
FLAGS = ("--n-layer", "1", "--n-head", "3", "--n-embd", "24", "--n-ff", "40", "--block-size", "32")
VALUES = {"n_layer": 1, "n_head": 3, "n_embd": 24, "n_ff": 40, "block_size": 32}


def shape_in(path: str) -> dict[str, int]:
    config = load_model_auto(path).config.to_dict()
    return {name: config[name] for name in SHAPE}


def test_every_flag_shapes_the_model_and_is_recorded(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert run(*TRAIN, *FLAGS)[0] == 0
    assert shape_in("a.bin") == VALUES
    kept = load_model_auto("a.bin").training_state.run
    assert {name: kept[name] for name in SHAPE} == VALUES and kept["preset"] == "tiny"


@pytest.mark.parametrize("name", SHAPE)
def test_one_flag_leaves_the_rest_as_the_preset_has_it(run: Run, tmp_path: Path, name: str) -> None:
    write_data(tmp_path)
    tiny = GPTConfig.preset("tiny").to_dict()
    value = 2 * tiny[name]
    assert run(*TRAIN, f"--{name.replace('_', '-')}", str(value))[0] == 0
    assert shape_in("a.bin") == {**{one: tiny[one] for one in SHAPE}, name: value}


def test_n_ff_0_is_four_times_the_width(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert run(*TRAIN, "--n-embd", "32", "--n-ff", "0")[0] == 0
    assert shape_in("a.bin")["n_ff"] == 128


def test_flag_beats_environment_beats_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    Path("run.toml").write_text("n_layer = 1\nn-embd = 48\nblock_size = 40\n")
    monkeypatch.setenv("CGPT_N_EMBD", "32")
    monkeypatch.setenv("CGPT_BLOCK_SIZE", "48")
    assert run(*TRAIN, "--config", "run.toml", "--block-size", "56")[0] == 0
    found = shape_in("a.bin")
    assert (found["n_layer"], found["n_embd"], found["block_size"]) == (1, 32, 56)


def test_toml_repeats_a_shaped_run_to_the_bit(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert run(*TRAIN, *FLAGS)[0] == 0
    code, toml, _ = run("info", "a.bin", "--toml")
    assert code == 0 and "n_layer = 1\n" in toml and "block_size = 32\n" in toml
    Path("run.toml").write_text(toml, encoding="utf-8")
    assert run("train", "--config", "run.toml", "--out", "b.bin")[0] == 0
    found = json.loads(run("diff", "a.bin", "b.bin", "--json")[1])
    assert not found["tensors"] and not found["config"] and not found["vocabulary"]


def test_resume_keeps_the_shape(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert run(*TRAIN, *FLAGS)[0] == 0
    assert run("resume", "a.bin", "--max-steps", "3", "--epochs", "4")[0] == 0
    assert shape_in("a.bin") == VALUES and load_model_auto("a.bin").training_state.step == 3


def test_the_guided_run_takes_them(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    code, out, _ = run(
        "--preset",
        "tiny",
        "--data",
        "texts.json",
        "--max-steps",
        "1",
        "--n-layer",
        "1",
        "--block-size",
        "24",
        stdin="n\ny\n1\n\nexit\n",
    )
    assert code == 0 and "上下文 24" in out
    assert shape_in("checkpoints/model_final.bin")["n_layer"] == 1


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--n-head", "3"], 1, "错误: GPTConfig: n_head 应整除 n_embd，而现在 n_head=3，n_embd=64"),
        (["--n-layer", "0"], 2, "错误: --n-layer 的值不对: 0 不在范围 [1, 1024] 内"),
        (["--n-embd", "1.5"], 2, "错误: --n-embd 的值不对: '1.5' 不是整数"),
        (["--n-ff", "-1"], 2, "错误: --n-ff 的值不对: -1 不在范围 [0, 262144] 内"),
        (["--block-size", "9999999"], 2, "错误: --block-size 的值不对: 9999999 不在范围"),
        (
            ["--init", "a.bin", "--n-layer", "2"],
            1,
            "错误: --init a.bin 自带形状和词汇；请去掉 --n-layer",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    run: Run, tmp_path: Path, args: list[str], code: int, sentence: str
) -> None:
    write_data(tmp_path)
    given = [one for one in TRAIN if "--init" not in args or one not in ("--preset", "tiny")]
    found, out, err = run(*given, *args)
    assert (found, out) == (code, "") and err.splitlines()[-code].startswith(sentence), err
    assert not os.path.exists("a.bin")


def test_a_run_config_with_init_has_no_shape_of_its_own() -> None:
    with pytest.raises(ConfigError, match="init names a model, which has its own shape"):
        RunConfig(init="a.bin", n_layer=3)
    with pytest.raises(ConfigError, match="n_head must divide n_embd"):
        RunConfig(n_head=7)


def test_a_run_of_before_there_were_shapes_still_reads() -> None:
    old = {
        key: value for key, value in RunConfig(preset="tiny").to_dict().items() if key not in SHAPE
    }
    assert RunConfig.from_dict(json.loads(json.dumps(old))).shape() == GPTConfig.preset("tiny")
