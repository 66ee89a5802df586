"""A training interrupted at any instant, and fitted again, has the bits of one that was not."""

from __future__ import annotations

import dis
import random
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_llm import DIALOGUES, TEXTS, small_llm

import cgpt
from cgpt.checkpoint.saving import save_model_binary
from cgpt.config import TrainConfig
from cgpt.llm import LLM, load_model_binary
from cgpt.nn.planning import make_plan
from cgpt.optim.adamw import AdamW
from cgpt.optim.lora import Lora
from cgpt.optim.moving_average import with_average
from cgpt.runtime.interrupts import Interrupts, uninterrupted
from cgpt.training.trainer import Trainer

BENCH = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "bench_interrupt.py"))
HERE = str(Path(cgpt.__file__).parent)
PLAIN = TrainConfig(
    epochs=3,
    batch_tokens=32,
    grad_accum=2,
    lr=3e-3,
    warmup=1,
    dropout=0.1,
    seed=7,
    optimizer="adamw",
)
FORMS = {
    "plain": PLAIN,
    "muon": replace(PLAIN, optimizer="muon", freeze=("wpe*",)),
    "split": replace(PLAIN, val_fraction=0.3, patience=4),
    "ema": replace(PLAIN, ema=0.9, val_fraction=0.2, eval_every=1),
    "lora": replace(PLAIN, ema=0.9, val_fraction=0.3, lora_rank=2, max_steps=3),
}
NOP = dis.opmap["NOP"]  # where CPython never looks for something to raise
SHAPE = {"n_layer": 1, "n_embd": 16}


class Boom(BaseException):
    pass


def trainer_of(form: str) -> tuple[LLM, Callable[[], Any]]:
    llm = small_llm(**SHAPE)
    phase, documents = ("finetune", DIALOGUES) if form == "lora" else ("pretrain", TEXTS)
    return llm, partial(Trainer(llm, FORMS[form], phase).fit, documents)


def outcome(llm: LLM) -> dict[str, Any]:
    found = BENCH["outcome"](llm)
    return found


def instructions(limit: int) -> tuple[Callable[..., Any], list[int]]:
    """A trace function that raises Boom at that instruction of cgpt, and how many there were."""
    count = [0]

    def trace(frame: Any, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_code[frame.f_lasti] != NOP:
            count[0] += 1
            if count[0] == limit:
                raise Boom
        return trace

    return trace, count


def traced(fit: Callable[[], Any], limit: int = 0) -> int:
    trace, count = instructions(limit)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fit()
    finally:
        sys.settrace(before)
    return count[0]


@cache
def undisturbed(form: str) -> tuple[dict[str, Any], int]:
    """What a training comes to, and how many instructions it has."""
    llm, fit = trainer_of(form)
    count = traced(fit)
    assert llm.training_state.step > 2
    return outcome(llm), count


@pytest.mark.parametrize("form", FORMS)
def test_an_exception_at_any_instruction_changes_no_bit(form: str, tmp_path: Path) -> None:
    expected, count = undisturbed(form)
    rng = random.Random(form)
    # The last instructions end the phase and give the result; there are few of them.
    limits = [rng.randrange(1, count) for _ in range(12)] + [
        count - rng.randrange(300) for _ in range(6)
    ]
    for limit in limits:
        llm, fit = trainer_of(form)
        with pytest.raises(Boom):
            traced(fit, limit)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if llm.training_state.step and form != "lora":
            llm = load_model_binary(save_model_binary(llm, tmp_path / "m.bin"))
            fit = partial(Trainer(llm, FORMS[form]).fit, TEXTS)
        fit()
        assert outcome(llm) == expected, f"instruction {limit} of {count}"


@pytest.mark.parametrize(
    ("form", "exceptions"),
    [*((form, False) for form in BENCH["FORMS"]), ("split", True), ("ema lora", True)],
)
def test_interrupts_at_random_times_change_no_bit(form: str, exceptions: bool) -> None:
    llm, fit = BENCH["fresh"](form)
    began = time.perf_counter()
    fit()
    seconds, expected = time.perf_counter() - began, outcome(llm)
    llm, _ = BENCH["disturbed"](form, seconds, random.Random(form), exceptions=exceptions, most=2)
    assert outcome(llm) == expected


def test_what_is_disturbed_can_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With updates that are a loop in Python the test above must fail."""

    def interruptible(operations: Any) -> None:
        for one in operations:
            one()

    expected, _ = undisturbed("plain")
    monkeypatch.setattr("cgpt.training.trainer.uninterrupted", interruptible)
    found = 0
    code = interruptible.__code__
    for limit in range(1, 200, 7):
        llm, fit = trainer_of("plain")
        count = [0]

        def trace(
            frame: Any, event: str, arg: object, count: list[int] = count, limit: int = limit
        ) -> Any:
            if frame.f_code is code:
                frame.f_trace_opcodes = True
                count[0] += event == "opcode"
                if count[0] == limit:
                    count[0] += 1
                    raise Boom
            return trace

        sys.settrace(trace)
        try:
            fit()
        except Boom:
            sys.settrace(None)
            fit()
        finally:
            sys.settrace(None)
        found += outcome(llm) != expected
    assert found


# How Ctrl-C is taken


def test_the_first_interrupt_is_taken_behind_the_step() -> None:
    llm = small_llm(**SHAPE)
    seen: list[int] = []

    def watch(progress: cgpt.training.trainer.Progress) -> None:
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        seen.append(progress.step)  # so it was not raised in here

    with pytest.raises(KeyboardInterrupt):
        Trainer(llm, PLAIN).fit(TEXTS, watch)
    assert seen == [1, 2] and llm.training_state.step == 2 and llm.training_state.unfinished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_is_taken_at_once_and_a_third_not_at_all() -> None:
    llm = small_llm(**SHAPE)
    passed: list[int] = []

    def watch(progress: cgpt.training.trainer.Progress) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            passed.append(progress.step)

    with pytest.raises(KeyboardInterrupt):
        Trainer(llm, PLAIN).fit(TEXTS, watch)
    assert passed == [1]
    Trainer(llm, PLAIN).fit(TEXTS)
    assert outcome(llm) == undisturbed("plain")[0]


@pytest.mark.parametrize("form", ["split", "ema"])
def test_an_evaluation_is_broken_off_and_made_again(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, fit = trainer_of(form)
    summed_loss = llm.summed_loss

    def broken(*given: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return summed_loss(*given)

    monkeypatch.setattr(llm, "summed_loss", broken)
    with pytest.raises(KeyboardInterrupt):
        fit()
    state = llm.training_state
    assert state.history[-1][3] is None and state.step == state.history[-1][1]
    monkeypatch.undo()
    fit()
    assert outcome(llm) == undisturbed(form)[0]


def test_an_interrupt_behind_the_end_does_not_train_twice() -> None:
    llm = small_llm(**SHAPE)

    class Late(cgpt.training.callbacks.Callback):
        def on_end(self, result: cgpt.training.trainer.FitResult) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trainer(llm, FORMS["split"]).fit(TEXTS, callbacks=[Late()])
    assert llm.training_state.unfinished
    result = Trainer(llm, FORMS["split"]).fit(TEXTS)
    expected = small_llm(**SHAPE)
    assert replace(result, seconds=0) == replace(
        Trainer(expected, FORMS["split"]).fit(TEXTS), seconds=0
    )
    assert outcome(llm) == outcome(expected)


@pytest.fixture
def own_handler() -> Iterator[list[int]]:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGINT, before)


def test_a_handler_of_the_program_stays(own_handler: list[int]) -> None:
    handler, seen = signal.getsignal(signal.SIGINT), []

    def watch(progress: cgpt.training.trainer.Progress) -> None:
        seen.append(signal.getsignal(signal.SIGINT) is handler)
        signal.raise_signal(signal.SIGINT)

    result = Trainer(small_llm(**SHAPE), PLAIN).fit(TEXTS, watch)
    assert result.stopped == "done" and all(seen) and len(own_handler) == len(seen) == result.steps
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_handler_that_a_callback_sets_stays() -> None:
    def mine(number: int, frame: object) -> None:
        pass

    try:
        Trainer(small_llm(**SHAPE), PLAIN).fit(
            TEXTS, lambda progress: signal.signal(signal.SIGINT, mine)
        )
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_training_inside_another_is_interrupted_first() -> None:
    outer, inner = small_llm(**SHAPE), small_llm(**SHAPE)

    def stop(progress: cgpt.training.trainer.Progress) -> None:
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)

    def watch(progress: cgpt.training.trainer.Progress) -> None:
        if progress.step == 2:
            Trainer(inner, PLAIN).fit(TEXTS, stop)

    with pytest.raises(KeyboardInterrupt):
        Trainer(outer, PLAIN).fit(TEXTS, watch)
    assert (outer.training_state.step, inner.training_state.step) == (2, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for llm in (outer, inner):
        Trainer(llm, PLAIN).fit(TEXTS)
        assert outcome(llm) == undisturbed("plain")[0]


def test_other_threads_train_without_handlers() -> None:
    llm = small_llm(**SHAPE)
    seen: list[Any] = []
    thread = threading.Thread(
        target=lambda: Trainer(llm, PLAIN).fit(
            TEXTS, lambda progress: seen.append(signal.getsignal(signal.SIGINT))
        )
    )
    thread.start()
    thread.join()
    assert set(seen) == {signal.default_int_handler}
    assert outcome(llm) == undisturbed("plain")[0]


def test_no_memory_in_the_middle_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for call in range(1, 9):
        llm, fit = trainer_of("split")
        forward, calls = llm.gpt.forward, iter(range(1, 1000))

        def failing(
            *given: Any, call: int = call, forward: Any = forward, calls: Any = calls, **named: Any
        ) -> float:
            loss = forward(*given, **named)
            if next(calls) == call:
                raise MemoryError
            return float(loss)

        monkeypatch.setattr(llm.gpt, "forward", failing)
        with pytest.raises(MemoryError):
            fit()
        assert llm.gpt.arena.grad is not None and not llm.gpt.arena.grad.any()
        monkeypatch.undo()
        fit()
        assert outcome(llm) == undisturbed("split")[0]


def test_buffers_that_were_being_placed_are_placed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = small_llm(**SHAPE)
    before = llm.loss(TEXTS[:1])

    def failing(*arguments: Any) -> None:
        make_plan(*arguments)
        raise MemoryError

    monkeypatch.setattr("cgpt.models.base.make_plan", failing)
    with pytest.raises(MemoryError):
        llm.loss(TEXTS * 3)
    monkeypatch.undo()
    assert llm.loss(TEXTS[:1]) == before


# The parts


def test_operations_are_done_in_order_up_to_one_that_fails() -> None:
    done: list[int] = []
    uninterrupted([partial(done.append, 1), partial(done.append, 2)])
    with pytest.raises(ValueError):
        uninterrupted([partial(done.append, 3), partial(done.remove, 9), partial(done.append, 4)])
    assert done == [1, 2, 3]


@pytest.mark.parametrize("make", [AdamW, partial(Lora, rank=2, alpha=4.0)])
def test_weights_come_back_behind_the_average_whatever_happens(make: Any) -> None:
    llm = small_llm(**SHAPE)
    optimizer = make(llm.gpt)
    average = np.zeros_like(optimizer.arena.data)
    before = optimizer.arena.data.tobytes(), llm.gpt.arena.data.tobytes()
    count = traced(lambda: with_average(average, optimizer, lambda: 0))
    for limit in range(1, count + 1):
        with pytest.raises(Boom):
            traced(lambda: with_average(average, optimizer, lambda: 0), limit)
        assert (optimizer.arena.data.tobytes(), llm.gpt.arena.data.tobytes()) == before, limit


def test_interrupts_say_when_they_are_pending() -> None:
    interrupts = Interrupts()
    interrupts.install()
    signal.raise_signal(signal.SIGINT)
    assert interrupts.pending
    with pytest.raises(KeyboardInterrupt):
        interrupts.restore()
    interrupts.check()  # raised once
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
