"""Errors are templates and fields; the catalogue says them in Chinese."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import catalogue
import pytest
from babel.messages.catalog import Message

from cgpt import locale
from cgpt.errors import (
    CgptError,
    CgptWarning,
    CheckpointError,
    ConfigError,
    DataError,
    Phrase,
    as_dict,
)
from cgpt.locale import N_, language, localized, set_language, t, translate

CHINESE = {
    "{path} is bad: {found}": "{path} 有误: 发现{found}",
    "only {n} bytes": "只有 {n} 个字节",
    "known: {names}": "可用的有{names}等",
    "a set {of} braces": "含 {of} 的集合",
    "size\x04small": "小",
    "small": "小型",
}


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Known:
        def gettext(self, text: str) -> str:
            return CHINESE.get(text, text)

    monkeypatch.setattr(locale, "_chinese", Known)
    set_language("zh")
    yield
    set_language("zh")


def test_a_sentence_is_its_template_with_the_fields() -> None:
    error = DataError("{path} is bad: {found}", path=Path("a.bin"), found=Phrase("{n} b", n=3))
    assert str(error) == "a.bin is bad: 3 b"
    assert error.fields == {"path": "a.bin", "found": Phrase("{n} b", n=3)}
    assert str(DataError("a set {of} braces")) == "a set {of} braces"
    assert str(CgptError("{a!r:.3} {b:.2f} {c}", a="long", b=1 / 3, c=[1, Phrase("x")])) == (
        "'lo 0.33 1, x"
    )
    assert str(CgptWarning("{n} rows", n=2)) == "2 rows"
    with pytest.raises(KeyError):
        CgptError("{missing}", other=1)


def test_chinese_with_spaces_where_it_meets_narrow_text() -> None:
    found = Phrase("only {n} bytes", n=8)
    error = CgptError("{path} is bad: {found}", path="a", found=found)
    assert localized(error) == "a 有误: 发现只有 8 个字节"
    assert localized(CgptError("{path} is bad: {found}", path="a", found="x")) == "a 有误: 发现 x"
    assert localized(CgptError("known: {names}", names=["a", "b"])) == "可用的有 a, b 等"
    assert localized(CgptError("a set {of} braces")) == "含 {of} 的集合"
    assert localized(CgptError("unknown to {whom}", whom=found)) == "unknown to 只有 8 个字节"
    assert t("only {n} bytes", n=found) == "只有 只有 8 个字节 个字节"
    set_language("en")
    assert localized(error) == str(error) == "a is bad: only 8 bytes"


def test_a_context_tells_two_uses_apart() -> None:
    assert (t("small"), t(N_("small", "size"))) == ("小型", "小")
    set_language("en")
    assert (t("small"), t(N_("small", "size")), translate("")) == ("small", "small", "")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: one])
def test_errors_can_be_copied_and_pickled(copied) -> None:
    first = CheckpointError(
        "{path} is bad: {found}", path="{a}", found=Phrase("{n} b", n=1), code="foreign", hint="mix"
    )
    again = pickle.loads(pickle.dumps(copied(first)))
    assert type(again) is CheckpointError and str(again) == str(first) == "{a} is bad: 1 b"
    assert (again.code, again.hint) == ("foreign", "mix")
    assert (again.template, again.fields) == (first.template, first.fields)


def test_an_error_as_json() -> None:
    inner = ConfigError("known: {names}", names=["a"])
    error = CgptError("{path} is bad: {found}", path="p", found=inner, code="odd")
    assert json.loads(json.dumps(as_dict(error))) == {
        "code": "odd",
        "message": "p is bad: known: a",
        "template": "{path} is bad: {found}",
        "fields": {
            "path": "p",
            "found": {
                "code": "config",
                "message": "known: a",
                "template": "known: {names}",
                "fields": {"names": ["a"]},
            },
        },
    }
    assert as_dict(Phrase("{n} b", n=1)) == {"template": "{n} b", "fields": {"n": 1}}


def test_the_language() -> None:
    set_language("en_US")
    assert language() == "en"
    with pytest.raises(ValueError, match="fr"):
        set_language("fr")


def test_the_catalogue_is_read_only_for_chinese() -> None:
    code = "import sys\nfrom cgpt import locale\nlocale.set_language('en')\nlocale.t('a')\n"
    code += "print('gettext' in sys.modules)\nlocale.set_language('zh')\nlocale.t('a')\n"
    code += "print('gettext' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# ---- the checker ------------------------------------------------------------------------------

SOURCE = """
class DataError(CgptError): pass
class Odd(DataError): pass
raise Odd("{path} is odd", path=path)
raise DataError("a" if x else "b", found=Phrase("{n} bytes", n=n))
t(N_("small", "size"), x=f(t("deep")))
option("--x", help="an option")
"""


def checked(source: str, known: dict[str, str]) -> list[str]:
    import ast

    trees = {"new.py": ast.parse(source)}
    found = {text: at for text, at in catalogue.extracted(trees).items() if at.startswith("new")}
    entries = {text: Message(text.rpartition("\x04")[2], known[text]) for text in known}
    return catalogue.problems(found, entries)


GOOD = {
    "{path} is odd": "{path} 奇怪",
    "a": "甲",
    "b": "乙",
    "{n} bytes": "{n} 个字节",
    "size\x04small": "小",
    "deep": "深",
    "an option": "选项",
}


def test_a_whole_catalogue_is_right() -> None:
    assert checked(SOURCE, GOOD) == []


@pytest.mark.parametrize("text", GOOD)
def test_the_checker_finds_what_is_missing(text: str) -> None:
    found = checked(SOURCE, {key: value for key, value in GOOD.items() if key != text})
    assert len(found) == 1 and "no Chinese" in found[0]
    assert checked(SOURCE, {**GOOD, text: ""}) == found


@pytest.mark.parametrize(
    ("source", "known", "problem"),
    [
        (SOURCE, {**GOOD, "old": "旧"}, "nothing says 'old'"),
        (SOURCE, {**GOOD, "{n} bytes": "{m} 个字节"}, "other fields"),
        (SOURCE, {**GOOD, "{n} bytes": "若干字节"}, "other fields"),
        (SOURCE, {**GOOD, "{n} bytes": "{n:.1f} 个字节"}, "other fields"),
        (SOURCE + "raise DataError(f'{path}: bad')", GOOD, "not a literal"),
        (SOURCE + "Phrase('a ' + what)", GOOD, "not a literal"),
    ],
)
def test_the_checker_finds_what_is_wrong(source: str, known: dict[str, str], problem: str) -> None:
    (found,) = checked(source, known)
    assert problem in found
