"""Copies of models: pickle, copy, processes; bytes and file objects in place of paths."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle
import pickletools
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_helpers import same_bits
from make_fixtures import rustgpt_llm
from small_llm import DIALOGUES, TEXTS, small_llm

import cgpt
from cgpt import LLM, AdamW, CgptError, CheckpointError, ConfigError, Muon, TrainConfig, Trainer
from cgpt.chat.session import ChatSession
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import SamplingConfig
from cgpt.corpus.invalid_rows import InvalidRow, InvalidRowsError
from cgpt.llm import load, load_model_auto, load_model_binary, load_model_json
from cgpt.models.gpt2 import GPT
from cgpt.models.quantized import QuantizedModel, with_weights
from cgpt.nn.kv_cache import KVCache
from cgpt.optim.lora import Lora

CONFIG = TrainConfig(epochs=6, batch_tokens=64, warmup=1, lr=1e-2)


def changed(**changes: object) -> TrainConfig:
    return TrainConfig(**{**CONFIG.to_dict(), **changes})


def fit(llm: LLM, config: TrainConfig, stop_after: int = 10**9) -> None:
    calls = iter(range(10**9))
    Trainer(llm, config, "finetune").fit(DIALOGUES, should_stop=lambda: next(calls) >= stop_after)


def under_way(**changes: object) -> tuple[LLM, TrainConfig]:
    """A model in the middle of a phase with all that a training can have."""
    llm, config = small_llm(), changed(val_fraction=0.3, ema=0.9, **changes)
    fit(llm, config, stop_after=3)
    assert llm.training_state.unfinished
    llm.metadata["mine"] = {"a": [1, "二"]}
    return llm, config


def pickled(value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": pickled,
    "pickle2": lambda one: pickled(one, 2),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
LLM_COPIES = {
    **COPIES,
    "clone": lambda one: one.clone(),
    "bytes": lambda one: LLM.from_bytes(one.to_bytes()),
}


def same_model(a: LLM, b: LLM) -> None:
    assert (
        a is not b
        and a.gpt is not b.gpt
        and not np.shares_memory(a.gpt.arena.data, b.gpt.arena.data)
    )
    assert type(a.gpt) is type(b.gpt) and a.config == b.config
    assert same_bits(a.gpt.arena.data, b.gpt.arena.data)
    assert a.tokenizer.to_state() == b.tokenizer.to_state()
    states = [{**one.training_state.to_dict(), "seconds": 0} for one in (a, b)]
    assert states[0] == states[1] and a.metadata == b.metadata
    assert a.training_state.run_id == b.training_state.run_id
    assert (a.optimizer is None) == (b.optimizer is None)
    if a.optimizer is not None and b.optimizer is not None:
        left, right = a.optimizer.to_dict(), b.optimizer.to_dict()
        assert {**left, "base": ""} == {**right, "base": ""}
    for name in ("best_weights", "average"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        assert one is None or (same_bits(one, other) and one is not other)


@pytest.mark.parametrize("make", LLM_COPIES.values(), ids=LLM_COPIES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw"}, {"lora_rank": 2}, {"freeze": ("h.0.*",)}, {"recompute": True}],
    ids=str,
)
def test_a_copy_trains_on_to_the_same_bits(make: Callable[[LLM], LLM], changes: dict) -> None:
    llm, config = under_way(**changes)
    before = llm.gpt.arena.data.copy()
    other = make(llm)
    same_model(llm, other)
    fit(other, config)
    assert same_bits(llm.gpt.arena.data, before) and llm.training_state.unfinished
    fit(llm, config)
    same_model(llm, other)
    assert llm.generate("长江", 8) == other.generate("长江", 8)


@pytest.mark.parametrize("make", LLM_COPIES.values(), ids=LLM_COPIES)
def test_copies_of_other_models(make: Callable[[LLM], LLM]) -> None:
    """Another graph; and models as a chat loads them, whose weights stay read-only."""
    rust = rustgpt_llm()
    same_model(rust, make(rust))
    data = small_llm().to_bytes()
    for form in ("float32", "float16", "int8"):
        chat = LLM.from_bytes(data, training=False, weights=form)
        other = make(chat)
        if make is LLM_COPIES["bytes"]:  # which are as a file is: its reader decides
            other = LLM.from_bytes(chat.to_bytes(), training=False)
        assert type(other.gpt) is (GPT if form == "float32" else QuantizedModel)
        for name, one in chat.gpt.stored().items():
            two = other.gpt.stored()[name]
            assert one.data.dtype == two.data.dtype and one.group == two.group
            assert np.array_equal(one.data, two.data) and not two.data.flags.writeable
            assert two.data.ctypes.data % 64 == 0
        assert chat.generate("长江", 8) == other.generate("长江", 8)


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_gradients_that_no_step_has_used_come_along(make: Callable[[Any], Any]) -> None:
    llm, _ = under_way()
    adapted, _ = under_way(lora_rank=2)
    alone = small_llm().gpt
    AdamW(alone)
    ids = np.arange(20)[None] + 262
    for one in (llm, adapted, alone):
        gpt = one if isinstance(one, GPT) else one.gpt
        gpt.forward(ids[:, :-1], ids[:, 1:])
        gpt.backward()
        other = make(one)
        arena, own = ((x.arena if isinstance(x, GPT) else x.optimizer.arena) for x in (other, one))
        assert arena.grad.any() and same_bits(arena.grad, own.grad)
        assert not (other if isinstance(one, GPT) else other.gpt).arena.clean
        assert isinstance(one, GPT) or one.optimizer.step(1e-3) == other.optimizer.step(1e-3)
        assert same_bits(arena.data, own.data)
    # Between forward and backward the head's share is no gradient yet.
    plain = small_llm().gpt
    plain.gradients()
    plain.forward(ids[:, :-1], ids[:, 1:])
    assert not make(plain).gradients()["wte.weight"].any()


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [AdamW, Muon, lambda gpt: Lora(gpt, 2, 4.0, base="a.bin")])
def test_a_model_and_its_optimizer(make: Callable[[Any], Any], kind: Any) -> None:
    """Together they stay together; the optimizer by itself brings its model along."""
    gpt = small_llm().gpt
    optimizer = kind(gpt)
    ids = np.arange(20)[None] + 262

    def learn(one: GPT, by: AdamW) -> np.ndarray:
        one.forward(ids[:, :-1], ids[:, 1:])
        one.backward()
        by.step(lr=1e-2)
        return one.arena.data.copy()

    learn(gpt, optimizer)
    copied, by = (
        make((gpt, optimizer))
        if make is not COPIES["copy"]
        else (lambda one: (one.gpt, one))(copy.copy(optimizer))
    )
    alone = make(optimizer)
    assert by.gpt is copied and alone.gpt is not gpt and by.to_dict() == optimizer.to_dict()
    assert same_bits(copied.arena.data, gpt.arena.data)
    one, two, three = learn(gpt, optimizer), learn(copied, by), learn(alone.gpt, alone)
    assert same_bits(one, two) and same_bits(one, three)


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_tokenizers_caches_and_small_things(make: Callable[[Any], Any]) -> None:
    for tokenizer in (
        small_llm().tokenizer,
        rustgpt_llm().tokenizer,
        cgpt.Tokenizer.train(TEXTS * 3, 300, "bpe"),
        cgpt.Tokenizer.train(TEXTS, 300, "chars"),
    ):
        ids = tokenizer.encode(TEXTS[0])  # its encoder is made now
        other = make(tokenizer)
        assert type(other) is type(tokenizer) and other.to_state() == tokenizer.to_state()
        assert other.encode(TEXTS[0]) == ids and other.decode(ids) == tokenizer.decode(ids)
        assert other.kind == tokenizer.kind and other.special_ids == tokenizer.special_ids
    gpt = small_llm().gpt
    cache = gpt.new_cache()
    gpt.infer([265, 266, 267], cache)
    other = make(cache)
    assert isinstance(other, KVCache) and (other.length, other.capacity) == (3, 64)
    assert same_bits(gpt.infer([270], cache).copy(), gpt.infer([270], other))
    assert not np.shares_memory(cache.all_keys, other.all_keys)
    for value in (
        SamplingConfig(top_k=5, stop=("a",)),
        CONFIG,
        gpt.config,
        rustgpt_llm().config,
        small_llm().training_state,
    ):
        assert make(value) == value and type(make(value)) is type(value)
    assert len(pickle.dumps(gpt.new_cache())) < 5000  # what is not filled is not written


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_copied_session_goes_on_where_it_was(make: Callable[[Any], Any]) -> None:
    llm = small_llm()
    session = ChatSession(llm, SamplingConfig(seed=5, max_new_tokens=6, stop=("x",)), "短")
    "".join(session.reply("你好"))
    other = make(session)
    assert other.history == session.history and other.system == "短"
    assert other.sampling == session.sampling
    assert (other._llm is llm) == (make is COPIES["copy"])
    assert "".join(session.reply("谢谢")) == "".join(other.reply("谢谢"))
    assert other.turns == session.turns


def test_errors_keep_their_sentence_and_code() -> None:
    found, left = [CgptError("it diverged", code="diverged", hint="lr")], [CgptError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.append(kind("a sentence") if kind.__init__ is CgptError.__init__ else None)
    found += [
        CheckpointError("gone", code="missing"),
        InvalidRowsError("rows", [InvalidRow("a.jsonl", "line 3", 3, "json", "x")], {"json": 1}),
    ]
    with pytest.raises(ConfigError) as info:
        AdamW(with_weights(small_llm().gpt, "int8"))
    for error in (*filter(None, found), info.value):
        for make in COPIES.values():
            other = make(error)
            assert type(other) is type(error) and str(other) == str(error)
            assert {**vars(other)} == {**vars(error)} and other.code == error.code


def test_what_is_pickled_holds_no_code() -> None:
    """Names of this package and of NumPy's arrays, and numbers."""
    llm, _ = under_way(lora_rank=2)
    gpt = small_llm().gpt
    for value in (
        llm,
        (gpt, Muon(gpt)),
        (llm.gpt, llm.optimizer),
        llm.tokenizer,
        with_weights(gpt, "int8"),
        gpt.new_cache(),
        rustgpt_llm(),
    ):
        names = {
            argument
            for opcode, argument, _ in pickletools.genops(pickle.dumps(value, 2))
            if opcode.name == "GLOBAL"
        }
        assert names and all(
            name.split(" ")[0].split(".")[0]
            in ("cgpt", "numpy", "copyreg", "_codecs", "__builtin__")
            for name in names
        ), names
        assert not {
            name
            for name in names
            if name.startswith(("__builtin__ eval", "posix", "os", "__builtin__ getattr"))
        }


def scored(llm: LLM, text: str) -> bytes:
    return llm.score(text).logprobs.tobytes()


def score_into(llm: LLM, text: str, queue: Any) -> None:
    queue.put(llm.score(text).logprobs.tobytes())


def test_models_go_to_other_processes() -> None:
    """As arguments and results of processes that are started anew, with a training under way."""
    llm, config = under_way(lora_rank=2)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        assert pool.submit(scored, llm, TEXTS[0]).result(120) == scored(llm, TEXTS[0])
        other = pool.submit(copy.copy, llm).result(120)
    same_model(llm, other)
    queue = context.Queue()
    process = context.Process(target=score_into, args=(llm, TEXTS[1], queue))
    process.start()
    assert queue.get(timeout=120) == scored(llm, TEXTS[1])
    process.join(60)
    fit(other, config)
    fit(llm, config)
    same_model(llm, other)


def test_joblib_copies_models() -> None:
    import joblib

    llm = small_llm()
    found = joblib.Parallel(2)(joblib.delayed(scored)(llm, text) for text in TEXTS[:2])
    assert found == [scored(llm, text) for text in TEXTS[:2]]


# bytes and file objects


SAVES = {
    "binary": (save_model_binary, load_model_binary),
    "json": (save_model_json, load_model_json),
}


@pytest.mark.parametrize(("save", "read"), SAVES.values(), ids=SAVES)
def test_a_file_object_gets_the_bytes_of_the_file(tmp_path: Path, save: Any, read: Any) -> None:
    llm, _ = under_way()
    data = save(llm, tmp_path / "m").read_bytes()
    stream = io.BytesIO()
    assert save(llm, stream) is None
    assert stream.getvalue() == data and not stream.closed
    with open(tmp_path / "n", "wb") as file:
        file.write(b"before")
        save(llm, file)
    assert (tmp_path / "n").read_bytes() == b"before" + data
    if save is save_model_binary:
        assert llm.to_bytes() == data
        assert len(llm.to_bytes(optimizer=False, weights="int8")) < len(data) / 8
    backwards = memoryview(data[::-1])[::-1]  # not contiguous
    for source in (
        data,
        bytearray(data),
        memoryview(data),
        backwards,
        io.BytesIO(data),
        io.BufferedReader(io.BytesIO(data)),
        tmp_path / "m",
        str(tmp_path / "m"),
    ):
        for how in (read, load, load_model_auto):
            if isinstance(source, io.IOBase):
                source.seek(0)
            same_model(llm, how(source))
    with open(tmp_path / "n", "rb") as file:
        file.seek(6)
        same_model(llm, load(file))
    assert load(io.BytesIO(data), training=False).optimizer is None
    assert describe(data)["path"] == "<bytes>"
    assert describe(data)["parameters"] == llm.n_parameters


class Trickle(io.RawIOBase):
    """A stream without seek that gives and takes a few bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.data, self.at = bytearray(data), 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.at : self.at + min(len(buffer), 37)]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def write(self, data: Any) -> int:
        self.data += bytes(data[:41])
        return min(len(data), 41)


def test_streams_that_give_and_take_little_by_little() -> None:
    llm = small_llm(n_embd=16)
    for save in (save_model_binary, save_model_json):
        stream = Trickle()
        save(llm, stream)
        same_model(llm, load(stream))
    # What follows a binary model is left in the stream.
    two = io.BytesIO(llm.to_bytes() + small_llm(seed=4).to_bytes() + b"rest")
    same_model(llm, load(two))
    same_model(small_llm(seed=4), load(two))
    assert two.read() == b"rest"


def test_sockets_and_pipes_that_stay_open() -> None:
    llm = small_llm(n_embd=16)
    left, right = socket.socketpair()
    with left, right, left.makefile("wb") as out, right.makefile("rb") as into:
        thread = threading.Thread(target=save_model_binary, args=(llm, out))
        thread.start()
        same_model(llm, load(into))  # the other end is not closed
        thread.join()
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as into, os.fdopen(write, "wb") as out:
        thread = threading.Thread(target=save_model_binary, args=(llm, out))
        thread.start()
        same_model(llm, load(into))
        thread.join()


def test_every_check_of_a_file_is_made_of_bytes() -> None:
    """Cut or changed anywhere, or of another kind: the same sentence as of a file."""
    data = small_llm(n_embd=16).to_bytes()
    for at in range(0, len(data), 997):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        for wrong in (bytes(flipped), data[:at]):
            for source in (wrong, io.BytesIO(wrong)):
                with pytest.raises(CheckpointError, match=r"<bytes>|<BytesIO>") as error:
                    load(source)
                assert error.value.code in ("damaged", "version", "foreign")
    for wrong, sentence in (
        (b"", "an empty file"),
        (b"GGUF" + bytes(99), "a GGUF file"),
        (b"\x80\x04" + bytes(99), "a Python pickle"),
        (b"hello", "text"),
        (data + b"x", r"found \d+ bytes, expected \d+ bytes"),
    ):
        with pytest.raises(CheckpointError, match=f"^<bytes> is .*{sentence}"):
            load(wrong)
    huge = bytearray(data)
    struct.pack_into("<Q", huge, 24, 1 << 60)
    from zlib import crc32

    struct.pack_into("<I", huge, 60, crc32(huge[:60]))
    with pytest.raises(CheckpointError, match="a length of 1152921504606846976 bytes"):
        load(io.BytesIO(bytes(huge)))


def test_an_endless_stream_is_not_read_for_ever() -> None:
    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, n: int = -1) -> bytes:
            self.read_bytes += n
            return b"\0" * n

    stream = Endless()
    with pytest.raises(CheckpointError, match=r"^<Endless> is damaged: found zeros"):
        load(stream)
    assert stream.read_bytes <= 1 << 17


def test_errors_name_the_file_object(tmp_path: Path) -> None:
    llm = small_llm(n_embd=16)
    path = tmp_path / "cut.bin"
    path.write_bytes(llm.to_bytes()[:500])
    with open(path, "rb") as file, pytest.raises(CheckpointError, match=r"cut\.bin is damaged"):
        load(file)
    closed = open(path, "rb")  # noqa: SIM115 - it is closed on purpose
    closed.close()
    with pytest.raises(CheckpointError, match=r"cut\.bin cannot be opened: found 'read of"):
        load(closed)
    with (
        open(path, "wb") as file,
        pytest.raises(CheckpointError, match=r"cut\.bin cannot be opened"),
    ):
        load(file)
    with (
        open(path, encoding="latin-1") as file,
        pytest.raises(ConfigError, match="is of text, expected one of bytes; open it with 'r"),
    ):
        load(file)
    for stream in (io.StringIO(), open(tmp_path / "x", "w")):  # noqa: SIM115
        for save in (save_model_binary, save_model_json):
            with pytest.raises(ConfigError, match="open it with 'wb'"):
                save(llm, stream)
    with (
        open(path, "rb") as file,
        pytest.raises(CheckpointError, match="could not be written") as info,
    ):
        save_model_binary(llm, file)
    assert info.value.code == "write"
    for wrong in (5, None, 2.5, ["m.bin"], object()):
        with pytest.raises(ConfigError, match="load: expected a path, bytes or a binary file"):
            load(wrong)
        with pytest.raises(ConfigError, match="save: expected a path or a binary file object"):
            save_model_binary(llm, wrong)
    with pytest.raises(ConfigError, match=r"LLM\.from_bytes: expected bytes"):
        LLM.from_bytes("m.bin")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_stream_that_is_full() -> None:
    with (
        open("/dev/full", "wb", buffering=0) as file,
        pytest.raises(CheckpointError, match="found 'No space left on device' after 0 bytes"),
    ):
        save_model_binary(small_llm(n_embd=16), file)


def test_an_adapter_in_bytes_carries_its_model(tmp_path: Path) -> None:
    llm = small_llm()
    save_model_binary(llm, tmp_path / "base.bin")
    fit(llm, changed(lora_rank=2))
    small = save_model_binary(llm, tmp_path / "lora.bin")
    assert len(llm.to_bytes()) > 3 * small.stat().st_size
    same_model(llm, LLM.from_bytes(llm.to_bytes()))
    # A small one finds its model from where the file lies.
    with open(small, "rb") as file:
        same_model(llm, load(file))
    with pytest.raises(CheckpointError, match=r"<bytes>: the model base\.bin of this adapter"):
        load(small.read_bytes())
    # A copy knows the file too, so what it saves is small again.
    assert save_model_binary(llm.clone(), tmp_path / "again.bin").read_bytes() == small.read_bytes()


def test_a_gpt_by_itself_is_not_saved(tmp_path: Path) -> None:
    for save in (save_model_binary, save_model_json):
        with pytest.raises(ConfigError, match=r"expected an LLM, found a GPT; .*cgpt\.LLM\(token"):
            save(small_llm().gpt, tmp_path / "m")
        with pytest.raises(ConfigError, match="expected an LLM, found"):
            save("x", tmp_path / "m")
    assert not list(tmp_path.iterdir())
