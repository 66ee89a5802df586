"""Ctrl-C at random instants of `Trainer.fit`, then `fit` again: the bits of a training without.

    python benchmarks/bench_interrupt.py --interrupts 100

Every form of training is interrupted until it has had its share; a part of the interrupts come
twice or three times at once. `--exceptions` raises an exception in the training's thread instead,
as PyThreadState_SetAsyncExc does: at any instruction, whatever the signal handlers are.
Exit code 1 where a training ended with other bits.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cgpt import LLM, GPTConfig, Message, TrainConfig, Trainer

FACTS = (
    ("长江有多长", "长江全长约六千公里。"),
    ("黄河有多长", "黄河全长约五千公里。"),
    ("天空是什么颜色", "天空是蓝色的。"),
    ("你好", "你好，很高兴见到你。"),
    ("一年有几个季节", "一年有四个季节。"),
    ("谢谢", "不客气。"),
)
TEXTS = [question + "，" + answer * 3 for question, answer in FACTS] * 4
DIALOGUES = [
    (Message("user", question), Message("assistant", answer)) for question, answer in FACTS
] * 4
PLAIN = TrainConfig(
    epochs=3,
    batch_tokens=64,
    grad_accum=2,
    lr=3e-3,
    warmup=3,
    dropout=0.1,
    seed=7,
    optimizer="adamw",
)
FORMS: dict[str, TrainConfig] = {
    "plain": PLAIN,
    "muon": replace(PLAIN, optimizer="muon"),
    "lora": replace(PLAIN, lora_rank=2),
    "split": replace(PLAIN, val_fraction=0.2, patience=3),
    "ema": replace(PLAIN, ema=0.9, val_fraction=0.2, eval_every=3),
    "ema lora": replace(PLAIN, ema=0.9, val_fraction=0.2, lora_rank=2, max_steps=7),
}


class Boom(BaseException):
    """What `--exceptions` raises."""


def fresh(form: str) -> tuple[LLM, Callable[[], Any]]:
    """A model and what fits it, always the same."""
    config = FORMS[form]
    dialogues = bool(config.lora_rank)
    llm = LLM.from_texts(
        TEXTS,
        GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=400),
        kind="chars",
    )
    trainer = Trainer(llm, config, "finetune" if dialogues else "pretrain")
    return llm, lambda: trainer.fit(DIALOGUES if dialogues else TEXTS)


def outcome(llm: LLM) -> dict[str, Any]:
    """All that a training comes to but the time that it took."""
    state = llm.training_state.to_dict()
    state.pop("seconds")
    assert llm.optimizer is not None
    arena = llm.optimizer.arena
    return {
        "state": state,
        "steps": llm.optimizer.step_count,
        "arrays": [one.tobytes() for one in (llm.gpt.arena.data, arena.data, arena.m, arena.v)],
        "left over": (llm.best_weights, llm.average),
    }


def interrupt(thread: int, times: list[float], over: threading.Event) -> None:
    """SIGINT after each of these seconds, unless the training is over by then."""
    for seconds in times:
        if over.wait(seconds):
            return
        os.kill(os.getpid(), signal.SIGINT)


def explode(thread: int, times: list[float], over: threading.Event) -> None:
    """The same by an exception that is raised in the thread."""
    if not over.wait(times[0]):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Boom))


def disturbed(
    form: str, seconds: float, rng: random.Random, *, exceptions: bool = False, most: int = 1 << 30
) -> tuple[LLM, int]:
    """A model fitted again after every interrupt, up to so many, and how many there were.

    seconds  that the training takes undisturbed: the time of an interrupt is drawn from them
    """
    llm, fit = fresh(form)
    finished: list[Any] = []
    count = 0
    while not finished:
        over = threading.Event()
        times = [
            rng.uniform(0, seconds) * rng.random(),
            *[rng.choice((0.0, rng.uniform(0, 2e-3))) for _ in range(rng.choice((0, 0, 1, 2)))],
        ]
        thread = threading.Thread(
            target=explode if exceptions else interrupt, args=(threading.get_ident(), times, over)
        )
        try:
            if count < most:
                thread.start()
            finished.append(fit())
            over.set()
        except (KeyboardInterrupt, Boom):
            count += 1
        finally:
            over.set()
        while thread.is_alive():  # what comes late is not of the training
            try:
                thread.join()
                time.sleep(0)
            except (KeyboardInterrupt, Boom):
                continue
    return llm, count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--interrupts", type=int, default=100, help="in all")
    parser.add_argument("--exceptions", action="store_true", help="asynchronous exceptions instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    wrong = total = 0
    report: dict[str, Any] = {}
    for form in FORMS:
        fresh(form)[1]()  # the first takes longer than the others
        began = time.perf_counter()
        llm, fit = fresh(form)
        fit()
        seconds, expected, count, tries = time.perf_counter() - began, outcome(llm), 0, 0
        while count < options.interrupts / len(FORMS):
            llm, more = disturbed(form, seconds, rng, exceptions=options.exceptions)
            tries, count = tries + 1, count + more
            wrong += outcome(llm) != expected
        total += count
        report[form] = {"interrupts": count, "trainings": tries}
        if not options.json:
            print(
                f"{form:10} {count:4} interrupts in {tries:3} trainings, other bits in all so "
                f"far: {wrong}",
                flush=True,
            )
    if options.json:
        print(json.dumps({"interrupts": total, "wrong": wrong, "forms": report}))
    else:
        print(f"{total} interrupts, {wrong} trainings with other bits")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
