"""Preference tuning (DPO): of two answers to a question, the model learns to prefer one.

    python examples/preference_tuning.py [--steps N]

A model has learnt a polite answer to every question, and a short one that it has met twice as
often. Pairs of a preferred and a rejected answer then teach it to be polite, without a word that
is new to it. The loss is -log sigmoid(margin), margin = beta (log p/p0(preferred) -
log p/p0(rejected)), where p0 is the model as it was; its gradient is a weight on every token's
negative log-likelihood, positive in the preferred answer and negative in the rejected one:
`forward(ids, targets, weights, scale=1)`.
Source: Rafailov et al. 2023, arXiv:2305.18290, equation 7.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import cgpt

QUESTIONS = (
    "几点了",
    "你叫什么",
    "天气好吗",
    "吃饭了吗",
    "去哪里",
    "会唱歌吗",
    "喜欢茶吗",
    "累不累",
)
ANSWERS = ("三点", "小明", "很好", "吃了", "学校", "会的", "喜欢", "不累")
SHORT = [f"{answer}。" for answer in ANSWERS]
POLITE = [f"您好，{answer}，谢谢您。" for answer in ANSWERS]
BETA = 0.2


@dataclass(frozen=True)
class Dialogues:
    """Dialogues end to end: ids and targets (N,), -1 where no answer is, and their borders."""

    ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    offsets: NDArray[np.int32]


def laid_out(llm: cgpt.LLM, answers: Sequence[str]) -> Dialogues:
    """Every question with its answer."""
    samples = llm.samples(
        [dialogue(question, answer) for question, answer in zip(QUESTIONS, answers, strict=True)]
    )
    return Dialogues(
        np.concatenate([one.ids for one in samples]),
        np.concatenate([one.targets for one in samples]),
        np.cumsum([0, *map(len, samples)], dtype=np.int32),
    )


def dialogue(question: str, answer: str) -> tuple[cgpt.Message, cgpt.Message]:
    return cgpt.Message("user", question), cgpt.Message("assistant", answer)


def log_likelihood(llm: cgpt.LLM, answers: Dialogues) -> NDArray[np.float64]:
    """Of each answer as a whole: (D,) nats."""
    losses = llm.gpt.losses(answers.ids, answers.targets, offsets=answers.offsets)
    return -np.add.reduceat(losses.astype(np.float64), answers.offsets[:-1])


def margins(
    llm: cgpt.LLM, reference: cgpt.LLM, preferred: Dialogues, rejected: Dialogues
) -> NDArray[np.float64]:
    """By how much each preferred answer has gained on the rejected one, times beta: (D,)."""
    gained = log_likelihood(llm, preferred) - log_likelihood(reference, preferred)
    lost = log_likelihood(llm, rejected) - log_likelihood(reference, rejected)
    return BETA * (gained - lost)


def tune(llm: cgpt.LLM, steps: int) -> float:
    """Prefer the polite answers; the mean margin in the end."""
    reference = llm.clone()
    preferred, rejected = laid_out(llm, POLITE), laid_out(llm, SHORT)
    llm.optimizer = None  # that of the training before
    optimizer = llm.optimizer = cgpt.AdamW(llm.trainable, weight_decay=0.0)
    for _ in range(steps):
        slope = BETA / (1 + np.exp(margins(llm, reference, preferred, rejected)))
        for answers, sign in ((preferred, 1.0), (rejected, -1.0)):
            lengths = np.diff(answers.offsets)
            weights = np.repeat(sign * slope / len(slope), lengths)
            llm.trainable.forward(
                answers.ids, answers.targets, weights, offsets=answers.offsets, scale=1.0
            )
            llm.trainable.backward()  # adds to the gradients
        optimizer.step(lr=5e-4, clip=1.0)
    return float(margins(llm, reference, preferred, rejected).mean())


def preferring(llm: cgpt.LLM) -> float:
    """The share of the questions to which the polite answer is the likelier one, per token."""
    found = []
    for answers in (POLITE, SHORT):
        laid = laid_out(llm, answers)
        counted = np.add.reduceat(laid.targets >= 0, laid.offsets[:-1])
        found.append(log_likelihood(llm, laid) / counted)
    return float((found[0] > found[1]).mean())


def show(llm: cgpt.LLM, when: str) -> None:
    answers = [
        "".join(cgpt.ChatSession(llm, cgpt.SamplingConfig(temperature=0.0)).reply(question))
        for question in QUESTIONS[:3]
    ]
    print(
        f"{when}: prefers the polite answer to {preferring(llm):.0%} of the questions; "
        + " ".join(answers)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=10, metavar="N")
    parser.add_argument(
        "--epochs", type=int, default=60, metavar="N", help="of the training before"
    )
    wanted = parser.parse_args(arguments)

    config = cgpt.GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=48, vocab_size=400)
    llm = cgpt.LLM.from_texts([*QUESTIONS, *POLITE, *SHORT], config, kind="chars")
    both = [
        dialogue(*pair)
        for answers in (POLITE, SHORT, SHORT)
        for pair in zip(QUESTIONS, answers, strict=True)
    ]
    cgpt.Trainer(
        llm, cgpt.TrainConfig(epochs=wanted.epochs, batch_tokens=256, lr=3e-3, warmup=4), "finetune"
    ).fit(both)
    show(llm, "before")
    print(f"mean margin after {wanted.steps} steps: {tune(llm, wanted.steps):.2f}")
    show(llm, "after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
