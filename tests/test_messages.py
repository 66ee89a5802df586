"""The two languages, help in both of them, and how wide texts are."""

from __future__ import annotations

import unicodedata

import click
import pytest
import wcwidth

from cgpt.cli import choose_language
from cgpt.cli.app import LazyGroup, Option
from cgpt.cli.root import cgpt
from cgpt.cli.ui import layout
from cgpt.cli.ui.layout import aligned, box, columns, cut, folded, rows_of, text_width, wrap
from cgpt.cli.ui.streams import printable
from cgpt.cli.ui.terminal import plain_number, shell_quoted
from cgpt.locale import language, set_language, t


def every_command(ctx: click.Context) -> list[click.Context]:
    """The command of the context and, of a group, those in it."""
    found = [ctx]
    if isinstance(ctx.command, LazyGroup):
        for name in ctx.command.summaries:
            command = ctx.command.get_command(ctx, name)
            found += every_command(click.Context(command, parent=ctx, info_name=name))
    return found


def test_every_option_and_command_has_help_in_both_languages() -> None:
    contexts = every_command(click.Context(cgpt, info_name="cgpt"))
    assert len(contexts) > 18
    english = {}
    for name in ("en", "zh"):
        set_language(name)
        for ctx in contexts:
            rows = [param.help_row() for param in ctx.command.params if isinstance(param, Option)]
            assert all(text for _, text in rows)
            shown = ctx.command.get_help(ctx)
            assert (set(map(text_of, rows)) | {shown}).isdisjoint(english.get(ctx.command_path, ()))
            english[ctx.command_path] = {*map(text_of, rows), shown}


def text_of(row: tuple[str, str]) -> str:
    return row[1]


def test_every_option_reads_the_environment() -> None:
    for ctx in every_command(click.Context(cgpt, info_name="cgpt")):
        for param in ctx.command.params:
            if isinstance(param, Option) and param.name != "help":
                flag = max(param.opts, key=len)
                assert param.envvar == "CGPT_" + flag[2:].replace("-", "_").upper()


def test_language_is_chosen_by_flag_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Save the current model? (y/n): "
    monkeypatch.delenv("CGPT_LANG", raising=False)
    choose_language([])
    assert language() == "zh"
    monkeypatch.setenv("CGPT_LANG", "en_US.UTF-8")
    choose_language([])
    assert language() == "en" and t(question) == question
    choose_language(["chat", "--lang", "zh"])
    assert language() == "zh" and t(question) == "是否保存当前模型? (y/n): "
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
    assert shell_quoted(path) == typed


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert printable("a\x1b[31mb\x00\x9b\x7f\tc\n") == "a␛[31mb␀\\u009b␡\tc\n"
    assert printable("\u202ea\u2066") == "\\u202ea\\u2066"
