"""The commands: what goes to stdout, exit codes, where options come from, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from screen import CGPT, Screen, environment
from small_llm import FACTS, TEXTS

from cgpt.bench.measure import Measurement, ratio
from cgpt.checkpoint.info import how_it_ended
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.cli import main
from cgpt.cli.app import spread_values
from cgpt.cli.root import SUMMARIES
from cgpt.cli.ui.description import one_line
from cgpt.llm import load_model_auto

MODEL = "checkpoints/model_final.bin"
TRAIN = ("train", "--pretrain", "texts.json", "--chat", "chats.jsonl", "--preset", "tiny")
Run = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("clean_environment")


def write_data(folder: Path) -> None:
    """texts.json and chats.jsonl."""
    (folder / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            }
        )
        for question, answer in FACTS
    ]
    (folder / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture
def run(run_cgpt: Run) -> Run:
    """`run_cgpt` with an empty stdin where none is given."""
    return lambda *args, stdin="": run_cgpt(*args, stdin=stdin)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model of 6 + 6 steps."""
    folder = tmp_path_factory.mktemp("cli")
    write_data(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cgpt.tokenizers.vocabulary._jieba_cut", lambda: list)
        patch.chdir(folder)
        assert main([*TRAIN, "--max-steps", "6", "--seed", "3"]) == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder in the current directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


# ---- parsing -------------------------------------------------------------------------------


def test_help_is_quick_and_imports_little() -> None:
    code = (
        "import sys; from cgpt.cli import main; main(['--help']); print(sorted("
        "{'numpy', 'rich', 'jieba', 'cgpt.training.run', "
        "'cgpt.cli.commands.train'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.rstrip().endswith("[]") and "命令:" in done.stdout


@pytest.mark.parametrize(
    "command", ["", *SUMMARIES, *(f"tokenizer {one}" for one in ("train", "encode", "inspect"))]
)
def test_h_is_help_of_every_command(run: Run, command: str) -> None:
    short, whole = run(*command.split(), "-h"), run(*command.split(), "--help")
    assert short == whole and short[0] == 0 and short[2] == ""
    assert short[1].startswith(f"用法: cgpt {command}".rstrip()) and "  -h, --help " in short[1]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["trian"], "错误: 没有命令 'trian'，是不是 'train'?"),
        (["train", "--nothing"], "错误: 没有选项 '--nothing'"),
        (["train", "--lr"], "错误: 选项 '--lr' 需要一个值"),
        (["train", "--lr", "nan"], "错误: --lr 的值不对: 'nan' 不是有限的数"),
        (["train", "--lr", "-1"], "错误: --lr 的值不对: -1 不在范围 (0, 1] 内"),
        (["train", "--max-steps", "-5"], "错误: --max-steps 的值不对: -5 不在范围 >= 0 内"),
        (["train", "--max-steps", "1.5"], "错误: --max-steps 的值不对: '1.5' 不是整数"),
        (["train", "--max-minutes", "inf"], "错误: --max-minutes 的值不对: 'inf' 不是有限的数"),
        (["train", "--preset", "huge"], "错误: --preset 的值不对: 'huge' 不是 tiny, small"),
        (["train", "--out", "model.txt"], "错误: --out 的值不对: 'model.txt' 应以 .bin 或 .json"),
        (["train", "stray"], "错误: 多余的参数: stray"),
        (["chat", "--temperature", "-1"], "错误: --temperature 的值不对: -1 不在范围 [0, 1000] 内"),
        (["chat", "--top-p", "0"], "错误: --top-p 的值不对: 0 不在范围 (0, 1] 内"),
        (["generate", "model.bin"], "错误: 缺少 TEXT"),
        (["export", "a.bin", "b.pt"], "错误: OUT.{bin,json} 的值不对: 'b.pt' 应以"),
        (
            ["train", "--vocab-size", "9"],
            "错误: --vocab-size 的值不对: 9 不在范围 [262, 16777216] 内",
        ),
        (["bench", "speed"], "错误: 'speed' 不是 kernels, train, decode"),
        (["--lang", "fr"], "错误: --lang 的值不对: 'fr' 不是 zh, en 之一"),
        (["--lang", "en", "trian"], "error: no such command 'trian'; did you mean 'train'?"),
        (["--seed", "3", "train"], "错误: 选项 '--seed' 属于引导运行"),
    ],
)
def test_usage_errors(run: Run, args: list[str], sentence: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith(sentence) and len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--chat", "a", "b", "--out", "c"], ["--chat", "a", "--chat", "b", "--out", "c"]),
        (["--out", "c", "d"], ["--out", "c", "d"]),
        (["--chat", "a", "--chat", "b"], ["--chat", "a", "--chat", "b"]),
    ],
)
def test_flags_that_take_several_values(args: list[str], expected: list[str]) -> None:
    assert spread_values(args, ("--chat",)) == expected


def test_a_missing_value_names_the_help_of_its_command(run: Run) -> None:
    code, _, err = run("train", "--pretrain")
    assert code == 2 and err.endswith("试试 'cgpt train --help'。\n")


def test_flag_beats_environment_beats_file_beats_default(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    (tmp_path / "run.toml").write_text(
        'preset = "tiny"\npretrain = "texts.json"\nchat = ["chats.jsonl"]\nlr = 0.003\n'
        "warmup = 7\nmax-steps = 1\nseed = 5\nfreeze_attn = true\n"
        "recompute = true\n"
    )
    monkeypatch.setenv("CGPT_SEED", "6")
    monkeypatch.setenv("CGPT_LR", "0.002")
    code, _, err = run("train", "--config", "run.toml", "--lr", "0.001", "--batch-size", "2")
    assert code == 0, err
    config = load_model_auto(tmp_path / MODEL).training_state.run
    assert config["preset"] == "tiny" and config["seed"] == 6
    for phase in ("pretrain_train", "finetune_train"):
        train = config[phase]
        assert (train["lr"], train["warmup"], train["max_steps"]) == (0.001, 7, 1)
        assert train["batch_tokens"] == 2 * 128 and train["grad_accum"] == 1
        assert train["recompute"] is True
    assert config["pretrain_train"]["freeze"] == []
    assert config["finetune_train"]["freeze"] == ["h.*.attn.*"]


def test_training_options_reach_the_run(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    code, _, err = run(
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        "--chat",
        "chats.jsonl",
        "--max-steps",
        "2",
        "--optimizer",
        "adamw",
        "--schedule",
        "wsd",
        "--schedule-steps",
        "2",
        "--label-smoothing",
        "0.1",
        "--ema",
        "0.9",
        "--decay-share",
        "0.5",
        "--min-lr-ratio",
        "0",
        "--embedding-lr",
        "3",
        "--freeze",
        "h.0.*",
        "--freeze",
        "wpe.weight",
        "--freeze-attn",
    )
    assert code == 0, err
    llm = load_model_auto(tmp_path / MODEL)
    for phase in ("pretrain_train", "finetune_train"):
        train = llm.training_state.run[phase]
        assert (train["optimizer"], train["schedule"], train["schedule_steps"]) == (
            "adamw",
            "wsd",
            2,
        )
        assert (train["label_smoothing"], train["ema"]) == (0.1, 0.9)
        assert (train["decay_share"], train["min_lr_ratio"]) == (0.5, 0.0)
    assert train["embedding_lr"] == llm.optimizer.embedding_lr == 3.0
    assert train["freeze"] == ["h.*.attn.*", "h.0.*", "wpe.weight"]
    assert llm.optimizer.freeze == ("h.*.attn.*", "h.0.*", "wpe.weight")
    code, _, err = run("train", "--optimizer", "sgd")
    assert code == 2 and "adamw, muon" in err
    code, _, err = run(
        "train",
        "--preset",
        "tiny",
        "--pretrain",
        "texts.json",
        "--chat",
        "chats.jsonl",
        "--max-steps",
        "1",
        "--freeze",
        "nothing.*",
        "--overwrite",
    )
    assert code == 1 and "nothing.*" in err


@pytest.mark.parametrize(
    "given",
    [
        ["--decay-share", "0.5", "--schedule", "cosine"],
        ["--min-lr-ratio", "0", "--schedule", "constant"],
        ["--schedule-steps", "9", "--schedule", "constant"],
    ],
)
def test_what_the_schedule_does_not_look_at_is_refused(
    run: Run, tmp_path: Path, given: list[str]
) -> None:
    write_data(tmp_path)
    code, _, err = run(*TRAIN, *given)
    assert code == 1 and f"{given[0]} 只用于" in err and "--schedule" in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_stepz = 3", "未知的键 'max_stepz'，是不是 'max_steps'?；可用的键: "),
        ("lr = [1, 2]", "'lr' 只接受一个值，而不是 [1, 2]；请只写一个"),
        ("lr = ?", "不是有效的 TOML（第 1 行第 6 列: 无效的值）；请修改该文件"),
        ("[train]\nlr = 1", "未知的键 'train'"),
    ],
)
def test_bad_config_file(run: Run, tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    code, out, err = run("train", "--config", "run.toml")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert "run.toml" in err and sentence in err
    assert run("train", "--config", "none.toml")[0] == 1


def test_several_paths_from_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    shutil.copy(tmp_path / "texts.json", tmp_path / "more texts.json")
    monkeypatch.setenv("CGPT_PRETRAIN", os.pathsep.join(["texts.json", "more texts.json"]))
    assert run("train", "--preset", "tiny", "--max-steps", "1")[0] == 0
    config = load_model_auto(tmp_path / MODEL).training_state.run
    assert config["pretrain"] == ["texts.json", "more texts.json"] and config["chat"] == []


# ---- training ------------------------------------------------------------------------------


def test_train_reports_as_json_and_logs(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    code, out, err = run(
        *TRAIN,
        "--max-steps",
        "3",
        "--seed",
        "4",
        "--json",
        "--log",
        "logs/run.jsonl",
        "--save-pretrained",
        "pre.bin",
        "--out",
        "out/m.json",
        "--val-fraction",
        "0.2",
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["out"] == "out/m.json" and report["phases"]["finetune"]["steps"] == 3
    head, *steps = map(json.loads, (tmp_path / "logs/run.jsonl").read_text().splitlines())
    assert head["seed"] == 4 and head["version"] and head["config"]["preset"] == "tiny"
    assert [step["step"] for step in steps] == [1, 2, 3, 1, 2, 3]
    assert all(step["loss"] > 0 and "val_loss" in step and "lr" in step for step in steps)
    assert load_model_auto(tmp_path / "pre.bin").training_state.done == ["pretrain"]
    assert load_model_auto(tmp_path / "out/m.json").training_state.done == ["pretrain", "finetune"]
    assert "预训练" in err and "微调" in err and "损失" in err


def test_epochs_zero_skips_a_phase(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    code, out, _ = run(*TRAIN, "--pretrain-epochs", "0", "--finetune-epochs", "2", "--json")
    assert code == 0 and list(json.loads(out)["phases"]) == ["finetune"]
    assert json.loads(out)["phases"]["finetune"]["epochs"] == 2


def test_a_place_that_cannot_be_written_is_told_before_training(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "file").write_text("")
    code, _, err = run(*TRAIN, "--out", "file/model.bin")
    assert code == 1 and "file/model.bin" in err and "步 1/" not in err
    code, _, err = run(*TRAIN, "--checkpoint-dir", "file")
    assert code == 1 and "file: 这是文件；请用 --checkpoint-dir" in err and "步 1/" not in err


def test_where_chinese_cannot_be_shown_it_is_english(tmp_path: Path) -> None:
    ascii_alone = {"PYTHONIOENCODING": "ascii"}
    for more, sentence in (
        ({}, "error: no such command 'nothing'"),
        ({"CGPT_LANG": "zh"}, "??: ???? 'nothing'"),
        ({"PYTHONIOENCODING": "utf-8"}, "错误: 没有命令 'nothing'"),
    ):
        done = subprocess.run(
            [*CGPT, "nothing"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            encoding="utf-8",
            env=environment(**{**ascii_alone, **more}),
        )
        assert (done.returncode, done.stderr.splitlines()[0]) == (2, sentence)


def test_a_flag_of_the_environment_that_is_no_truth_value(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGPT_OVERWRITE", "maybe")
    code, _, err = run("train")
    assert code == 2 and err.startswith(
        "错误: CGPT_OVERWRITE 的值不对: 'maybe' 不是 1, 0, true, false, yes, no, on, off 之一"
    )


def test_a_save_that_fails_after_training_goes_elsewhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    monkeypatch.setattr("cgpt.cli.training_session.check_writable", lambda path: None)
    (tmp_path / "file").write_text("")
    code, _, err = run(*TRAIN, "--max-steps", "2", "--out", "file/model.bin")
    assert code == 1 and f"已自动保存到: {MODEL}" in err
    assert load_model_auto(tmp_path / MODEL).training_state.step == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("gbk.json", "山高水长".encode("gbk"), "UTF-8"),
        ("broken.json", b'["a",', "broken.json"),
        ("empty.json", b"", "empty"),
    ],
)
def test_bad_data(run: Run, tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    code, out, err = run("train", "--pretrain", name, "--preset", "tiny")
    assert (code, out) == (1, "")
    assert sentence in err.splitlines()[-1] and name in err
    assert not (tmp_path / MODEL).exists()


def same_model(one: Path, other: Path) -> None:
    """Weights, moments and position are the same to the bit."""
    first, second = load_model_auto(one), load_model_auto(other)
    for name in ("data", "m", "v"):
        assert np.array_equal(getattr(first.gpt.arena, name), getattr(second.gpt.arena, name))
    assert first.training_state.step == second.training_state.step
    assert first.training_state.done == second.training_state.done


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, phase: str, times: int = 1) -> None:
    """Press Ctrl-C in that step, so many times."""
    from cgpt.cli.ui import progress

    def show(self: Any, p: Any) -> None:
        if (p.phase, p.step) == (phase, step):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress.ProgressDisplay, "__call__", show)


def test_a_second_ctrl_c_ends_at_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    stop_at(monkeypatch, 2, "pretrain", times=2)
    code, out, err = run(*TRAIN, "--max-steps", "6")
    assert (code, out) == (130, "") and err.rstrip().endswith("已中断")
    assert not (tmp_path / "checkpoints/checkpoint_last.bin").exists()


@pytest.mark.parametrize(("phase", "step"), [("pretrain", 2), ("finetune", 4), ("finetune", 5)])
def test_ctrl_c_saves_and_resume_ends_with_the_same_bits(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, step: int
) -> None:
    write_data(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, step, phase)
        code, out, err = run(*TRAIN, "--max-steps", "6", "--seed", "3", "--out", "my.bin")
    assert (code, out) == (130, "")
    assert err.rstrip().endswith("cgpt resume checkpoints/checkpoint_last.bin --out my.bin")
    assert not (tmp_path / "my.bin").exists()
    code, out, err = run("resume", "--json")
    assert code == 0, err
    assert json.loads(out)["out"] == "my.bin"
    same_model(tmp_path / "my.bin", trained / MODEL)
    assert run("resume")[0] == 0  # the step budget ended it: on to the last epoch
    code, _, err = run("resume", "--lang", "en")
    assert code == 0 and "is complete" in err


def test_save_every_leaves_a_checkpoint_on_the_way(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert (
        run(
            *TRAIN,
            "--max-steps",
            "5",
            "--save-every",
            "2",
            "--checkpoint-dir",
            "ck",
            "--finetune-epochs",
            "0",
        )[0]
        == 0
    )
    assert CheckpointManager("ck").latest() == Path("ck/checkpoint_last.bin")
    assert load_model_auto("ck/checkpoint_previous.bin").training_state.step == 4


def test_resume_with_more_epochs(run: Run, place: Path) -> None:
    code, out, err = run("resume", MODEL, "--epochs", "40", "--out", "more.bin", "--json")
    assert code == 0, err
    assert json.loads(out)["phases"]["finetune"]["epochs"] == 40
    assert load_model_auto(place / MODEL).training_state.step == 6


def test_resume_without_a_checkpoint(run: Run) -> None:
    code, _, err = run("resume")
    assert code == 1 and "checkpoints: 没有可恢复的 checkpoint" in err


def test_kill_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    write_data(tmp_path)
    process = subprocess.Popen(
        [*CGPT, *TRAIN, "--pretrain-epochs", "20000", "--save-every", "1"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    last = tmp_path / "checkpoints/checkpoint_last.bin"
    end = time.monotonic() + 60
    while not last.exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert load_model_auto(last).training_state.step >= 1


def test_ctrl_c_at_a_terminal_while_training(tmp_path: Path) -> None:
    write_data(tmp_path)
    with Screen(*TRAIN, "--pretrain-epochs", "20000", cwd=tmp_path, columns=40) as screen:
        screen.expect("步 ")
        screen.type("\x03")
        assert screen.end() == 130
        assert "cgpt resume checkpoints/checkpoint_last.bin" in screen.text.replace("\n", "")
        assert "Traceback" not in screen.text
    assert load_model_auto(tmp_path / "checkpoints/checkpoint_last.bin").training_state.unfinished


# ---- talking -------------------------------------------------------------------------------


def test_chat_answers_once(run: Run, place: Path) -> None:
    code, first, err = run("chat", "-p", "你好", "--seed", "1")
    assert (code, err) == (0, "") and first.endswith("\n")
    code, second, err = run("chat", MODEL, "--seed", "1", stdin="你好\n")
    assert (code, err) == (0, "") and second == first
    assert not re.search("<bos>|<eos>|<pad>|<user>|<assistant>|<system>|\ufffd", first)
    code, out, err = run("chat", stdin=" \n")
    assert (code, out) == (2, "") and err.startswith("错误: 问题为空")


def test_chat_at_a_terminal(place: Path) -> None:
    with Screen("chat", "--temperature", "0", "--max-new-tokens", "8", cwd=place) as screen:
        screen.answer("👤 用户: ", "你好")
        screen.expect("🤖 模型: ")
        screen.answer("👤 用户: ", "CLEAR")
        screen.expect("✓ 对话上下文已清空")
        screen.answer("👤 用户: ", "")
        screen.answer("👤 用户: ", "save")
        screen.answer("请选择 (1/2/3): ", "1")
        screen.answer("文件名", "copy.bin")
        screen.expect("✅ 模型已保存: checkpoints/copy.bin")
        screen.expect("👤 用户: ")
        screen.type("\x04")
        assert screen.end() == 0
    # with the optimizer, which chat does not load
    same_model(place / "checkpoints/copy.bin", place / MODEL)


def test_generate(run: Run, place: Path) -> None:
    options = ("--max-new-tokens", "5", "--seed", "2", "--num", "2")
    code, plain, err = run("generate", MODEL, "长江", *options)
    assert (code, err) == (0, "") and plain.startswith("长江")
    code, out, _ = run("generate", MODEL, "长江", *options, "--json")
    texts = [one["text"] for one in json.loads(out)["texts"]]
    assert code == 0 and "\n".join(texts) + "\n" == plain and len(texts) == 2
    code, beams, _ = run("generate", MODEL, "长江", "--beam", "3", "--max-new-tokens", "5")
    assert code == 0 and beams.startswith("长江")


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'import sys; from cgpt.cli import main; sys.exit(main())' generate "
        f"{MODEL} 山 --num 200 --max-new-tokens 50 | head -c 1; echo ${{PIPESTATUS[0]}} >&2",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        cwd=place,
        env=environment(),
        timeout=60,
    )
    assert done.stderr == b"0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error(place: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*CGPT, "generate", MODEL, "山"],
            stdout=full,
            cwd=place,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
        )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


# ---- files ---------------------------------------------------------------------------------


def test_eval(run: Run, place: Path) -> None:
    code, out, err = run("eval", MODEL, "texts.json", "chats.jsonl", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["tokens"] == sum(part["tokens"] for part in result["files"])
    assert result["perplexity"] == pytest.approx(np.exp(result["loss"]))
    assert result["bits_per_byte"] < result["bits_per_character"]
    code, out, err = run("eval", MODEL, "texts.json")
    assert code == 0 and re.search(r"困惑度 +\d", out)


def test_export_and_import(run: Run, place: Path) -> None:
    assert run("export", MODEL, "all.json")[0] == 0
    assert run("import", "all.json", "back.bin")[0] == 0
    same_model(place / "back.bin", place / MODEL)
    assert run("export", MODEL, "weights.bin", "--weights-only")[0] == 0
    assert load_model_auto(place / "weights.bin").optimizer is None
    assert (place / "weights.bin").stat().st_size < (place / MODEL).stat().st_size / 2
    (place / "gpt2").mkdir()
    code, _, err = run("import", "gpt2", "x.bin")
    assert code == 3 and "能导入 cgpt 自己的 .bin 和 .json" in err


def test_info(run: Run, place: Path) -> None:
    code, out, _ = run("info", "--json")
    assert code == 0 and json.loads(out)["instruction_set"] and json.loads(out)["version"]
    code, out, _ = run("info", MODEL, "--json", "--verify")
    found = json.loads(out)
    assert code == 0 and found["verified"] and found["training_state"]["step"] == 6
    code, out, err = run("info", MODEL, "--verify", "--lang", "en")
    assert code == 0 and "TiedHead" in out and err == "verified: every byte is as written\n"
    assert "\ntraining_state:\n" in out and re.search(r" seconds +\d+\.\d s$", out, re.M)


def test_info_says_that_a_budget_stopped_a_run(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    budget = (*TRAIN, "--pretrain-epochs", "2", "--finetune-epochs", "2")

    def state(path: str = MODEL) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("info", path, "--json")[1])["training_state"]
        return found

    assert run(*budget, "--max-steps", "1")[0] == 0
    of = state()["total_steps"]
    last = {"by": "budget", "step": 1, "of": of}
    assert (
        of == 2
        and state()["done"] == []
        and state()["stopped"] == {"pretrain": {"by": "budget", "step": 1}, "finetune": last}
    )
    out = run("info", MODEL)[1]
    assert re.search(r"^  done +-$", out, re.M)
    assert re.search(
        r"^  stopped +pretrain \(budget, step 1\), "
        r"finetune \(budget, step 1 of 2\)$",
        out,
        re.M,
    )
    assert run("export", MODEL, "all.json")[0] == 0
    assert state("all.json") == state()
    assert run("resume", MODEL, "--max-steps", "2")[0] == 0
    assert state()["done"] == ["finetune"] and list(state()["stopped"]) == ["pretrain"]
    assert run(*budget, "--out", "whole.bin")[0] == 0
    found = state("whole.bin")
    assert found["done"] == ["pretrain", "finetune"] and found["stopped"] == {}
    assert re.search(r"^  stopped +-$", run("info", "whole.bin")[1], re.M)


@pytest.mark.parametrize(
    ("state", "results", "done", "stopped"),
    [
        (
            ("finetune", ["pretrain", "finetune"], 5, 9),
            {"finetune": {"stopped": "early", "steps": 5}},
            ["pretrain", "finetune"],
            [],
        ),
        (("finetune", ["pretrain"], 5, 9), None, ["pretrain"], ["finetune"]),
        (("pretrain", ["pretrain"], 5, 9), None, [], ["pretrain"]),
        (("finetune", ["finetune"], 9, 9), {"finetune": {"stopped": "budget"}}, ["finetune"], []),
        (("", [], 0, 0), None, [], []),
    ],
)
def test_what_is_done_and_what_was_stopped(
    state: tuple[str, list[str], int, int], results: Any, done: list[str], stopped: list[str]
) -> None:
    values = dict(zip(("phase", "done", "step", "total_steps"), state, strict=True))
    found = how_it_ended(values, results)
    assert (found["done"], list(found["stopped"])) == (done, stopped)


def test_info_in_chinese(run: Run, place: Path) -> None:
    assert run("export", MODEL, "all.json")[0] == 0
    for model in (MODEL, "all.json"):
        code, out, _ = run("info", model)
        assert code == 0 and out.startswith(f"文件      {model}\n")
        tops = [line for line in out.splitlines() if not line.startswith(" ")]
        assert all(re.match("[\u4e00-\u9fff]", line) for line in tops)
        assert re.search(r"^参数量    \d+$", out, re.M)
        assert re.search(r" seconds +\d+\.\d 秒$", out, re.M)


def test_info_says_whether_openmp_is_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, chinese, english in (
        (True, "有", "yes"),
        (
            False,
            "没有 (编译时没有 OpenMP，只用一个线程)",
            "no (built without OpenMP, so there is one thread)",
        ),
    ):
        monkeypatch.setattr("cgpt.kernels.has_openmp", lambda found=found: found)
        assert json.loads(run("info", "--json")[1])["openmp"] is found
        assert re.search(rf"^OpenMP +{re.escape(chinese)}$", run("info")[1], re.M)
        assert re.search(rf"^openmp +{re.escape(english)}$", run("info", "--lang", "en")[1], re.M)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.8834567, "1.8835"),
        (0.0003, "0.0003"),
        (1e-8, "0.00000001"),
        (26679.4, "26679"),
        (None, "-"),
        ([0.9, 0.95], "0.9, 0.95"),
        (list(range(13)), "[13]"),
    ],
)
def test_values_are_rounded_for_people(value: object, shown: str) -> None:
    assert one_line(value) == shown


@pytest.mark.parametrize("command", [["chat", "-p", "x"], ["info"], ["export"], ["resume"]])
@pytest.mark.parametrize(
    ("content", "code"), [(None, 1), (b"", 3), (b"PK\x03\x04" + bytes(200), 3), (b"short", 3)]
)
def test_files_that_are_no_models(
    run: Run, tmp_path: Path, command: list[str], content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / "m.bin").write_bytes(content)
    args = [command[0], "m.bin", *command[1:]] + (["o.bin"] if command == ["export"] else [])
    found, out, err = run(*args)
    assert (found, out) == (code, "") and len(err.splitlines()) == 1 and "m.bin" in err
    assert not (tmp_path / "o.bin").exists()


def test_damaged_model_exits_with_3(run: Run, place: Path) -> None:
    content = bytearray((place / MODEL).read_bytes())
    content[len(content) // 3] ^= 8
    (place / MODEL).write_bytes(content)
    assert run("info", MODEL, "--verify")[0] == 3
    code, out, err = run("chat", "-p", "你好")
    assert (code, out) == (3, "") and err.startswith("错误: ")


# ---- measuring -----------------------------------------------------------------------------


def test_bench_prints_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgpt.bench import machine, measure, shapes

    monkeypatch.setattr(machine, "PEAK_SECONDS", 0.001)
    monkeypatch.setattr(machine, "READ", 1 << 20)
    monkeypatch.setitem(shapes.SHAPES, "S", shapes.Shape(1, 1, 16, 32, 300, 16, 2))
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.001)
    code, out, _ = run("bench", "--json", "--repeats", "2")
    assert code == 0
    results = json.loads(out)["results"]
    assert {one["bench"] for one in results} == {"kernels", "train", "decode", "save"}
    assert all(len(one["values"]) == 2 for one in results if one["unit"] not in ("B", "MB"))
    code, out, _ = run("bench", "train", "--repeats", "1")
    assert code == 0 and "tokens/s" in out


def test_bench_refuses_what_it_would_ignore(run: Run) -> None:
    code, _, err = run("bench", "kernels", "--batch", "2")
    assert code == 1 and "--batch" in err and "decode" in err
    assert run("bench", "train", "--peer", "torch")[0] == 2


def test_ratio_goes_repeat_by_repeat() -> None:
    rate = Measurement("train", "tokens/s", [20.0, 22.0, 30.0])
    assert ratio(rate, [10.0, 11.0, 10.0], "torch").values == [2.0, 2.0, 3.0]
