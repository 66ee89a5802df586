"""A tokenizer of single characters and models small enough to train inside a test."""

from __future__ import annotations

import math
from functools import cache

from cgpt.config import GPTConfig, TrainConfig
from cgpt.corpus.records import Message
from cgpt.llm import LLM
from cgpt.models.gpt2 import GPT
from cgpt.tokenizers.tokenizer import Tokenizer
from cgpt.training.epochs import held_out_documents
from cgpt.training.trainer import Trainer

FACTS = (
    ("长江有多长", "长江全长约六千公里。"),
    ("黄河有多长", "黄河全长约五千公里。"),
    ("天空是什么颜色", "天空是蓝色的。"),
    ("你好", "你好，很高兴见到你。"),
    ("一年有几个季节", "一年有四个季节。"),
    ("谢谢", "不客气。"),
)
TEXTS = [question + "，" + answer for question, answer in FACTS]
DIALOGUES = [
    (Message("user", question), Message("assistant", answer)) for question, answer in FACTS
]
CHARACTERS = sorted({char for text in TEXTS for char in text})


def small_tokenizer() -> Tokenizer:
    """The characters of FACTS, each a token; made without jieba, which takes a second."""
    scores = [math.log(1 / len(CHARACTERS))] * len(CHARACTERS)
    return Tokenizer.from_state({"words": list(CHARACTERS), "scores": scores})


def small_llm(seed: int = 0, **shape: int) -> LLM:
    """A fresh model of 2 layers over `small_tokenizer`."""
    tokenizer = small_tokenizer()
    values = {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "block_size": 64,
        "vocab_size": len(tokenizer),
    }
    return LLM(tokenizer, GPT(GPTConfig(**{**values, **shape}), seed=seed))


def split(documents: list, fraction: float, seed: int, phase: str) -> tuple[list, list]:
    """(training, held out) as a training splits them."""
    out = held_out_documents(len(documents), fraction, seed, phase).tolist()
    return (
        [one for one, held in zip(documents, out, strict=True) if not held],
        [one for one, held in zip(documents, out, strict=True) if held],
    )


@cache
def trained_llm() -> LLM:
    """A model that has learnt FACTS by heart: one for all tests, which leave it as it is."""
    llm = small_llm(block_size=96)
    config = TrainConfig(epochs=150, batch_tokens=128, lr=1e-2, warmup=5, join_dialogues=4)
    Trainer(llm, config, "finetune").fit(DIALOGUES)
    return llm
