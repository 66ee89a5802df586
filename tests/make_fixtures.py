"""Make the model files in tests/data that every later version must read.

    python tests/make_fixtures.py [--out FOLDER]

Files that are there are never written again: once released, they are kept as they are. A feature
that the format gains is a new function in FIXTURES with a new file.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from cgpt.checkpoint.saving import save_model_binary, save_model_json
from cgpt.config import GPTConfig
from cgpt.language_model import TrainingState
from cgpt.llm import LLM
from cgpt.models.gpt2 import GPT
from cgpt.models.rustgpt import RustGPT, RustGPTConfig
from cgpt.nn.arena import aligned
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.muon import Muon
from cgpt.tokenizers.bpe import name_of
from cgpt.tokenizers.rustgpt import SPECIAL
from cgpt.tokenizers.tokenizer import RustTokenizer, Tokenizer
from cgpt.tokenizers.vocabulary import FIRST_WORD

DATA = Path(__file__).parent / "data"
WORDS = ["山", "水", "人", "长江", "😀", "a\nb", 'say "hi"', "\\u", "<b>"]


def tiny_llm(*, optimizer: bool = True, best: bool = True) -> LLM:
    """A model of 3 kB of weights with every kind of record; all its numbers are told by rules.

    Element i of the arena is x = ((i + 1) * 7919 % 10007 - 5003) / 8192, m is x * x / 10, v is
    m * m / 1e4 and the best weights are -x / 2: exact on every machine. The first three weights
    are -0.0, the least denormal and a large number.
    """
    scores = [-1.5 - 0.1 * i for i in range(len(WORDS))]
    tokenizer = Tokenizer.from_state({"words": WORDS, "scores": scores})
    config = GPTConfig(
        n_layer=1, n_head=1, n_embd=2, n_ff=3, block_size=4, vocab_size=FIRST_WORD + len(WORDS) + 1
    )
    gpt = GPT(config)
    state = TrainingState(
        phase="finetune",
        done=["pretrain"],
        epoch=2,
        batch=1,
        step=37,
        total_steps=90,
        tokens=1234,
        seconds=1.25,
        best_loss=2.5,
        best_step=30,
        bad_evals=1,
        history=[["pretrain", 1, 5.5, None], ["finetune", 30, 2.625, 2.5]],
        run={"preset": "tiny"},
        data_fingerprint="ab" * 32,
    )
    llm = LLM(
        tokenizer,
        gpt,
        training_state=state,
        metadata={"title": "小模型", "data": [1, 2.5], "nested": {"empty": []}},
    )
    spread(gpt, gpt.arena.data, lambda x: x)
    gpt.arena.data[:3] = [-0.0, 1e-45, 3e38]
    if optimizer:
        llm.optimizer = AdamW(gpt, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        llm.optimizer.step_count = 412
        m, v = gpt.arena.require_moments()
        spread(gpt, m, lambda x: x * x / 10)
        spread(gpt, v, lambda x: (x * x / 10) * (x * x / 10) / 1e4)
    if best:
        llm.best_weights = aligned(gpt.arena.size, zero=True)
        spread(gpt, llm.best_weights, lambda x: -x / 2)
    return llm


def averaging_llm() -> LLM:
    """As `tiny_llm`, trained by Muon and with an average of the weights, which is x / 4."""
    llm = tiny_llm()
    moments = [array.copy() for array in llm.gpt.arena.require_moments()]
    llm.optimizer = Muon(llm.gpt, momentum=0.875, embedding_lr=2.0)
    llm.optimizer.step_count = 412
    for array, values in zip(llm.gpt.arena.require_moments(), moments, strict=True):
        array[:] = values
    llm.average = aligned(llm.gpt.arena.size, zero=True)
    spread(llm.gpt, llm.average, lambda x: x / 4)
    return llm


def adapter_llm(base: str = str(DATA / "tiny_v1.bin")) -> LLM:
    """A LoRA adapter of the model in tiny_v1.bin with every kind of record, by the same rules.

    A and B are x, their average x / 4, and the rest as in `tiny_llm`, over the adapter's arena.
    """
    llm = tiny_llm()
    lora = Lora(
        llm.gpt, 2, 3.0, ["h.0.attn.*", "h.?.mlp.c_fc.weight"], base=base, replaces=llm.optimizer
    )
    lora.step_count = 412
    m, v = lora.arena.require_moments()
    llm.best_weights, llm.average = (np.zeros(lora.arena.size, np.float32) for _ in range(2))
    for array, rule in (
        (lora.arena.data, lambda x: x),
        (m, lambda x: x * x / 10),
        (v, lambda x: (x * x / 10) * (x * x / 10) / 1e4),
        (llm.best_weights, lambda x: -x / 2),
        (llm.average, lambda x: x / 4),
    ):
        spread(lora, array, rule)
    lora.restored()
    llm.optimizer = lora
    return llm


def spread(model: GPT | Lora, array: np.ndarray, rule: Callable[[np.ndarray], np.ndarray]) -> None:
    """Fill the entries of a flat array by a rule of x; the gaps between them stay zero."""
    for entry in model.arena.entries:
        number = np.arange(entry.offset + 1, entry.offset + 1 + entry.size, dtype=np.int64)
        x = (number * 7919 % 10007 - 5003) / 8192
        array[entry.offset : entry.offset + entry.size] = rule(x)


def rounded_llm() -> LLM:
    """As `tiny_llm`, wider than a group of int8 (35 = 32 + 3), with no number beyond float16."""
    config = GPTConfig(n_layer=1, n_head=5, n_embd=35, n_ff=3, block_size=4, vocab_size=FIRST_WORD)
    gpt = GPT(config)
    spread(gpt, gpt.arena.data, lambda x: x)
    gpt.arena.view("wte.weight")[1] = 0
    return LLM(Tokenizer.from_state({"words": [], "scores": []}), gpt)


def kind_llm(kind: str) -> LLM:
    """As `tiny_llm`, with a vocabulary of another kind."""
    llm = tiny_llm(optimizer=False, best=False)
    hill, water = "山".encode(), "水".encode()
    words = {
        "bpe": [*map(name_of, (hill[:2], hill, water[1:], water))],
        "chars": ["山", "水", "😀"],
    }[kind]
    scores = [0.0] * 4 if kind == "bpe" else [-1.5, -1.625, -1.75]
    llm.tokenizer = Tokenizer.from_state({"kind": kind, "words": words, "scores": scores})
    return llm


def rustgpt_llm() -> LLM:
    """A model of the graph "rustgpt", by the rules of `tiny_llm`; two words are never made."""
    words = [*SPECIAL, "用", "户", "：", "助", "手", "山水", "用户", "Rust"]
    scores = (
        [-math.inf] * 2
        + [-1.5]
        + [-math.inf] * 4
        + [-2.0 - 0.1 * i for i in range(6)]
        + [-math.inf, -3.25]
    )
    tokenizer = RustTokenizer.from_state({"words": words, "scores": scores})
    gpt = RustGPT(
        RustGPTConfig(
            n_layer=1,
            n_head=1,
            n_embd=3,
            n_ff=2,
            block_size=5,
            vocab_size=len(words),
            norm_eps=1e-8,
        )
    )
    spread(gpt, gpt.arena.data, lambda x: x)
    llm = LLM(tokenizer, gpt, AdamW(gpt, (0.9, 0.999), 1e-8, 0.0))
    llm.optimizer.step_count = 810
    m, v = gpt.arena.require_moments()
    spread(gpt, m, lambda x: x * x / 10)
    spread(gpt, v, lambda x: (x * x / 10) * (x * x / 10) / 1e4)
    return llm


FIXTURES: dict[str, Callable[[Path], object]] = {
    "tiny_v1.bin": lambda path: save_model_binary(tiny_llm(), path),
    "tiny_v1.json": lambda path: save_model_json(tiny_llm(), path),
    "tiny_v1_average.bin": lambda path: save_model_binary(averaging_llm(), path),
    "tiny_v1_average.json": lambda path: save_model_json(averaging_llm(), path),
    "tiny_v1_weights.bin": lambda path: save_model_binary(
        tiny_llm(optimizer=False, best=False), path
    ),
    "tiny_v1_float16.bin": lambda path: save_model_binary(
        rounded_llm(), path, optimizer=False, weights="float16"
    ),
    "tiny_v1_int8.bin": lambda path: save_model_binary(
        rounded_llm(), path, optimizer=False, weights="int8", group=32
    ),
    "tiny_v1_bpe.bin": lambda path: save_model_binary(kind_llm("bpe"), path),
    "tiny_v1_bpe.json": lambda path: save_model_json(kind_llm("bpe"), path),
    "tiny_v1_chars.bin": lambda path: save_model_binary(kind_llm("chars"), path),
    "tiny_v1_lora.bin": lambda path: save_model_binary(adapter_llm(), path),
    "tiny_v1_lora_carries.bin": lambda path: save_model_binary(adapter_llm(base=""), path),
    "tiny_v1_rustgpt.bin": lambda path: save_model_binary(rustgpt_llm(), path),
    "tiny_v1_rustgpt.json": lambda path: save_model_json(rustgpt_llm(), path),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA, help="folder of the files")
    out = parser.parse_args().out
    for name, make in FIXTURES.items():
        if (out / name).exists():
            print(f"{out / name} is there and stays as it is")
        else:
            make(out / name)
            print(f"{out / name} written, {(out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
