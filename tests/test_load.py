"""cgpt.load: whatever can be loaded, told by its content; the commands take the same."""

# ruff: noqa: F401, F811 - `run` is a fixture: imported here, an argument below

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rustgpt_reference as second
from checkpoint_helpers import same_bits
from small_llm import DIALOGUES, small_llm
from test_cli import Run, run

import cgpt
from cgpt import LLM, CheckpointError, ConfigError, TrainConfig, Trainer
from cgpt.checkpoint.info import describe, find_models, weights_dtype
from cgpt.llm import load, load_weights
from cgpt.models.rustgpt import RustGPT
from cgpt.optim.lora import Lora
from cgpt.tokenizers import rustgpt


@pytest.fixture(scope="module", autouse=True)
def one_dictionary() -> Iterator[None]:
    """jieba's dictionary takes a second to read: once for all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rustgpt, "_jieba_cut", cache(rustgpt._jieba_cut))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind that can be loaded, with names that say nothing."""
    folder = tmp_path_factory.mktemp("models")
    llm = small_llm()
    found = {
        "binary": cgpt.save_model_binary(llm, folder / "1.json"),
        "json": cgpt.save_model_json(llm, folder / "2.bin"),
    }
    for form in ("float16", "int8"):
        found[form] = cgpt.save_model_binary(
            llm, folder / f"{form}.x", optimizer=False, weights=form
        )
    Trainer(llm, TrainConfig(epochs=1, lora_rank=2), "finetune").fit(DIALOGUES)
    found["adapter"] = cgpt.save_model_binary(llm, folder / "3")
    llm.optimizer.base = ""
    found["adapter with its model"] = cgpt.save_model_binary(llm, folder / "4.txt")
    for older in (False, True):
        found[f"rustgpt{older:d}"] = second.write_export(
            folder / f"5{older:d}.bin", second.make_export(older=older)
        )
    return found


KINDS = (
    "binary",
    "json",
    "float16",
    "int8",
    "adapter",
    "adapter with its model",
    "rustgpt0",
    "rustgpt1",
)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_loaded_by_its_content(files: dict[str, Path], kind: str) -> None:
    path, shown = files[kind], []
    llm = cgpt.load(path, progress=lambda i, n, layer: shown.append((i, n, layer.name)))
    assert [one[0] for one in shown] == list(range(1, shown[0][1] + 1))
    assert [one[2] for one in shown] == [layer.name for layer in llm.gpt.layer_records()]
    assert llm.gpt.arena.data.flags.writeable
    assert (type(llm.gpt) is RustGPT) == kind.startswith("rustgpt")
    assert isinstance(llm.optimizer, Lora) == kind.startswith("adapter")
    chat = cgpt.load(str(path), training=False)
    assert chat.optimizer is None and chat.generate("山", 4) is not None
    if kind not in ("float16", "int8"):
        assert not chat.gpt.arena.data.flags.writeable or kind.startswith("adapter")
        assert same_bits(chat.gpt.arena.data, llm.gpt.arena.data)
    data = path.read_bytes()
    for source in (data, io.BytesIO(data), open(path, "rb")):  # noqa: SIM115
        if kind == "adapter" and not isinstance(source, io.BufferedReader):
            continue  # its model is found from where its file lies
        assert same_bits(cgpt.load(source).gpt.arena.data, llm.gpt.arena.data)
    for same in (cgpt.load_model_auto, load):
        assert same_bits(same(path).gpt.arena.data, llm.gpt.arena.data)
    found = describe(path, verify=True)
    assert found["path"] == str(path) and found["config"] == llm.config.to_dict()
    assert found["bytes"] == len(data) and found["verified"]
    assert found.keys() >= describe(files["binary"]).keys()
    assert weights_dtype(path) == (kind if kind in ("float16", "int8") else "float32")
    if not kind.startswith("adapter"):
        assert same_bits(load_weights(path).gpt.arena.data, llm.gpt.arena.data)
    assert path in find_models(path.parent, path.parent / "none")


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_take_the_same(
    files: dict[str, Path], kind: str, run: Run, tmp_path: Path
) -> None:
    model = files[kind]
    (tmp_path / "t.json").write_text(json.dumps(["太阳从东方升起。"]), "utf-8")
    for command in (
        ["chat", model, "-p", "你好", "--max-new-tokens", "4"],
        ["generate", model, "太阳", "--max-new-tokens", "4"],
        ["info", model, "--json"],
        ["eval", model, "t.json", "--json"],
        ["export", model, "out.bin"],
        ["export", model, "out.json"],
        ["import", model, "in.bin"],
    ):
        code, _, err = run(*command)
        assert code == 0, (command, err)
    assert same_bits(
        cgpt.load(tmp_path / "out.json").gpt.arena.data, cgpt.load(model).gpt.arena.data
    )


def test_a_rustgpt_export_for_chat_is_read_only(files: dict[str, Path]) -> None:
    chat = cgpt.load(files["rustgpt0"], training=False)
    with pytest.raises(ConfigError, match="read-only"):
        chat.gpt.load_parameters({})
    with pytest.raises(ConfigError, match="computes with float32 weights only"):
        cgpt.load(files["rustgpt0"], training=False, weights="int8")
    with pytest.raises(ConfigError, match="training needs float32"):
        cgpt.load(files["rustgpt0"], weights="int8")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"GGUF\x03" + bytes(60), "a GGUF file"),
        (b"\x93NUMPY" + bytes(60), "a NumPy array"),
        (b"PK\x03\x04" + b"archive/data.pkl" + bytes(60), "a PyTorch file"),
        ((8).to_bytes(8, "little") + b'{"a": 1}' + bytes(9), "a safetensors file"),
        (b'{"a": 1}', "JSON that does not say"),
        (b"hello", "text"),
    ],
)
def test_what_cannot_be_loaded_says_what_can(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError,
        match=f"found {found}.*, expected a .bin or .json that "
        "cgpt saved, or a JSON export of RustGPT-Chinese; choose another",
    ) as error:
        cgpt.load(path)
    assert error.value.code == "foreign"


def test_folders_and_missing_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    for path, code, sentence in (
        (tmp_path, "foreign", "a folder, expected .*name a file in it"),
        (tmp_path / "hf", "foreign", "a Hugging Face folder, expected"),
        (tmp_path / "no", "missing", "does not exist"),
    ):
        with pytest.raises(CheckpointError, match=sentence) as error:
            cgpt.load(path)
        assert error.value.code == code


def test_the_loaders_of_one_format_name_the_other(files: dict[str, Path]) -> None:
    for wrong in ("json", "rustgpt0"):
        with pytest.raises(CheckpointError, match=r"load_model_auto|load it with cgpt\.load"):
            cgpt.load_model_binary(files[wrong])
    for wrong in ("binary", "adapter", "rustgpt0"):
        with pytest.raises(CheckpointError, match=r"load_model_auto|load it with cgpt\.load"):
            cgpt.load_model_json(files[wrong])
