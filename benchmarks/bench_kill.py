"""SIGKILL at random instants of two trainings that share a checkpoint folder.

    python benchmarks/bench_kill.py --kills 1000 --json

Two processes train in one folder at the same time, each both of its phases, and save every step
(the last state, the one before it, the best epochs). Each is killed at random instants, from its
start to its end, and started again: it then looks for its own checkpoint, as `cgpt resume` does,
which must never be less far than it had come.
Once both have ended, their models, moments and training states are compared, to the bit, with
those of trainings that nothing disturbed, and every file that is left is checked. Then comes the
next round, with other seeds, until there were enough kills. Exit code 1 where anything differs.
Kills need no disk: the files lie in memory (/dev/shm) where there is such a folder, or where
CGPT_BENCH_DIR says.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cgpt import TrainConfig, kernels, load_model_auto, save_model_binary
from cgpt.checkpoint.compare import compare_models
from cgpt.checkpoint.info import describe
from cgpt.checkpoint.latest import checkpoints_in, unfinished
from cgpt.checkpoint.manager import CheckpointManager
from cgpt.config import RunConfig
from cgpt.errors import CheckpointError
from cgpt.fileio.atomic import PREFIX
from cgpt.training.run import TrainingRun

FACTS = (
    ("长江有多长", "长江全长约六千公里。"),
    ("黄河有多长", "黄河全长约五千公里。"),
    ("天空是什么颜色", "天空是蓝色的。"),
    ("你好", "你好，很高兴见到你。"),
    ("一年有几个季节", "一年有四个季节。"),
    ("谢谢", "不客气。"),
)
MAY_DIFFER = ("seconds",)  # of the training states of two runs of one training


class Damage(Exception):
    """A process that was to go on ended with an error, or with other bits."""


@dataclass
class Training:
    """One of the trainings of a round, and the process that it is in at the moment."""

    folder: Path
    seed: int
    process: int = 0
    ends: float = 0.0  # when it is killed
    done: bool = False
    reached: tuple[int, ...] = ()  # how far its checkpoints have come
    stretch: float = 1.0  # of its lives, while it does not come further

    @property
    def out(self) -> Path:
        """Its finished model."""
        return self.folder / f"out_{self.seed}.bin"

    @property
    def report(self) -> Path:
        """What it failed with."""
        return self.folder / f"error_{self.seed}.txt"

    def config(self, epochs: int) -> RunConfig:
        """A tiny model with dropout, a held-out split and an average of its weights."""
        train = TrainConfig(
            epochs=epochs,
            batch_tokens=64,
            lr=5e-3,
            warmup=3,
            dropout=0.1,
            val_fraction=0.2,
            ema=0.9,
        )
        return RunConfig(
            pretrain=(str(self.folder.parent / "texts.json"),),
            chat=(str(self.folder.parent / "chats.json"),),
            preset="tiny",
            n_layer=1,
            n_head=2,
            n_embd=16,
            block_size=32,
            tokenizer="chars",
            seed=self.seed,
            pretrain_train=train,
            finetune_train=train,
        )


@dataclass
class Result:
    """What was done and found; instants: where the kills came."""

    kills: int = 0
    rounds: int = 0
    begun: int = 0  # processes that found no checkpoint yet
    resumed: int = 0  # and that found one
    finished: int = 0  # trainings whose bits were compared
    instants: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def write_data(folder: Path) -> None:
    """The texts and dialogues of all trainings."""
    texts = [f"{question}，{answer}" for question, answer in FACTS]
    dialogues = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in FACTS
    ]
    (folder / "texts.json").write_text(json.dumps(texts), "utf-8")
    (folder / "chats.json").write_text(json.dumps(dialogues), "utf-8")


def refuse(error: CheckpointError) -> NoReturn:
    """No kill may leave a file that cannot be used."""
    raise Damage(f"a checkpoint cannot be used: {error}")


def go_on(training: Training, epochs: int) -> None:
    """What a process does: find the training's checkpoint or begin, train, save the model."""
    if training.out.exists():  # killed between its end and its exit
        return
    kernels.set_num_threads(1)
    found = [
        one
        for one in unfinished(training.folder, refuse)
        if one.state.run.get("seed") == training.seed
    ]
    if len(found) > 1:
        raise Damage(f"{len(found)} checkpoints of one training: {found}")
    if found:
        run = TrainingRun.resume(load_model_auto(found[0].path))
    else:
        run = TrainingRun.start(training.config(epochs))
        run.llm.metadata["out"] = str(training.out)
    manager = CheckpointManager(training.folder, "best+last", keep=2, every=1)
    for phase in run.phases:
        run.fit_phase(phase, on_checkpoint=manager.step_done)
    manager.close()
    save_model_binary(run.llm, training.out)
    manager.save_last(run.llm)


def start(work: Callable[[], object], report: Path) -> int:
    """A forked process that does this; what it fails with goes to the file `report`."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        report.write_text(traceback.format_exc(), "utf-8")
    finally:
        os._exit(code)


def undisturbed(folder: Path, seed: int, epochs: int) -> Path:
    """The model of the same training in one piece, without checkpoints."""
    training = Training(folder / "whole", seed)
    training.folder.mkdir(exist_ok=True)

    def work() -> None:
        kernels.set_num_threads(1)
        run = TrainingRun.start(training.config(epochs))
        for phase in run.phases:
            run.fit_phase(phase)
        save_model_binary(run.llm, training.out)

    process = start(work, training.report)
    if os.waitpid(process, 0)[1]:
        raise Damage(training.report.read_text("utf-8"))
    return training.out


def disturb(
    trainings: list[Training], epochs: int, life: float, rng: random.Random, result: Result
) -> None:
    """Start, kill and start again until all trainings have ended."""
    while not all(one.done for one in trainings):
        for one in trainings:
            if not one.process and not one.done:
                see_that_nothing_is_lost(one)
                result.begun += not one.reached
                result.resumed += bool(one.reached)
                one.process = start(lambda one=one: go_on(one, epochs), one.report)
                one.ends = time.monotonic() + rng.uniform(0, life * one.stretch)
            elif one.process:
                look_after(one, result)
        time.sleep(0.0005)


def see_that_nothing_is_lost(training: Training) -> None:
    """Raises Damage where a training is not as far any more as it has been."""
    reached = max(
        (
            one.reached
            for one in checkpoints_in(training.folder, refuse)
            if one.state.run.get("seed") == training.seed
        ),
        default=(),
    )
    if reached < training.reached:
        raise Damage(
            f"seed {training.seed}: had come to {training.reached} (entries of the "
            f"history, phase, step, phases done), and is back at {reached}"
        )
    training.stretch = 1.0 if reached > training.reached else 1.3 * training.stretch
    training.reached = reached


def look_after(training: Training, result: Result) -> None:
    """See whether the process has ended, or end it when its time has come."""
    ended, status = os.waitpid(training.process, os.WNOHANG)
    if not ended and time.monotonic() < training.ends:
        return
    if not ended:
        os.kill(training.process, signal.SIGKILL)
        status = os.waitpid(training.process, 0)[1]
    training.process = 0
    if status == signal.SIGKILL:
        result.kills += 1
        saving = any(name.startswith(PREFIX) for name in os.listdir(training.folder))
        result.instants["while a file was written" if saving else "between two saves"] += 1
        training.done = False
    elif status:
        raise Damage(training.report.read_text("utf-8"))
    else:
        training.done = True


def compare(training: Training, whole: Path) -> None:
    """Raises Damage where a training came to other bits than the one in one piece."""
    found = compare_models(whole, training.out)
    state = {name: both for name, both in found["training_state"].items() if name not in MAY_DIFFER}
    parts = {
        "training_state": state,
        **{name: found[name] for name in ("tensors", "optimizer", "config", "vocabulary")},
    }
    if any(parts.values()):
        raise Damage(f"seed {training.seed}: other bits: {json.dumps(parts)[:2000]}")


def one_round(
    folder: Path, number: int, options: argparse.Namespace, rng: random.Random, result: Result
) -> None:
    """Two trainings in one folder, to their ends."""
    shared = folder / f"round_{number}"
    shared.mkdir()
    trainings = [Training(shared, 2 * number + i) for i in range(2)]
    wholes = [undisturbed(folder, one.seed, options.epochs) for one in trainings]
    try:
        disturb(trainings, options.epochs, options.life, rng, result)
    finally:
        for one in trainings:
            if one.process:
                os.kill(one.process, signal.SIGKILL)
                os.waitpid(one.process, 0)
    for one, whole in zip(trainings, wholes, strict=True):
        compare(one, whole)
        result.finished += 1
    for path in shared.glob("*.bin"):
        if not describe(path, verify=True)["verified"]:
            raise Damage(f"{path}: damaged")
    result.rounds += 1


def warm_up(folder: Path) -> float:
    """Let this process import all that its children need, so that they begin at once.

    Returns seconds in which a process comes some saves far on this machine.
    """
    kernels.set_num_threads(1)
    seconds = 0.0
    for name in ("first", "second"):
        training, began = Training(folder / name, 0), time.monotonic()
        training.folder.mkdir()
        go_on(training, 3)
        seconds = time.monotonic() - began
    return seconds


def measure(options: argparse.Namespace) -> Result:
    """Rounds until there were so many kills. Raises Damage."""
    result, rng, began = Result(), random.Random(options.seed), time.monotonic()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=os.environ.get("CGPT_BENCH_DIR", memory)) as place:
        folder = Path(place)
        write_data(folder)
        seconds = warm_up(folder)
        options.life = options.life or seconds
        while result.kills < options.kills:
            one_round(folder, result.rounds, options, rng, result)
            if not options.json:
                print(
                    f"{result.kills} kills, {result.finished} trainings with the same bits",
                    flush=True,
                )
    result.seconds = time.monotonic() - began
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12, help="of each phase")
    parser.add_argument(
        "--life",
        type=float,
        default=0.0,
        help="most seconds that a process lives before it is killed; 0: what a "
        "dozen saves take here",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        result = measure(options)
    except Damage as error:
        print(error, file=sys.stderr)
        return 1
    values: dict[str, Any] = {**vars(result), "instants": dict(result.instants), "wrong": 0}
    print(
        json.dumps(values)
        if options.json
        else "\n".join(f"{name}: {value}" for name, value in values.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
