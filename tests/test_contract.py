"""The Python interface as the design promises it: names, arguments, shapes, types, results."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS

import cgpt

B, T, V = 3, 12, 300
IDS = np.random.default_rng(0).integers(0, V, (B, T)).astype(np.int32)
TARGETS = np.where(np.arange(T) < T - 1, np.roll(IDS, -1, 1), -1).astype(np.int32)
SHAPE = dict(n_layer=2, n_head=8, n_embd=32, n_ff=48, vocab_size=V, block_size=16)


@pytest.fixture
def gpt() -> cgpt.GPT:
    return cgpt.GPT(cgpt.GPTConfig(**SHAPE), seed=0)


@pytest.fixture(scope="module")
def llm() -> cgpt.LLM:
    """Trained a little, so that it has all that is saved."""
    llm = cgpt.LLM.from_texts(TEXTS, cgpt.GPTConfig(**{**SHAPE, "vocab_size": 400}))
    trainer = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=10, batch_tokens=4096, lr=1e-3, seed=0))
    first = llm.loss(TEXTS)
    trainer.fit(TEXTS)
    assert isinstance(first, float) and llm.loss(TEXTS) < first
    return llm


def test_threads_and_instruction_set() -> None:
    before = cgpt.get_num_threads()
    cgpt.set_num_threads(2)
    assert cgpt.get_num_threads() in (1, 2)  # 1 without OpenMP
    for wrong in (0, -1, 10**12, 2.5, None):
        with pytest.raises(cgpt.ConfigError, match="set_num_threads: n must be"):
            cgpt.set_num_threads(wrong)
    cgpt.set_num_threads(before)
    assert cgpt.instruction_set() in ("generic", "avx2", "avx512")


FORKED = """
import os, signal, cgpt, numpy as np
cgpt.set_num_threads(2)
gpt = cgpt.GPT(cgpt.GPTConfig.preset("tiny"))
ids = np.zeros((4, 128), int)
loss = gpt.forward(ids, ids, backward=False)
child = os.fork()
if not child:
    signal.alarm(20)
    cgpt.set_num_threads(2)
    os._exit(gpt.forward(ids, ids, backward=False) != loss)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes() -> None:
    """The threads of its parent are not there: it would wait for them for ever."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True)


@pytest.mark.parametrize("wrong", ["none", "0", "-2", "1.5", "99999"])
def test_a_wrong_number_of_threads_in_the_environment_is_told(wrong: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import cgpt; cgpt.get_num_threads()"],
        env={**os.environ, "CGPT_THREADS": wrong},
        capture_output=True,
        text=True,
    )
    assert done.stderr.endswith(
        f"ConfigError: CGPT_THREADS: found '{wrong}', expected 1 to 1024; "
        "correct it or leave CGPT_THREADS unset\n"
    )


def test_configs() -> None:
    config = cgpt.GPTConfig(
        n_layer=2, n_head=8, n_embd=256, n_ff=1024, vocab_size=3000, block_size=128
    )
    assert config.n_ff == 1024
    assert cgpt.GPTConfig.preset("small", vocab_size=5000).vocab_size == 5000
    for wrong in (dict(n_embd=None), dict(n_ff=0.0), dict(n_head="8")):
        with pytest.raises(cgpt.ConfigError, match="must be a whole number"):
            cgpt.GPTConfig(**wrong)
    with pytest.raises(cgpt.ConfigError, match="freeze must be a list"):
        cgpt.TrainConfig(freeze=5)


def test_parameters_are_named_views(gpt: cgpt.GPT) -> None:
    C, F = 32, 48
    block = {
        "attn.ln.weight": (C,),
        "attn.ln.bias": (C,),
        "attn.c_attn.weight": (3 * C, C),
        "attn.c_attn.bias": (3 * C,),
        "attn.c_proj.weight": (C, C),
        "attn.c_proj.bias": (C,),
        "mlp.ln.weight": (C,),
        "mlp.ln.bias": (C,),
        "mlp.c_fc.weight": (F, C),
        "mlp.c_fc.bias": (F,),
        "mlp.c_proj.weight": (C, F),
        "mlp.c_proj.bias": (C,),
    }
    expected = {
        "wte.weight": (V, C),
        "wpe.weight": (16, C),
        "ln_f.weight": (C,),
        "ln_f.bias": (C,),
        **{f"h.{i}.{name}": shape for i in (0, 1) for name, shape in block.items()},
    }
    for arrays, arena in ((gpt.parameters(), gpt.arena.data), (gpt.gradients(), gpt.arena.grad)):
        assert {name: array.shape for name, array in arrays.items()} == expected
        assert all(
            array.dtype == np.float32 and np.shares_memory(array, arena)
            for array in arrays.values()
        )
    other = cgpt.GPT(gpt.config, seed=1)
    other.load_parameters(
        {name: array.astype(np.float64) for name, array in gpt.parameters().items()}
    )
    assert np.array_equal(other.logits(IDS), gpt.logits(IDS))


def test_a_training_step(gpt: cgpt.GPT) -> None:
    optimizer = cgpt.AdamW(gpt, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    loss = gpt.forward(IDS, TARGETS)
    assert isinstance(loss, float)
    gpt.backward()
    squares = sum(float((g.astype(np.float64) ** 2).sum()) for g in gpt.gradients().values())
    norm = optimizer.step(lr=3e-4, clip=1.0)
    assert isinstance(norm, float) and norm == pytest.approx(squares**0.5, rel=1e-5)  # float32
    assert not any(array.any() for array in gpt.gradients().values())
    assert gpt.forward(IDS, TARGETS) < loss


def test_loss_is_the_mean_over_counted_tokens(gpt: cgpt.GPT) -> None:
    logits = gpt.logits(IDS)
    assert logits.shape == (B, T, V) and logits.dtype == np.float32
    wide = logits.astype(np.float64)
    log_p = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    found = -np.take_along_axis(log_p, np.maximum(TARGETS, 0)[..., None], -1)[..., 0]
    expected = found[TARGETS >= 0].mean()
    assert gpt.forward(IDS, TARGETS) == pytest.approx(expected, rel=1e-5)  # float32


@pytest.mark.parametrize(
    "form",
    [
        np.ndarray.tolist,
        lambda ids: ids.astype(np.int64),
        lambda ids: ids.astype(np.uint8),
        np.asfortranarray,
        lambda ids: np.repeat(ids, 2, 1)[:, ::2],
    ],
)
def test_ids_in_any_form_are_the_same(gpt: cgpt.GPT, form: Callable[[np.ndarray], Any]) -> None:
    ids = IDS % 256
    assert gpt.forward(form(ids), form(ids)) == gpt.forward(ids, ids)
    assert np.array_equal(gpt.logits(form(ids)), gpt.logits(ids))
    assert np.array_equal(gpt.generate(form(ids), 4), gpt.generate(ids, 4))


@pytest.mark.parametrize(
    ("ids", "targets", "more", "message"),
    [
        (IDS.astype(float), TARGETS, {}, "ids: found float64, expected whole numbers"),
        (IDS, TARGETS.astype(float), {}, "targets: found float64"),
        (IDS.astype(np.int64) + 2**32, TARGETS, {}, "ids: found 4294967"),
        ([[1, 2], [3]], [[1, 2], [3]], {}, "ids: found rows of unlike length"),
        (IDS, TARGETS.T, {}, r"targets: found shape \(12, 3\), expected \(3, 12\)"),
        (IDS, TARGETS[:1], {}, r"targets: found shape \(1, 12\)"),
        (IDS, np.full_like(IDS, V), {}, f"targets: found {V}, expected -1 to {V - 1}"),
        (IDS, np.full_like(IDS, -100), {}, "targets: found -100"),
        (
            IDS,
            TARGETS,
            {"positions": np.full(IDS.size, 16)},
            "positions: found 16, expected 0 to 15",
        ),
        (IDS, TARGETS, {"positions": [1, 2]}, r"positions: found shape \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_told(
    gpt: cgpt.GPT, ids: Any, targets: Any, more: Any, message: str
) -> None:
    with pytest.raises(cgpt.DataError, match=message):
        gpt.forward(ids, targets, **more)
    if "positions" not in more:
        with pytest.raises(cgpt.DataError, match=message):
            gpt.losses(ids, targets)


def test_generate_and_stream(gpt: cgpt.GPT) -> None:
    out = gpt.generate(IDS[0], max_new_tokens=20, temperature=0.0, top_k=0, top_p=1.0, seed=0)
    assert out.shape == (20,) and out.dtype == np.int32
    assert np.array_equal(gpt.generate(IDS[0].tolist(), max_new_tokens=20), out)
    tokens = list(gpt.stream(IDS[0], max_new_tokens=20, temperature=0.0))
    assert tokens == out.tolist() and all(isinstance(token, int) for token in tokens)
    assert len(gpt.generate(IDS[0])) == 100
    assert gpt.generate(IDS[0], max_new_tokens=0).shape == (0,)
    draw = gpt.generate(IDS[0], 9, temperature=1.0, top_k=10**6, top_p=0.9, seed=3)
    assert np.array_equal(draw, gpt.generate(IDS[0], 9, 1.0, V, 0.9, 3))


def test_a_batch_generates_row_by_row(gpt: cgpt.GPT) -> None:
    options = dict(max_new_tokens=9, temperature=1.0)
    out = gpt.generate(IDS, seed=5, **options)
    assert out.shape == (B, 9) and out.dtype == np.int32 and out.flags.c_contiguous
    for i, row in enumerate(out):
        assert np.array_equal(row, gpt.generate(IDS[i], seed=5 + i, **options))
    assert np.array_equal(np.stack(list(gpt.stream(IDS, seed=5, **options)), axis=1), out)
    assert gpt.generate(IDS, max_new_tokens=0).shape == (B, 0)
    assert gpt.generate(IDS[:1], max_new_tokens=2).shape == (1, 2)
    assert gpt.generate(IDS, 4, temperature=1.0, seed=None).shape == (B, 4)
    for wrong in (np.zeros((0, 3), int), np.zeros((3, 0), int), IDS[None], [], [[1], [V]], [1.5]):
        with pytest.raises(cgpt.DataError, match="ids"):
            gpt.generate(wrong)


def test_threads_of_python_share_a_model(llm: cgpt.LLM) -> None:
    starts = ["长江", "黄河", "天空是", "你好"]
    alone = [llm.generate(start, max_new_tokens=30) for start in starts]
    losses = [llm.loss([text]) for text in TEXTS]
    wrong: list[str] = []

    def work(i: int) -> None:
        for _ in range(10):
            if llm.generate(starts[i], max_new_tokens=30) != alone[i]:
                wrong.append(starts[i])
            if llm.loss([TEXTS[i]]) != losses[i]:
                wrong.append(TEXTS[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(starts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tokenizer() -> None:
    tokenizer = cgpt.Tokenizer.train(TEXTS, vocab_size=8192)
    ids = tokenizer.encode("长江 🌊 <eos>")
    assert all(isinstance(i, int) for i in ids) and tokenizer.decode(ids) == "长江 🌊 <eos>"
    assert tokenizer.decode(np.array(ids, np.int64)) == "长江 🌊 <eos>"
    assert max(ids) < len(tokenizer) <= 8192


def test_llm(llm: cgpt.LLM) -> None:
    assert isinstance(llm.generate("山脉", max_new_tokens=40), str)
    assert llm.loss(iter(TEXTS)) == llm.loss(TEXTS)
    session = cgpt.ChatSession(llm)
    assert isinstance("".join(session.reply("你好")), str)


def test_documents_of_another_kind_are_told(llm: cgpt.LLM) -> None:
    for wrong in ([3], [{"messages": []}], [["山"]]):
        with pytest.raises(cgpt.DataError, match=r"LLM.loss: documents\[0\]: (found|no messages)"):
            llm.loss(wrong)


def test_saving_and_loading(llm: cgpt.LLM, tmp_path: Path) -> None:
    binary, text = tmp_path / "model.bin", str(tmp_path / "model.json")
    assert cgpt.save_model_binary(llm, binary, optimizer=True) == binary
    assert cgpt.save_model_json(llm, text) == Path(text)
    for load, path in (
        (cgpt.load_model_binary, binary),
        (cgpt.load_model_json, text),
        (cgpt.load_model_auto, binary),
        (cgpt.load_model_auto, text),
    ):
        again = load(path)
        assert np.array_equal(again.gpt.arena.data, llm.gpt.arena.data)
        assert np.array_equal(again.gpt.arena.m, llm.gpt.arena.m)
        assert again.training_state == llm.training_state
        assert again.tokenizer.words == llm.tokenizer.words


@pytest.mark.parametrize("name", ["model.bin", "model.json"])
def test_a_model_loaded_to_talk(llm: cgpt.LLM, tmp_path: Path, name: str) -> None:
    """Its weights cannot be changed by any way in, it talks, and is saved over its own file."""
    path = tmp_path / name
    save = cgpt.save_model_binary if name.endswith("bin") else cgpt.save_model_json
    save(llm, path)
    talker = cgpt.load_model_auto(path, training=False)
    expected = llm.generate("长江", max_new_tokens=20)
    with pytest.raises(ValueError, match="read-only"):
        talker.gpt.parameters()["wte.weight"][0] = 0
    for change in (
        lambda: cgpt.Trainer(talker).fit(TEXTS),
        lambda: cgpt.AdamW(talker.gpt),
        talker.gpt.gradients,
        lambda: talker.gpt.load_parameters(llm.gpt.parameters()),
    ):
        with pytest.raises(cgpt.ConfigError, match="read-only"):
            change()
    save(talker, path)
    assert talker.generate("长江", max_new_tokens=20) == expected
    assert cgpt.load_model_auto(path).generate("长江", max_new_tokens=20) == expected


def test_dialogues_are_documents_too(llm: cgpt.LLM) -> None:
    result = cgpt.Trainer(llm, cgpt.TrainConfig(epochs=1), "finetune").fit(iter(DIALOGUES))
    assert result.stopped == "done" and result.steps == 1
