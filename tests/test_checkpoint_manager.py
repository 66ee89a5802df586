"""Which files are models, what they hold, and which checkpoint a training goes on from."""

from __future__ import annotations

import json
import lzma
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from make_fixtures import tiny_llm

from cgpt.checkpoint.info import describe, find_models
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.errors import CheckpointError
from cgpt.llm import load_model_auto, load_model_binary, load_model_json


def torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def write_numpy(path: Path, write: Callable[..., None]) -> None:
    with open(path, "wb") as file:  # np.save adds a suffix to names
        write(file, np.zeros(3))


def bincode(path: Path) -> None:
    words = ["天", "起", "<|mask|>", "你好", "上"]
    fields = b"".join(
        bytes([len(word.encode())]) + word.encode() + bytes([i]) for i, word in enumerate(words)
    )
    path.write_bytes(b"\x01\x05" + fields + bytes(100))


RUST_JSON = '{\n  "version": 1,\n  "vocab": {\n    "encode": {"用户": 43}, "decode": {}}}'
FOREIGN = {
    "PyTorch": torch_zip,
    "npz": lambda path: write_numpy(path, np.savez),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=4)),
    "safetensors": safetensors,
    "GGUF": lambda path: path.write_bytes(b"GGUF" + bytes(100)),
    "NumPy": lambda path: write_numpy(path, np.save),
    "RustGPT-Chinese.*bincode": bincode,
    "JSON export of RustGPT-Chinese": lambda path: path.write_text(RUST_JSON, "utf-8"),
    "JSON that does not say": lambda path: path.write_text('{"a": 1}'),
    "text": lambda path: path.write_text("从前有座山", "utf-8"),
    "Git LFS": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "xz": lambda path: path.write_bytes(lzma.compress(b"x" * 100)),
    "bytes that begin with": lambda path: path.write_bytes(random.Random(0).randbytes(999)),
    "JSON that does not": lambda path: path.write_text('  {"format": "other", "version": 1}'),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model_final.bin"
    FOREIGN[name](path)
    of_one_format = (load_model_binary, load_model_json)
    # load_model_auto and describe take an export too.
    for load in (
        of_one_format if "JSON export" in name else (*of_one_format, load_model_auto, describe)
    ):
        with pytest.raises(CheckpointError, match=name) as info:
            load(path)
        assert info.value.code == "foreign" and "not a cgpt model file" in str(info.value)
        assert "\n" not in str(info.value)


def test_missing_and_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for path, code in (
        (tmp_path / "none.bin", "missing"),
        (tmp_path / "file" / "x", "missing"),
        (tmp_path / "a\0b", "missing"),
        (tmp_path, "foreign"),
        (tmp_path / "pipe", "foreign"),
    ):
        for load in (load_model_auto, load_model_binary, load_model_json, describe):
            with pytest.raises(CheckpointError) as info:
                load(path)
            assert info.value.code == code
    empty = tmp_path / "empty.bin"
    empty.touch()
    with pytest.raises(CheckpointError, match="an empty file") as info:
        load_model_auto(empty)
    assert info.value.code == "damaged"


def test_text_mode_damage_is_named(tmp_path: Path) -> None:
    whole = save_model_binary(tiny_llm(), tmp_path / "m.bin").read_bytes()
    for number, changed in enumerate(
        (
            whole.replace(b"\r\n", b"\n"),
            whole.replace(b"\n", b"\r\n"),
            bytes(byte & 127 for byte in whole),
            whole.decode("latin-1").encode("utf-8"),
            whole.decode("utf-8", "replace").encode(),
            bytes(64) + whole[64:],
        )
    ):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(changed)
        with pytest.raises(CheckpointError) as info:
            load_model_auto(path)
        assert info.value.code == "damaged"


def test_the_format_is_told_by_content(tmp_path: Path) -> None:
    a = save_model_json(tiny_llm(), tmp_path / "model.bin")
    b = save_model_binary(tiny_llm(), tmp_path / "model.json")
    assert load_model_auto(a).config == load_model_auto(b).config
    assert [describe(path)["format"] for path in (a, b)] == ["json", "binary"]
    for load, path in ((load_model_binary, a), (load_model_json, b)):
        with pytest.raises(CheckpointError, match="load_model_auto") as info:
            load(path)
        assert info.value.code == "foreign"


@pytest.mark.parametrize("save", [save_model_binary, save_model_json])
def test_describe(tmp_path: Path, save: object) -> None:
    path = save(tiny_llm(), tmp_path / "m")  # type: ignore[operator]
    found = describe(path)
    assert json.loads(json.dumps(found)) == found
    assert found["version"] == 1 and found["bytes"] == path.stat().st_size
    assert found["config"]["n_embd"] == 2 and found["words"] == 271
    assert found["parameters"] == tiny_llm().n_parameters
    assert found["optimizer"]["step_count"] == 412 and found["best_weights"]
    assert found["training_state"]["step"] == 37 and found["metadata"]["title"] == "小模型"
    assert [layer["name"] for layer in found["layers"]] == ["embedding", "h.0", "ln_f", "head"]
    assert not found["verified"] and describe(path, verify=True)["verified"]
    if found["format"] == "binary":
        assert sum(record["bytes"] for record in found["records"]) < found["bytes"]


def test_verify_sees_what_describe_need_not_read(tmp_path: Path) -> None:
    path = save_model_binary(tiny_llm(), tmp_path / "m.bin")
    last = describe(path)["records"][-1]
    data = bytearray(path.read_bytes())
    data[last["offset"]] ^= 1
    path.write_bytes(data)
    describe(path)
    load_model_binary(path, training=False)
    for read in (lambda: describe(path, verify=True), lambda: load_model_binary(path)):
        with pytest.raises(CheckpointError, match=f"{last['kind']} '{last['name']}'"):
            read()


def test_find_models(tmp_path: Path) -> None:
    checkpoints, exports = tmp_path / "checkpoints", tmp_path / "exports"
    assert find_models(checkpoints, exports) == []
    times = {
        "checkpoints/model_pretrained.bin": 10,
        "checkpoints/我的.bin": 50,
        "checkpoints/model_final.bin": 20,
        "exports/model_final.json": 40,
        "exports/other.txt": 60,
    }
    for name, when in times.items():
        save = save_model_json if name == "exports/model_final.json" else save_model_binary
        save(tiny_llm(), tmp_path / name)
        os.utime(tmp_path / name, (when, when))
    for name in ("notes.txt", ".hidden.bin", "broken.bin", "cut.json"):
        (checkpoints / name).write_bytes(b"\x89CGPT\r\n\x1a" + bytes(99))
    cut = (exports / "model_final.json").read_bytes()[:-1]
    (checkpoints / "cut.json").write_bytes(cut)
    (checkpoints / ".hidden.bin").write_bytes((checkpoints / "我的.bin").read_bytes())
    (checkpoints / "folder.bin").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_models(checkpoints, exports)]
    assert found == [
        "checkpoints/model_final.bin",
        "checkpoints/model_pretrained.bin",
        "exports/other.txt",
        "checkpoints/我的.bin",
        "exports/model_final.json",
    ]


def test_find_models_defaults_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model_binary(tiny_llm(), "checkpoints/x.bin")
    assert find_models() == [Path("checkpoints/x.bin")]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-80] ^= 255
    path.write_bytes(data)


def test_a_damaged_latest_falls_back_and_says_so(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run")
    warnings: list[CheckpointError] = []
    assert manager.latest(warnings.append) is None
    for step in (1, 2, 3):
        llm = tiny_llm()
        llm.training_state.step = step
        assert manager.save_last(llm) == tmp_path / "run" / "checkpoint_last.bin"
    found = manager.latest(warnings.append)
    assert found is not None and found.name == "checkpoint_last.bin" and not warnings
    assert load_model_binary(found).training_state.step == 3
    damage(found)
    before = manager.latest(warnings.append)
    assert before is not None and load_model_binary(before).training_state.step == 2
    assert len(warnings) == 1 and str(found) in str(warnings[0])
    assert warnings[0].code == "damaged"
    damage(before)
    assert manager.latest() is None
    assert sorted(os.listdir(tmp_path / "run")) == [
        "checkpoint_last.bin",
        "checkpoint_last.json",
        "checkpoint_previous.bin",
        "checkpoint_previous.json",
    ]


def test_without_a_last_one_the_furthest_trained_is_found_by_content(tmp_path: Path) -> None:
    for name, done, phase, step in (
        ("a", [], "pretrain", 900),
        ("b", ["pretrain"], "finetune", 5),
        ("c", ["pretrain"], "finetune", 3),
        ("d", [], "", 0),
    ):
        llm = tiny_llm()
        state = llm.training_state
        state.done, state.phase, state.step = done, phase, step
        save_model_binary(llm, tmp_path / f"{name}.bin")
    os.utime(tmp_path / "b.bin", (1, 1))  # the oldest
    manager = CheckpointManager(tmp_path)
    assert manager.latest() == tmp_path / "b.bin"
    damage(tmp_path / "b.bin")
    assert manager.latest() == tmp_path / "c.bin"
