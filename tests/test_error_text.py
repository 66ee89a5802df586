"""Every error of cgpt can be said in Chinese, whole and with its values."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_llm import small_llm

import cgpt.cli as cgpt_cli
from cgpt import ConfigError, GPTConfig, load_model_auto, save_model_binary
from cgpt.cli import main
from cgpt.cli.errors import HINTS, localized, reason_of
from cgpt.corpus.reader import read_corpus
from cgpt.errors import CgptError, DataError, Phrase
from cgpt.fileio import file_errors
from cgpt.locale import set_language, t
from cgpt.training.recipe import default_run

ADVICE = "请恢复该文件的备份，或加载更早的 checkpoint"


@pytest.fixture(autouse=True)
def chinese() -> Iterator[None]:
    set_language("zh")
    yield
    set_language("zh")


def test_the_command_line_adds_its_own_advice() -> None:
    error = DataError(
        "{phase}: the weights of mix leave nothing to train on; give at least one above 0",
        phase="pretrain",
        hint="mix",
    )
    assert localized(error).endswith("大于 0 的权重（选项: --mix）")
    set_language("en")
    assert localized(error) == f"{error} (option: --mix)"
    assert localized(DataError("plain")) == "plain"
    for place in Path(cgpt_cli.__file__).parents[1].rglob("*.py"):
        for hint in re.findall(r'hint="(\w+)"', place.read_text("utf-8")):
            assert hint in HINTS, place


# ---- what users read ------------------------------------------------------------------------


def said(action: Callable[[], object]) -> str:
    with pytest.raises(CgptError) as info:
        action()
    return localized(info.value)


def test_files_that_are_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model_binary(small_llm(), "model.bin")
    whole = Path("model.bin").read_bytes()
    Path("cut.bin").write_bytes(whole[:1000])
    Path("模型 (1).pt").write_bytes(b"PK\x03\x04" + b"data.pkl" + bytes(99))
    Path("empty.bin").touch()
    Path("new.json").write_text('{"format": "cgpt-json",\n"version": 9}')
    assert said(lambda: load_model_auto("nope.bin")) == (
        "nope.bin 不存在，应为 cgpt 保存的模型文件；请检查路径"
    )
    assert said(lambda: load_model_auto("cut.bin")) == (
        f"cut.bin 已损坏: 发现 1000 个字节，应为 {len(whole)} 个字节；{ADVICE}"
    )
    assert said(lambda: load_model_auto("模型 (1).pt")) == (
        "模型 (1).pt 不是 cgpt 模型文件: 发现 PyTorch 文件（含 pickle 的 zip，可能执行代码），"
        "应为 cgpt 保存的 .bin 或 .json，或 RustGPT-Chinese 导出的 JSON；请选择其他文件"
    )
    assert said(lambda: load_model_auto("empty.bin")) == (
        f"empty.bin 已损坏: 发现空文件，应为模型；{ADVICE}"
    )
    assert said(lambda: load_model_auto(tmp_path)) == (
        f"{tmp_path} 不是 cgpt 模型文件: 发现文件夹，应为 cgpt 保存的 .bin 或 .json；"
        "请指定其中的文件"
    )
    assert said(lambda: load_model_auto("new.json")).startswith("new.json 已损坏: 发现文件的开头与")


def test_another_version(tmp_path: Path) -> None:
    assert localized(
        file_errors.other_version(
            "m.bin",
            Phrase("format version {version}", version=2),
            Phrase("version {version}", version=1),
        )
    ) == ("m.bin 由其他版本的 cgpt 写成: 发现格式版本 2，应为版本 1；请升级 cgpt 后再读取")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.txt",
            "第一行\n第二行是中文".encode("gb18030"),
            "a.txt 第 1 行: 第 1 个字节为 0xB5，应为 UTF-8（像是 GBK）；请转换文件编码，"
            "例如 iconv -f GB18030 -t UTF-8",
        ),
        (
            "a.json",
            '["山",\n "水" "火 (x) with y"]'.encode(),
            "a.json 第 2 行第 6 列: JSON 有误（缺少 ','），发现 '\"火 (x) with y\"]'；请修改该文件",
        ),
        (
            "a.json",
            b'["a",',
            "a.json 第 1 行第 6 列: JSON 有误（缺少值），文件到此结束；请修改该文件",
        ),
        (
            "a.json",
            b'{"text": "a"}\n{"text": "b"}',
            'a.json 第 2 行第 1 列: JSON 有误（后面有多余的内容），发现 \'{"text": "b"}\'；'
            "请修改该文件，若每行一个对象则将文件名改为 .jsonl 结尾",
        ),
        (
            "a.json",
            json.dumps([{"messages": [{"role": "user", "content": "a"}]}]).encode(),
            "a.json 第 1 项（第 1 行）: 最后一条消息来自 user，应来自 assistant",
        ),
        (
            "a.json",
            b"3",
            "a.json: 发现数 3，应为若干项的列表；每一项为字符串、{text}、{messages}、"
            "{conversations} 或 {instruction, output}",
        ),
        ("a.jsonl", b" \n", "a.jsonl: 文件为空；请放入文本或对话"),
    ],
)
def test_data_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert said(lambda: read_corpus([name])) == sentence


def test_configurations() -> None:
    assert said(lambda: GPTConfig(n_embd=64, n_head=6)) == (
        "GPTConfig: n_head 应整除 n_embd，而现在 n_head=6，n_embd=64（余 4）；请换一对值"
    )
    assert said(lambda: GPTConfig(n_layer=0)) == (
        "GPTConfig: n_layer 应在 1 到 1024 之间，而不是 0"
    )
    assert said(lambda: default_run("huge")).startswith(
        "GPTConfig: 未知的预设 'huge'；可用的预设: tiny, small"
    )


def test_a_reason_inside_a_reason() -> None:
    inner = file_errors.damaged(
        "m.json",
        Phrase(
            "a configuration that cannot be ({reason})",
            reason=ConfigError(
                "{owner}: {name} must be a whole number, found {value}",
                owner="GPTConfig",
                name="n_head",
                value="'3, expected 4'",
            ),
        ),
        "a valid one",
    )
    assert localized(inner) == (
        "m.json 已损坏: 发现不成立的配置（GPTConfig: n_head 应为整数，而不是 '3, expected 4'），"
        f"应为有效的内容；{ADVICE}"
    )


@pytest.mark.parametrize(
    ("number", "found", "advice"),
    [
        (errno.ENOSPC, "{folder} 所在磁盘已满", "请腾出空间，或换一个文件夹"),
        (errno.EACCES, "没有写入 {folder} 的权限", "请换一个文件夹，或修改其权限"),
        (errno.EFBIG, "文件大小受限（ulimit -f）", "请放宽限制，或换一个文件夹"),
        (errno.EISDIR, "同名文件夹", "请换一个文件名"),
        (errno.EBUSY, "“设备或资源正忙”", "请换一个路径或文件夹"),
    ],
)
def test_files_that_cannot_be_written(tmp_path: Path, number: int, found: str, advice: str) -> None:
    error = file_errors.unwritable(tmp_path / "m.bin", OSError(number, os.strerror(number)))
    begins = "发现 " if found.startswith("{") else "发现"
    begins += found.format(folder=tmp_path)
    assert localized(error) == (
        f"{tmp_path / 'm.bin'} 无法保存: {begins}，应为可写的文件；{advice}（没有覆盖任何文件）"
    )


def test_errors_that_are_not_ours() -> None:
    assert reason_of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.log")) == "a.log: 磁盘已满"
    assert reason_of(MemoryError()).startswith("内存不足")
    assert reason_of(KeyError()) == "KeyError"
    assert {t("Expecting value"), t("Extra data")} == {"缺少值", "后面有多余的内容"}


def test_english_is_as_raised_and_so_is_what_is_unknown() -> None:
    set_language("en")
    assert localized(ConfigError("AdamW: a, b")) == "AdamW: a, b"
    assert localized(file_errors.foreign("a.bin", "text")).startswith(
        "a.bin is not a cgpt model file"
    )
    set_language("zh")
    assert localized(ConfigError("12 bytes, but nobody knows of what")) == (
        "12 bytes, but nobody knows of what"
    )


def test_the_command_line_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CGPT_LANG", raising=False)
    assert main(["info", "nope.bin"]) == 1
    assert capsys.readouterr().err == (
        "错误: nope.bin 不存在，应为 cgpt 保存的模型文件；请检查路径\n"
    )
    assert main(["info", "nope.bin", "--lang", "en"]) == 1
    assert capsys.readouterr().err == (
        "error: nope.bin does not exist, expected a model file that cgpt saved; check the path\n"
    )
