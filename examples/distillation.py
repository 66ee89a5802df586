"""Distillation: a small model learns what a larger one thinks of every next token.

    python examples/distillation.py [--steps N]

The teacher knows sentences of which the students see a few. Both students have the same shape and
begin with the same weights; one learns those texts themselves, the other what the teacher expects
at each of their tokens: a loss that no option of cgpt names, so it goes through
`logits(..., keep=True)` and `backward(dlogits)`. At the end it is measured how far each of them is
from the teacher in sentences that neither has seen.
Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, equations 1 to 4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import cgpt

TEXTS = [
    f"{who}{where}{what}。"
    for who in ("小明", "老师", "妈妈", "医生", "农民")
    for where in ("在家里", "在学校", "在河边", "在山上")
    for what in ("看书", "唱歌", "喝茶", "种花", "画画")
]
SEEN = TEXTS[::7]
TEACHER = cgpt.GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=64, vocab_size=600)
STUDENT = cgpt.GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=64, vocab_size=600)
TEMPERATURE = 1.5


@dataclass(frozen=True)
class Batch:
    """Texts laid end to end: ids and targets (N,), and the borders between the texts."""

    ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    offsets: NDArray[np.int32]


def batch_of(llm: cgpt.LLM, texts: Sequence[str]) -> Batch:
    """Each text between <bos> and <eos>, to be predicted from its first token on."""
    tokenizer = llm.tokenizer
    rows = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    lengths = [len(row) - 1 for row in rows]
    return Batch(
        np.array([id for row in rows for id in row[:-1]], np.int32),
        np.array([id for row in rows for id in row[1:]], np.int32),
        np.cumsum([0, *lengths], dtype=np.int32),
    )


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Row by row."""
    scaled = logits / np.float32(temperature)
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return found


def divergence(teacher: cgpt.LLM, student: cgpt.LLM, batch: Batch) -> float:
    """Mean over the tokens of KL(teacher || student), in nats."""
    p, q = (softmax(llm.gpt.logits(batch.ids, offsets=batch.offsets)) for llm in (teacher, student))
    return float((p * (np.log(p + 1e-9) - np.log(q + 1e-9))).sum(axis=-1).mean())


def learn(student: cgpt.LLM, batch: Batch, steps: int, teacher: cgpt.LLM | None) -> None:
    """Train on the batch: on its targets, or on what the teacher says."""
    gpt = student.trainable
    optimizer = student.optimizer = cgpt.AdamW(gpt, weight_decay=0.0)
    wanted = (
        None
        if teacher is None
        else softmax(teacher.gpt.logits(batch.ids, offsets=batch.offsets), TEMPERATURE)
    )
    for step in range(steps):
        if wanted is None:
            gpt.forward(batch.ids, batch.targets, offsets=batch.offsets)
            gpt.backward()
        else:
            logits = gpt.logits(batch.ids, offsets=batch.offsets, keep=True)
            # The gradient of T^2 KL(p || q) of distributions at temperature T is T (q - p).
            dlogits = (softmax(logits, TEMPERATURE) - wanted) * (TEMPERATURE / len(batch.ids))
            gpt.backward(dlogits)
        optimizer.step(lr=cgpt.schedule(step, lr=1e-2, warmup=5, total=steps), clip=1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=80, metavar="N")
    steps = parser.parse_args(arguments).steps

    teacher = cgpt.LLM.from_texts(TEXTS * 4, TEACHER, kind="chars")
    learn(teacher, batch_of(teacher, TEXTS), steps, None)
    print(
        f"teacher: {teacher.n_parameters} parameters, loss {teacher.loss(TEXTS):.4f} on "
        f"{len(TEXTS)} texts"
    )
    seen = batch_of(teacher, SEEN)
    others = batch_of(teacher, [text for text in TEXTS if text not in SEEN])
    for name, by in (("the texts", None), ("the teacher", teacher)):
        student = cgpt.LLM.fresh(teacher.tokenizer, STUDENT)
        learn(student, seen, steps, by)
        print(
            f"student of {name}: {student.n_parameters} parameters, {len(SEEN)} texts seen, "
            f"{divergence(teacher, student, others):.4f} nats from the teacher on the others"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
