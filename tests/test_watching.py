"""A training as it is watched and stopped: the live lines, samples, logs, signals, autosaves."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from screen import Screen, environment, plain
from test_cli import MODEL, TRAIN, Run, run, same_model, stop_at, write_data

from cgpt.checkpoint.manager import CheckpointManager
from cgpt.cli.ui.layout import aligned, text_width
from cgpt.cli.ui.progress import Losses, ProgressDisplay, View, panel, progress_line
from cgpt.cli.ui.signals import StopRequest
from cgpt.errors import ConfigError, DataError
from cgpt.llm import load_model_auto
from cgpt.locale import set_language
from cgpt.plots.charts import chart, means, sparkline
from cgpt.runtime.memory import resident
from cgpt.runtime.signals import Terminated
from cgpt.training.callbacks import Progress
from cgpt.training.recipe import FINETUNE
from cgpt.training.step_log import read_log

__all__ = ["run"]  # fixtures
pytestmark = pytest.mark.usefixtures("clean_environment")

# Without jieba, which takes a second to start.
CGPT = [
    sys.executable,
    "-c",
    "import sys; import cgpt.tokenizers.vocabulary; from cgpt.cli import main; "
    "cgpt.tokenizers.vocabulary._jieba_cut = lambda: list; sys.exit(main())",
]
FOREVER = ("--pretrain-epochs", "20000")
LABELS = {
    "zh": ("轮", "步", "损失", "验证", "学习率", "词/秒", "梯度", "内存", "曲线", "样本 ["),
    "en": (
        "epoch",
        "step",
        "loss",
        "held-out",
        "lr",
        "tok/s",
        "gradient",
        "memory",
        "curve",
        "sample [",
    ),
}


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("screen.CGPT", CGPT)


def progress(**changes: Any) -> Progress:
    values = dict(
        phase="pretrain",
        epoch=3,
        epochs=8,
        step=120,
        steps=2100,
        loss=3.4567,
        val_loss=3.9876,
        lr=0.00123456,
        grad_norm=0.8123,
        tokens=123456,
        tokens_per_second=12345.6,
        seconds=60.0,
        seconds_left=83.0,
    )
    return Progress(**{**values, **changes})


def texts(lines: list[list[tuple[str, str]]]) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


# ---- what is drawn -------------------------------------------------------------------------


def cells(line: str) -> str:
    """A character a cell: behind a wide one stands a NUL."""
    return "".join(char + "\0" * (text_width(char) - 1) for char in line)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("width", [79, 39, 119, 20])
def test_the_panel_is_straight_in_any_width(language: str, width: int) -> None:
    set_language(language)
    try:
        view = View(
            Losses([8.0, 7.0, 5.0, 4.0]),
            412_000_000,
            (100, "长江有多长", "长江全长约六千公里\n，是中国\x1b[31m最长的河流。" * 9),
            "notice " * 20,
        )
        lines = texts(panel(progress(), view, width, 24, "剩余 01:23"))
    finally:
        set_language("zh")
    assert all(text_width(line) <= width for line in lines)
    assert not any(char in line for line in lines for char in "\x1b\n\r")
    shown = "\n".join(lines)
    assert all(
        value in shown
        for value in (
            "120/2100",
            "3.4567",
            "3.9876",
            "0.00123",
            "12,346",
            "0.8123",
            "412.0 MB",
            "8.00",
            "4.00",
        )
    )
    values = [("120/2100", "3.9876", "12,346", "412.0 MB")] if 30 < width < 60 else []
    for column in values:
        places = {
            next(cells(line).index(value) for line in lines if value in line) for value in column
        }
        assert len(places) == 1, "values stand one below the other"
    assert len(lines) < 24


def test_a_low_screen_loses_what_is_least_needed() -> None:
    view = View(Losses([8.0, 7.0]), 1, (100, "山", "水"), "notice")
    for height in range(2, 12):
        lines = texts(panel(progress(), view, 79, height, "01:23"))
        assert len(lines) <= max(height - 1, 1)
        assert lines[0].startswith("预训练 ")
        assert (lines[-1] == "notice") == (height >= 5)
    assert any("样本" in line for line in texts(panel(progress(), view, 79, 9, "")))
    assert not any("样本" in line for line in texts(panel(progress(), view, 79, 6, "")))


def test_the_line_off_a_terminal_has_every_number() -> None:
    line = progress_line(progress(), memory=412_000_000)
    assert line == (
        "预训练  轮 3/8  步 120/2100  损失 3.4567  验证 3.9876  学习率 0.00123  "
        "梯度 0.8123  12,346 词/秒  412.0 MB  剩余 01:23"
    )
    assert all(text_width(progress_line(progress(), width)) <= width for width in range(10, 120))


def test_sparklines() -> None:
    assert sparkline([1, 2, 3], 10) == "▁▅█" and sparkline([2, 2], 10) == "▁▁"
    assert sparkline([float("nan")], 5) == "" and sparkline([], 5) == ""
    line = sparkline(np.arange(1000.0).tolist(), 8)
    assert line == "▁▂▃▄▅▆▇█"
    assert means([1, 3, 5, 7], 2) == [2, 6]


def test_losses_are_bounded_and_keep_their_mean() -> None:
    losses = Losses()
    for i in range(100_000):
        losses.add(float(i))
    assert len(losses.values) < 1024
    assert np.mean(losses.values) == pytest.approx(50_000, rel=0.02)
    assert losses.values == sorted(losses.values)


@pytest.mark.parametrize("width", [39, 79])
def test_charts_fit_and_go_where_the_points_go(width: int) -> None:
    falling = [(float(i), 10.0 - i) for i in range(1, 10)]
    rows = chart([falling], width, 10)
    lines = ["".join(text for text, _ in row) for row in rows]
    assert all(text_width(line) <= width for line in lines)
    first, last = lines[0].partition("│")[2], lines[7].partition("│")[2]
    filled = [[i for i, char in enumerate(line) if char != " "] for line in (first, last)]
    assert filled[0][0] == 0 and filled[1][-1] >= width - 14
    assert lines[0].strip().startswith("9") and lines[-1].split() == ["1", "9"]
    assert chart([[]], width, 10) == [] and chart([[(1.0, 2.0)]], width, 10)


def test_tables_are_straight_or_become_blocks() -> None:
    rows = [["文件", "一", "model"], ["很长的文件名.json", "1.25", "1000.5"]]
    lines = aligned(rows, 40)
    assert len({text_width(line) for line in lines}) == 1
    assert aligned(rows, 26)[1].startswith("…文件名.json ")
    block = aligned(rows, 18)
    assert block == ["很长的文件名.json", "  一     1.25", "  model  1000.5"]
    assert aligned([["", "checkpoints/a.bin", "b"], ["x", "1.25", "2"]], 16)[1:] == [
        "  …s/a.bin  1.25",
        "  b         2",
    ]


def test_memory_is_what_the_process_holds() -> None:
    before = resident()
    held = np.ones(20_000_000, np.float64)
    assert resident() - before > 100e6 and held[0] == 1


# ---- at a terminal -------------------------------------------------------------------------


class Drawn:
    """What a Screen shows, drawn as a terminal draws it."""

    def __init__(self, screen: Screen, columns: int) -> None:
        import pyte

        self.screen, self.columns = screen, columns
        self.picture = pyte.Screen(columns, 24)
        self.stream = pyte.ByteStream(self.picture)
        self.fed = 0

    def lines(self) -> list[str]:
        self.stream.feed(self.screen.raw[self.fed :])
        self.fed = len(self.screen.raw)
        return [line.rstrip() for line in self.picture.display]

    def until(self, check: Callable[[list[str]], object], seconds: float = 60.0) -> list[str]:
        """Read on until what is shown passes the check."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines = self.lines()
            if check(lines):
                return lines
            if not self.screen._read(0.2):
                break
        raise AssertionError("\n".join(self.lines()))


def echoes(screen: Screen) -> bool:
    """Whether the terminal shows what is typed."""
    import termios

    return bool(termios.tcgetattr(screen.master)[3] & termios.ECHO)


@pytest.mark.parametrize(("columns", "language"), [(80, "zh"), (80, "en"), (40, "zh"), (40, "en")])
def test_the_live_display_and_ctrl_c_at_a_terminal(
    tmp_path: Path, columns: int, language: str
) -> None:
    write_data(tmp_path)
    hint = {"zh": "Ctrl-C: 完成当前步", "en": "Ctrl-C finishes"}[language]
    with Screen(
        *TRAIN,
        *FOREVER,
        "--val-fraction",
        "0.2",
        "--sample-every",
        "20",
        "--lang",
        language,
        cwd=tmp_path,
        columns=columns,
    ) as screen:
        drawn = Drawn(screen, columns)

        def whole(lines: list[str]) -> bool:
            shown = "\n".join(lines)
            return all(label in shown for label in LABELS[language]) and hint in shown

        lines = drawn.until(whole)
        bars = [line for line in lines if "─" in line or "━" in line]
        assert len(bars) == 1, "one frame, drawn over itself"
        screen.type("\r\r")  # keys do not break the picture
        drawn.until(lambda lines: sum("─" in line for line in lines) == 1 and whole(lines))
        assert not echoes(screen)
        screen.type("\x03")
        assert screen.end() == 130
        assert echoes(screen)
        lines = drawn.lines()
        shown = "".join(lines)
        assert "cgpt resume checkpoints/checkpoint_last.bin" in shown
        assert sum("─" in line for line in lines) == 1
        assert not any(hint in line or "Traceback" in line for line in lines)
    assert load_model_auto(tmp_path / "checkpoints/checkpoint_last.bin").training_state.unfinished


def test_ctrl_c_before_the_first_line_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pty

    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with open(slave, "w", encoding="utf-8") as stream:
        with StopRequest(stream) as stop, ProgressDisplay(stream, stop) as display:
            signal.raise_signal(signal.SIGINT)
            display(progress(step=1))
        print("the end", file=stream, flush=True)
        shown = b""
        while b"the end" not in shown:
            shown += os.read(master, 100_000)
    lines = plain(shown.decode()).split("\n")
    os.close(master)
    assert "正在完成当前步；再按一次 Ctrl-C 立即结束。" in lines


def test_a_screen_that_becomes_narrower_keeps_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of up to 79 cells take two rows of 40: as many are erased, and what is above stays."""

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    for columns, rows in ((80, 0), (120, 0), (40, 6)):
        stream = Tty()
        with ProgressDisplay(stream) as display:
            display.console.size = (80, 24)
            display(progress(step=1))
            assert len(display.drawn) == 3
            display.console.size = (columns, 24)
            stream.truncate(0)
            display._show(progress(step=2))
            erased = f"\r\x1b[{rows - 1}A\x1b[J\n\n"
            assert stream.getvalue().lstrip("\0").startswith(erased) == bool(rows)


def test_no_color_and_a_dumb_terminal(tmp_path: Path) -> None:
    write_data(tmp_path)
    colour = re.compile(rb"\x1b\[[0-9;]*3[0-9](;[0-9;]*)?m")
    short = ("--pretrain-epochs", "3", "--finetune-epochs", "0", "--overwrite")
    for environ, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        with Screen(*TRAIN, *short, cwd=tmp_path, **environ) as screen:
            assert screen.end() == 0
        assert bool(colour.search(screen.raw)) == coloured
    assert b"\x1b" not in screen.raw and "损失" in screen.text  # the dumb one: plain lines


def test_a_training_in_the_background_leaves_the_screen_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("cgpt.cli.ui.progress.in_foreground", lambda stream: False)
    display = ProgressDisplay(Tty())
    with display:
        display(progress(step=1))
    shown = display.stream.getvalue()
    assert display.live is None and shown.startswith("预训练  轮 3/8  步 1/")
    assert text_width(shown.rstrip("\n")) < 80


# ---- samples -------------------------------------------------------------------------------


def test_samples_are_shown_logged_and_change_no_bit(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    args = (
        *TRAIN,
        "--max-steps",
        "9",
        "--pretrain-epochs",
        "20",
        "--seed",
        "3",
        "--dropout",
        "0.1",
    )
    code, _, err = run(*args, "--sample-every", "4", "--log", "a.jsonl", "--out", "a.bin")
    assert code == 0 and err.count("样本 [步 ") == 6
    _, *steps = map(json.loads, Path("a.jsonl").read_text().splitlines())
    assert [step["step"] for step in steps if "sample" in step] == [4, 8, 9, 4, 8, 9]
    asked = [step["sample"]["prompt"] for step in steps if "sample" in step]
    assert asked == [""] * 3 + ["长江有多长"] * 3
    assert run(*args, "--sample-every", "0", "--out", "b.bin")[0] == 0
    same_model(tmp_path / "a.bin", tmp_path / "b.bin")
    code, _, err = run(*args, "--sample-every", "9", "--sample-prompt", "黄河", "--out", "c.bin")
    assert code == 0 and err.count("样本 [步 9] 黄河") == 2
    same_model(tmp_path / "a.bin", tmp_path / "c.bin")


def test_resume_keeps_how_often_samples_are_drawn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    args = (*TRAIN, "--finetune-epochs", "0", "--max-steps", "4")
    with monkeypatch.context() as patch:
        stop_at(patch, 1, "pretrain")
        assert run(*args, "--sample-every", "3", "--sample-prompt", "黄河")[0] == 130
    code, _, err = run("resume")
    assert code == 0 and "样本 [步 3] 黄河" in err
    assert "样本" not in run("resume", "--max-steps", "6", "--sample-every", "0")[2]


# ---- logs ----------------------------------------------------------------------------------


def test_a_log_goes_on_where_the_run_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, 4, "pretrain")
        assert run(*TRAIN, "--max-steps", "6", "--log", "run.jsonl")[0] == 130
    assert run("resume")[0] == 0  # the log is part of the run
    lines = [json.loads(line) for line in Path("run.jsonl").read_text().splitlines()]
    heads = [line for line in lines if "step" not in line]
    assert len(heads) == 2 and all(head["version"] and head["made_with"]["numpy"] for head in heads)
    assert all(line["memory"] > 1e6 and line["grad_norm"] > 0 for line in lines if "step" in line)
    read = read_log("run.jsonl")
    assert [curve.phase for curve in read.curves] == ["pretrain", "finetune"]
    assert [curve.steps for curve in read.curves] == [[1, 2, 3, 4, 5, 6]] * 2


def test_reading_logs(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    head = '{"version": "1", "seed": 0, "config": {}}\n'
    step = '{{"phase": "pretrain", "step": {}, "loss": {}, "val_loss": {}}}\n'
    path.write_text(
        head
        + step.format(1, 5.0, "null")
        + step.format(2, 4.0, 4.5)
        + step.format(3, "null", 4.5)
        + step.format(4, 3.0, 4.5)
        + head
        + step.format(3, 3.5, 4.4)
        + '{"phase": "pre'
    )
    (curve,) = read_log(str(path)).curves
    assert (curve.steps, curve.losses) == ([1, 2, 3], [5.0, 4.0, 3.5])
    assert curve.held_out == [(2, 4.5), (3, 4.4)]
    path.write_text(head + "[1]\n" + step.format(1, 5.0, "null"))
    with pytest.raises(DataError, match="line 2: not a step"):
        read_log(str(path))
    path.write_text(head)
    with pytest.raises(DataError, match="no step in the log"):
        read_log(str(path))
    with pytest.raises(DataError, match="cannot be read"):
        read_log(str(tmp_path / "none.jsonl"))


# ---- stopping ------------------------------------------------------------------------------


def begun(tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    """A training without end that has taken its first step."""
    write_data(tmp_path)
    process = subprocess.Popen(
        [*CGPT, *TRAIN, *FOREVER, "--log", "run.jsonl", *more],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: int, code: int) -> None:
    process = begun(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.rstrip().endswith(f"继续: cgpt resume checkpoints/checkpoint_last.bin --out {MODEL}")
    state = load_model_auto(tmp_path / "checkpoints/checkpoint_last.bin").training_state
    logged = read_log(str(tmp_path / "run.jsonl")).curves[0].steps[-1]
    assert state.unfinished and state.step == logged


def test_a_closed_terminal_stops_and_saves(tmp_path: Path) -> None:
    write_data(tmp_path)
    with Screen(*TRAIN, *FOREVER, cwd=tmp_path) as screen:
        screen.expect("步 ")
        screen.hang_up()
        assert screen.process.wait(60) == 129
    assert load_model_auto(tmp_path / "checkpoints/checkpoint_last.bin").training_state.unfinished


def test_a_hang_up_may_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgpt.runtime.signals.leave_terminal", lambda: None)
    with StopRequest(io.StringIO()) as stop:
        assert not stop()
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop() and stop.exit_code == 129
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_under_nohup_a_closed_terminal_stops_nothing(tmp_path: Path) -> None:
    write_data(tmp_path)
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "from cgpt.cli import main; "
        "from cgpt.cli.ui import progress; "
        "progress.ProgressDisplay.__call__ = lambda self, p: signal.raise_signal("
        "signal.SIGHUP); sys.exit(main())"
    )
    done = subprocess.run(
        [*CGPT[:2], code, *TRAIN, "--max-steps", "3"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_second_signal_leaves_the_old_file_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, 2, "pretrain")
        assert run(*TRAIN, "--max-steps", "6")[0] == 130
    last = tmp_path / "checkpoints/checkpoint_last.bin"
    before = last.read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, 4, "pretrain", times=2)
        code, _, err = run("resume")
    assert code == 130 and err.rstrip().endswith("已中断")
    assert last.read_bytes() == before
    assert run("resume")[0] == 0


def test_a_budget_says_how_to_go_on(run: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    code, _, err = run(*TRAIN, "--max-steps", "5", "--pretrain-epochs", "0")
    assert code == 0 and f"接着训练到最后一轮: cgpt resume {MODEL}" in err
    code, _, err = run("resume", MODEL, "--max-steps", "9")
    assert code == 0 and "接着训练" in err
    assert load_model_auto(tmp_path / MODEL).training_state.step == 9
    assert run(*TRAIN, "--max-steps", "9", "--pretrain-epochs", "0", "--out", "whole.bin")[0] == 0
    same_model(tmp_path / MODEL, tmp_path / "whole.bin")
    code, _, err = run("resume", MODEL)
    assert code == 0 and "接着训练" not in err
    assert load_model_auto(tmp_path / MODEL).training_state.step == FINETUNE.epochs


def test_a_new_budget_holds_for_all_that_is_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, 2, "pretrain")
        assert run(*TRAIN)[0] == 130
    code, out, _ = run("resume", "--max-steps", "4", "--json")
    phases = json.loads(out)["phases"]
    assert code == 0 and [phases[name]["steps"] for name in ("pretrain", "finetune")] == [4, 4]
    assert [phases[name]["stopped"] for name in ("pretrain", "finetune")] == ["budget"] * 2


# ---- autosaves -----------------------------------------------------------------------------


def test_autosave_by_the_clock(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path)
    clock = iter(range(0, 10_000_000, 25))  # a step takes 25 seconds or more
    monkeypatch.setattr("cgpt.checkpoint.manager.time.monotonic", lambda: float(next(clock)))
    saved = []
    write = CheckpointManager._write
    monkeypatch.setattr(
        CheckpointManager,
        "_write",
        lambda self, packed, names, *rest: saved.append(names) or write(self, packed, names, *rest),
    )
    args = (*TRAIN, "--max-steps", "9", "--finetune-epochs", "0", "--sample-every", "0")
    assert run(*args, "--save-minutes", "0")[0] == 0 and not saved
    assert run(*args, "--save-minutes", "1", "--seed", "3", "--overwrite")[0] == 0
    assert 2 <= len(saved) < 8 and all(names == ["checkpoint_last"] for names in saved)
    assert load_model_auto("checkpoints/checkpoint_previous.bin").training_state.unfinished


def test_minutes_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="minutes must be"):
        CheckpointManager(minutes=float("nan"))
