"""What is typed, pasted, piped and shown: one message a paste, no control characters, UTF-8."""

# ruff: noqa: F401, F811 - fixtures of test_cli: imported here, arguments below

from __future__ import annotations

import ast
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from captured_output import Speaker
from screen import CGPT, PATIENCE, Screen, environment, piped
from test_cli import MODEL, Run, place, run, trained

from cgpt.cli import main
from cgpt.cli.ui import chat_loop, keyboard, streams, terminal
from cgpt.cli.ui.progress import ProgressDisplay
from cgpt.cli.ui.streams import has_stray_bytes
from cgpt.tokenizers.vocabulary import FIRST_BYTE

SHORT = ("--max-new-tokens", "3")
pytestmark = pytest.mark.usefixtures("clean_environment")
LETTER = f"{FIRST_BYTE + ord('a')}=100000"  # a logit bias: every token is this letter
TALK = ("chat", MODEL, *SHORT, "--session", "talk.json", "--logit-bias", LETTER)
BLOCK = "第一行\n  第二行\n\n最后一行"
PASTED = "\x1b[200~" + BLOCK.replace("\n", "\r") + "\x1b[201~"
ESC = f"{FIRST_BYTE + 0x1B}=100000"  # logit bias of the byte ESC
CLI = Path(terminal.__file__).parent


def asked(path: Path) -> list[str]:
    """What the user said in a session file."""
    messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
    return [one["content"] for one in messages if one["role"] == "user"]


# ---- pasting -------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "language"), [(80, "zh"), (40, "en")])
def test_a_pasted_block_is_one_message(place: Path, columns: int, language: str) -> None:
    prompt = {"zh": "👤 用户: ", "en": "👤 You: "}[language]
    with Screen("--lang", language, *TALK, cwd=place, columns=columns) as screen:
        screen.expect(prompt)
        screen.type(PASTED)
        screen.expect("最后一行")
        screen.type("。\r")
        screen.expect(prompt)
        screen.type("\x1b[200~exit\r\x1b[201~")  # its line end does not send it
        screen.expect("exit")
        screen.type("?\r")
        screen.expect(prompt)
        screen.type("\x1b[A\x1b[A\r")  # the history keeps the block
        screen.expect(prompt)
        screen.type(PASTED + "\x03")  # Ctrl-C throws all of it away
        screen.expect("Ctrl-C")
        screen.expect(prompt)
        screen.type("\x04")
        assert screen.end() == 0
    assert asked(place / "talk.json") == [f"{BLOCK}。", "exit\n?", f"{BLOCK}。"]


def test_tab_completes_the_commands_of_the_chat(place: Path) -> None:
    with Screen(*TALK, cwd=place) as screen:
        screen.expect("👤 用户: ")
        screen.type("c\t")
        screen.expect("clear")
        screen.type("\r")
        screen.expect("👤 用户: ")
        screen.type("a c\t\r")  # no command: nothing is completed
        screen.expect("👤 用户: ")
        screen.type("EX\t\r")
        assert screen.end() == 0
    assert asked(place / "talk.json") == ["a c"]


def test_ctrl_z_keeps_what_was_typed(place: Path) -> None:
    """Nobody continues this session, so the kernel does not stop it; the line is drawn anew."""
    with Screen(*TALK, cwd=place) as screen:
        screen.expect("👤 用户: ")
        screen.type("你好")
        screen.expect("你好")
        screen.type("\x1a")
        screen.expect("👤 用户: 你好")
        screen.type("吗\r")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0
    assert asked(place / "talk.json") == ["你好吗"]


def test_a_pasted_block_without_line_editing(place: Path) -> None:
    """stdout goes elsewhere, so readline is not there; the terminal is asked for marks."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*CGPT, *TALK],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=place,
        env=environment(),
    ) as process:
        os.close(slave)
        assert process.stdout is not None
        seen = b""
        while "👤 用户: ".encode() not in seen:
            seen += os.read(process.stdout.fileno(), 4096)
        assert b"\x1b" not in seen
        os.write(master, PASTED.encode() + b"\r")
        seen = b""
        while "👤 用户: ".encode() not in seen:
            seen += os.read(process.stdout.fileno(), 4096)
        os.write(master, b"\x04")
        process.stdout.read()
        assert process.wait(PATIENCE) == 0
    os.close(master)
    assert asked(place / "talk.json") == [BLOCK]


def test_a_dumb_terminal_gets_no_escape_sequences(place: Path) -> None:
    with Screen(*TALK, cwd=place, TERM="dumb") as screen:
        screen.answer("👤 用户: ", "你好")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0 and b"\x1b" not in screen.raw


@pytest.mark.parametrize(
    ("key", "code"), [("\x04", 0), ("\x03\x03", 130), ("exit\r", 0), ("", 143)]
)
def test_a_terminal_is_left_as_it_was(place: Path, key: str, code: int) -> None:
    with Screen(*TALK, cwd=place) as screen:
        screen.expect("👤 用户: ")
        screen.type("你好\r")
        screen.expect("👤 用户: ")
        if key:
            screen.type(key)
        else:
            screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == code
        on, off = (screen.raw.rfind(mark.encode()) for mark in keyboard.BRACKETED_PASTE)
        assert off > on > 0
        assert termios.tcgetattr(screen.master)[3] & termios.ECHO


def test_a_block_is_no_answer_to_a_question(place: Path) -> None:
    with Screen(cwd=place) as screen:
        screen.expect("是否加载已有模型? (y/n): ")
        screen.type("\x1b[200~y\r1\rn\x1b[201~\r")
        screen.expect("请输入 y 或 n。")
        screen.answer("是否加载已有模型? (y/n): ", "\x03")
        assert screen.end() == 130


# ---- pipes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("总结: ", "长江\n  全长\n", "总结:\n\n长江\n  全长"),
        ("总结", "", "总结"),
        ("总结", " \n\n", "总结"),
        (None, "\n  长江\n", "长江"),
        ("", "长江", "长江"),
        ("总结", "\ufeff长江", "总结\n\n长江"),
    ],
)
def test_text_on_stdin_beside_a_prompt(
    place: Path, prompt: str | None, text: str, expected: str
) -> None:
    given = () if prompt is None else ("-p", prompt)
    done = piped(*TALK, *given, cwd=place, answers=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(place / "talk.json") == [expected]


@pytest.mark.parametrize(
    "command",
    [("generate", MODEL, *SHORT, "--temperature", "0", "--json"), ("inspect", MODEL, "--json")],
)
def test_a_text_may_come_from_stdin(run: Run, place: Path, command: tuple[str, ...]) -> None:
    name, model, *rest = command
    piped, given = (
        json.loads(one[1])
        for one in (run(name, model, *rest, stdin="长江\n"), run(name, model, "长江", *rest))
    )
    for found in (piped, given):  # but for how long it took and what was in the cache
        found["texts"] = [one["text"] for one in found.get("texts", ())]
    assert piped == given
    code, out, err = run(name, model, *rest, stdin="\n")
    assert (code, out) == (2, "") and err.startswith("错误: 缺少 TEXT\n")


def test_a_text_to_encode_may_be_typed(place: Path) -> None:
    with Screen("tokenizer", "encode", MODEL, "--json", cwd=place) as screen:
        screen.type("长江\r\x04")
        screen.expect('"characters": 3')
        assert screen.end() == 0


def test_a_pipe_that_stays_empty_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(streams, "STDIN_PATIENCE", 0.0)
    with os.fdopen(reading, encoding="utf-8") as stdin, os.fdopen(writing, "w") as other:
        monkeypatch.setattr(sys, "stdin", stdin)
        echo = streams.echo
        monkeypatch.setattr(streams, "echo", lambda *a, **k: (echo(*a, **k), other.close()))
        assert streams.read_stdin() == ""
    assert capsys.readouterr().err == "正在等待标准输入；没有文本要给时，请加 < /dev/null\n"


STRAY = "错误: 标准输入第 2 行: 第 4 个字节为 0xff，应为 UTF-8；请转换编码，例如用 iconv\n"


@pytest.mark.parametrize(
    "command", [("chat", MODEL), ("chat", MODEL, "-p", "问"), ("tokenizer", "encode", MODEL), ()]
)
def test_bytes_on_stdin_that_are_not_utf8(place: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*CGPT, *command],
        input="n\n中".encode() + b"\xff\n",
        cwd=place,
        capture_output=True,
        env=environment(CGPT_MAX_STEPS="1"),
        timeout=PATIENCE,
    )
    assert done.returncode == 1 and done.stderr.decode().endswith(STRAY)
    assert command == () or done.stdout == b""


@pytest.mark.parametrize(
    "command",
    [
        ("chat", MODEL, "-p"),
        ("chat", MODEL, "--system"),
        ("generate", MODEL),
        ("inspect", MODEL),
        ("tokenizer", "encode", MODEL),
        ("chat", MODEL, "--stop"),
    ],
)
def test_bytes_in_arguments_that_are_not_utf8(place: Path, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [*CGPT, *command, b"\xff"],
        stdin=subprocess.DEVNULL,
        cwd=place,
        capture_output=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode().splitlines()[0].endswith("的值不对: 含有不是 UTF-8 的字节")


def test_bytes_that_are_typed_are_told_and_asked_again(place: Path) -> None:
    with Screen(*TALK, cwd=place) as screen:
        screen.expect("👤 用户: ")
        os.write(screen.master, b"ab\xffc\r")
        screen.expect("输入含有不是 UTF-8 的字节，请重新输入。")
        screen.answer("👤 用户: ", "你好")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0
    assert asked(place / "talk.json") == ["你好"]


def test_chinese_can_be_typed_where_the_locale_is_c(place: Path) -> None:
    with Screen(*TALK, cwd=place, LC_ALL="C") as screen:
        screen.answer("👤 用户: ", "你好吗\x7f")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0
    assert asked(place / "talk.json") == ["你好"]


# ---- what is shown -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("generate", MODEL, "长江"),
        ("generate", MODEL, "长江", "--beam", "2"),
        ("generate", MODEL, "长江", "--beam", "2", "--num", "2"),
        ("chat", MODEL, "-p", "长江"),
    ],
)
def test_control_characters_are_signs_on_a_terminal_and_raw_in_a_pipe(
    place: Path, command: tuple[str, ...]
) -> None:
    command = (*command, *SHORT, "--logit-bias", ESC)
    with Screen(*command, cwd=place) as screen:
        if "-p" in command:
            screen.type("\x04")
        assert screen.end() == 0
        assert b"\x1b" not in screen.raw and "␛␛" in screen.text
    assert "\x1b\x1b" in piped(*command, cwd=place).stdout


def test_control_characters_in_a_chat(place: Path) -> None:
    with Screen("chat", MODEL, *SHORT, "--logit-bias", ESC, cwd=place) as screen:
        screen.answer("👤 用户: ", "你好")
        screen.expect("🤖 模型: ␛␛␛\n")
        screen.answer("👤 用户: ", "exit")
        assert screen.end() == 0


def test_the_chat_is_raw_where_it_goes_to_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    session = Speaker(lambda: (one for one in ("a\x1b[31m", "b\r\x9b")))
    chat_loop.answer(terminal.Terminal(), session, "")  # type: ignore[arg-type]
    assert capsys.readouterr().out == "🤖 模型: a\x1b[31mb\r\x9b\n\n"


@pytest.mark.parametrize(
    "command",
    [
        ("info", "{name}"),
        ("eval", MODEL, "{name}", "texts.json"),
        ("data", "{name}"),
        ("generate", MODEL, "长江{name}"),
        ("inspect", MODEL, "长{name}"),
        ("tokenizer", "encode", MODEL, "长{name}"),
        ("train", "--config", "{name}"),
        ("train", "--lr", "{name}"),
        ("{name}",),
        ("resume", "{name}"),
    ],
)
def test_names_and_texts_cannot_command_the_terminal(place: Path, command: tuple[str, ...]) -> None:
    name = "x\x1b[31m\x9b2J.json"
    (place / name).write_text('["长江有多长"]', encoding="utf-8")
    with Screen(*(one.format(name=name) for one in command), cwd=place) as screen:
        screen.end()
        assert b"\x1b" not in screen.raw and "\x9b".encode() not in screen.raw


def test_samples_and_metadata_cannot_command_the_terminal(place: Path) -> None:
    from cgpt.checkpoint.saving import save_model_binary
    from cgpt.llm import load_model_auto

    class Screenlike(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            raise OSError

    model = load_model_auto(place / MODEL)
    model.metadata["note"] = "\x1b[2J\x9b"
    save_model_binary(model, place / "a.bin")
    with Screen("info", "a.bin", cwd=place) as screen:
        screen.end()
        assert b"\x1b" not in screen.raw and "␛[2J\\u009b" in screen.text
    stream = Screenlike()
    display = ProgressDisplay(stream)
    display.live = None
    display.sample(1, "长\x1b[31m江", "a\x07\nb")
    assert "长␛[31m江 a␇ b" in stream.getvalue()
    pipe = io.StringIO()
    ProgressDisplay(pipe).sample(1, "长\x1b[31m江", "a\x07\nb")
    assert "长\x1b[31m江 a\x07 b" in pipe.getvalue()


def test_one_place_writes_to_the_streams() -> None:
    """print, click.echo and write of a stream know nothing of control characters."""
    for path in CLI.rglob("*.py"):
        if path.name in ("streams.py", "worker.py"):  # the worker's stdout is a protocol
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in (
                    "print",
                    "click.echo",
                    "click.secho",
                    "sys.stdout.write",
                    "sys.stderr.write",
                ), f"{path.name}:{node.lineno}: {name}"


def test_no_text_makes_writing_fail(place: Path) -> None:
    for encoding in ("ascii", "gbk", "latin-1"):
        done = subprocess.run(
            [*CGPT, "chat", MODEL, "-p", "你好 \U0001f600 é", *SHORT],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_chinese_arguments_where_the_locale_is_ascii(place: Path) -> None:
    done = subprocess.run(
        [*CGPT, *TALK, "-p", "你好", "--system", "谢谢"],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        env=environment(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
    )
    assert (done.returncode, done.stderr) == (0, b"") and asked(place / "talk.json") == ["你好"]


def test_stray_bytes_are_known() -> None:
    assert has_stray_bytes(b"a\xff".decode("utf-8", "surrogateescape"))
    assert not has_stray_bytes("a\ufffd\U0001f600中\ud800")


@pytest.mark.parametrize(("call", "ignored"), [("main()", True), ("main(['--version'])", False)])
def test_a_ctrl_c_after_the_end_changes_nothing(call: str, ignored: bool) -> None:
    code = (
        "import signal, sys; sys.argv = ['cgpt', '--version']; from cgpt.cli import main; "
        f"{call}; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.stdout.splitlines()[-1] == str(ignored) and done.stderr == ""


def test_one_more_ctrl_c_while_the_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*given: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cgpt.cli.guard", again)
    assert main(["--version"]) == 130
