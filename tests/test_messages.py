"""Every text is there in both languages, with the same fields, and every one is used."""

from __future__ import annotations

import ast
import re
import string
import unicodedata
from pathlib import Path

import click
import pytest
import wcwidth

from cgpt.cli import choose_language, messages
from cgpt.cli.app import LazyGroup, Option
from cgpt.cli.help_text import COMMANDS, OPTIONS
from cgpt.cli.messages import MESSAGES, language, set_language, t
from cgpt.cli.root import cgpt
from cgpt.cli.ui import layout
from cgpt.cli.ui.layout import aligned, box, columns, cut, folded, rows_of, text_width, wrap
from cgpt.cli.ui.streams import printable
from cgpt.cli.ui.terminal import as_argument, plain_number

CLI = Path(messages.__file__).parent


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def keys_used() -> tuple[set[str], list[str]]:
    """(keys in t("key") and other strings of the code, beginnings of f-strings given to t)."""
    words, beginnings = set(), []
    for path in CLI.rglob("*.py"):
        if path.name == "messages.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                beginnings.append(str(node.values[0].value))
    return words, beginnings


@pytest.mark.parametrize("key", MESSAGES)
def test_both_languages_have_the_same_fields(key: str) -> None:
    chinese, english = MESSAGES[key]
    assert chinese and english
    assert fields(chinese) == fields(english)
    assert not re.search("[\u4e00-\u9fff]", english)


def test_every_message_is_used() -> None:
    words, beginnings = keys_used()
    unused = [
        key
        for key in MESSAGES
        if key not in words and not any(start and key.startswith(start) for start in beginnings)
    ]
    assert not unused


def every_command(group: LazyGroup, ctx: click.Context) -> list[click.Command]:
    """The commands of a group, those of groups inside it too."""
    found: list[click.Command] = []
    for name in group.modules:
        command = group.get_command(ctx, name)
        found += [command, *(every_command(command, ctx) if isinstance(command, LazyGroup) else [])]
    return found


def test_every_option_and_command_has_help_in_both_languages() -> None:
    with click.Context(cgpt) as ctx:
        commands = [cgpt, *every_command(cgpt, ctx)]
        assert {command.name for command in commands} == set(COMMANDS)
        found = {
            param.name
            for command in commands
            for param in command.params
            if isinstance(param, Option)
        }
        assert found == set(OPTIONS)
        for name in ("zh", "en"):
            set_language(name)
            for command in commands:
                assert command.get_help(click.Context(command, info_name=command.name))
    set_language("zh")
    assert all(len(pair) == 2 and all(pair) for pair in [*COMMANDS.values(), *OPTIONS.values()])


def test_every_option_reads_the_environment() -> None:
    with click.Context(cgpt) as ctx:
        for command in every_command(cgpt, ctx):
            for param in command.params:
                if isinstance(param, Option) and param.name != "help":
                    flag = max(param.opts, key=len)
                    assert param.envvar == "CGPT_" + flag[2:].replace("-", "_").upper()


def test_language_is_chosen_by_flag_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CGPT_LANG", raising=False)
    choose_language([])
    assert language() == "zh"
    monkeypatch.setenv("CGPT_LANG", "en_US.UTF-8")
    choose_language([])
    assert language() == "en" and t("ask_save") == "Save the current model? (y/n): "
    choose_language(["chat", "--lang", "zh"])
    assert language() == "zh" and t("ask_save") == "是否保存当前模型? (y/n): "
    with pytest.raises(ValueError):
        set_language("fr")


@pytest.mark.parametrize("width", [40, 61, 80])
@pytest.mark.parametrize("title", ["CGPT - 中文GPT模型训练系统", "模型保存选项", "Chat"])
def test_box_is_straight(title: str, width: int) -> None:
    lines = box(title, width, left=20)
    assert len({text_width(line) for line in lines}) == 1
    assert text_width(lines[0]) == min(61, width) and title in lines[1]


def test_box_as_the_guide_shows_it() -> None:
    assert box("模型保存选项", 80, left=20) == [
        "╔═══════════════════════════════════════════════════════════╗",
        "║                    模型保存选项                           ║",
        "╚═══════════════════════════════════════════════════════════╝",
    ]


@pytest.mark.parametrize(
    ("sign", "cells"),
    [
        ("👨\u200d👩\u200d👧", 2),
        ("❤\ufe0f", 2),
        ("🇨🇳", 2),
        ("1\ufe0f\u20e3", 2),
        ("👍🏽", 2),
        ("e\u0301", 1),
        ("각", 2),
        ("\u1100\u1161\u11a8", 2),
    ],
)
def test_what_a_reader_sees_as_one_character_is_never_divided(sign: str, cells: int) -> None:
    assert text_width(sign) == cells and text_width(f"中{sign}a") == 3 + cells
    assert cut(sign * 3, cells) == (sign, sign * 2) and cut(sign, cells - 1) == ("", sign)
    assert wrap(sign * 6, 2 * cells + cells // 2) == [sign * 2] * 3
    assert rows_of(sign * 10, 4) == 10 * cells // 4 + (10 * cells % 4 > 0)
    line = aligned([["", "x"], [f"{sign * 9}", "1"]], 8 + 3)[1]
    assert text_width(line) <= 11 and line == f"…{sign * (7 // cells)}".ljust(len(line) - 3) + "  1"
    assert len(set(map(text_width, box(sign, 40)))) == 1


def test_simple_characters_are_as_wide_as_wcwidth_says() -> None:
    known = [chr(i) for i in range(32, 0x110000) if unicodedata.category(chr(i)) != "Cn"]
    simple = [char for char in known if layout.SIMPLE.fullmatch(char)]
    assert len(simple) > 40_000 and set("中a，═✓👤") <= set(simple)
    # Newer versions of Unicode than this Python's made a few narrow symbols wide.
    assert sum(text_width(char) != wcwidth.wcwidth(char) for char in simple) < 20


def test_widths() -> None:
    assert text_width("ab中文，") == 8
    assert text_width("e\u0301") == 1 and text_width("👤") == 2
    assert wrap("中文字符很多很多", 6) == ["中文字", "符很多", "很多"]
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("把 LoRA 适配器并入它", 18) == ["把 LoRA 适配器并入", "它"]
    assert wrap("中文字符，（很多）", 6) == ["中文字", "符，", "（很", "多）"]
    assert wrap("默认: kernels、train、save)", 16) == ["默认: kernels、", "train、save)"]
    assert wrap("--strategy best|last|periodic", 20) == ["--strategy best|", "last|periodic"]
    assert rows_of("中" * 5, 5) == 3 and rows_of("ab", 5) == rows_of("", 5) == 1
    assert folded([["ab", "中文", "x"], ["a", "中", "xyz"]], 9) == [
        "ab  中文",
        "    x",
        "a   中",
        "    xyz",
    ]
    rows = columns([("--a", "中" * 30), ("--bbb", "x")], 50)
    assert all(text_width(line) <= 50 for line in rows)
    assert columns([("--checkpoint-dir DIR", "中" * 30)], 40)[0] == "  --checkpoint-dir DIR"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00005, "0.00005"),
        (1e-4, "0.0001"),
        (1e-7, "0.0000001"),
        (1.0, "1"),
        (0.25, "0.25"),
        (1e22, "10000000000000000000000"),
        (100.0, "100"),
    ],
)
def test_numbers_never_have_an_exponent(value: float, shown: str) -> None:
    assert plain_number(value) == shown
    assert float(plain_number(value)) == value


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("a/b.bin", "a/b.bin"),
        ("my model.bin", "'my model.bin'"),
        ("-x.bin", "./-x.bin"),
        ("-x y.bin", "'./-x y.bin'"),
        ("它's.bin", "'它'\"'\"'s.bin'"),
    ],
)
def test_a_path_in_a_command_can_be_copied(path: str, typed: str) -> None:
    assert as_argument(path) == typed


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert printable("a\x1b[31mb\x00\x9b\x7f\tc\n") == "a␛[31mb␀\\u009b␡\tc\n"
    assert printable("\u202ea\u2066") == "\\u202ea\\u2066"
