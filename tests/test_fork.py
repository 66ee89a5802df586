"""Children of os.fork() while other threads of the parent compute, load and save."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# A child that hangs is killed by its alarm, so that the parent sees it as one that failed.
CHILD = """
def status_of_child(seconds):
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        try:
            right = check()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            right = False
        os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1]
"""

FORKS = (
    CHILD
    + """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
from small_llm import TEXTS, small_llm
from cgpt.kernels import set_num_threads
set_num_threads(2)
{prepare}
stop = threading.Event()
def compute():
    while not stop.is_set():
        work()
threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads: thread.start()
failed = 0
for _ in range({times}):
    failed += status_of_child(30) != 0
stop.set()
for thread in threads: thread.join()
assert not failed, failed
"""
)

SCORE = """
llm = small_llm(n_embd=64, block_size=64)
expected = llm.score(TEXTS[0]).logprobs.tobytes()
long = [[i % 200 for i in range(64)]] * 8
def work():
    llm.gpt.losses(long, long)
def check():
    return llm.score(TEXTS[0]).logprobs.tobytes() == expected
"""

# Forked while another thread is in the middle of something; the child must not wait for it.
PAUSED = (
    CHILD
    + """
import os, signal, sys, threading
sys.path.insert(0, {tests!r})
import numpy as np
from small_llm import TEXTS, small_llm
entered, go = threading.Event(), threading.Event()
def pause():
    if threading.current_thread() is not threading.main_thread():
        entered.set()
        go.wait(60)
{prepare}
thread = threading.Thread(target=work)
thread.start()
assert entered.wait(20)
failed = status_of_child(20)
go.set()
thread.join()
assert not failed, failed
"""
)

# A plan for inference is being made.
PLANNING = """
import cgpt.models.base as base
llm = small_llm(n_embd=48)
gpt = llm.gpt
short, long = np.zeros((1, 8), np.int32), np.zeros((6, 64), np.int32)
expected = gpt.forward(long, long)
make_plan = base.make_plan
def slowly(*arguments):
    plan = make_plan(*arguments)
    pause()
    return plan
base.make_plan = slowly
def work():
    gpt.forward(short, short, backward=False)
def check():
    return gpt.forward(long, long) == expected and not gpt.backward()
"""

# What is made at the first use, and kept.
FIRST_USE = """
import cgpt.nn.decoder as inference
import cgpt.tokenizers.vocabulary as vocabulary
one = small_llm()
{name} = {module}.{name}
def slowly(*arguments):
    pause()
    return {name}(*arguments)
{module}.{name} = slowly
def work():
    one.generate(TEXTS[0][:4], max_new_tokens=4)
def check():
    return one.generate(TEXTS[0][:4], max_new_tokens=4) \\
        == small_llm().generate(TEXTS[0][:4], max_new_tokens=4)
"""
DECODER = FIRST_USE.format(module="inference", name="bind")
ENCODER = FIRST_USE.format(module="vocabulary", name="lattice")


def test_a_child_scores_while_its_parent_does() -> None:
    run(FORKS.format(tests=str(ROOT / "tests"), prepare=SCORE, times=20))


@pytest.mark.parametrize("prepare", [PLANNING, DECODER, ENCODER])
def test_a_child_does_not_wait_for_another_thread(prepare: str) -> None:
    run(PAUSED.format(tests=str(ROOT / "tests"), prepare=prepare))


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=700
    )
    assert done.returncode == 0, done.stderr[-2000:]


WRITING = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from small_llm import small_llm
import cgpt.checkpoint.manager as manager
from cgpt import CheckpointManager, load_model_binary
from cgpt.optim.adamw import AdamW

llm = small_llm()
llm.optimizer = AdamW(llm.gpt)
llm.training_state.phase, llm.training_state.step = "pretrain", 1
one = CheckpointManager({folder!r}, "last", every=1)
entered, go = threading.Event(), threading.Event()
describe = manager._describe
def slowly(*arguments):
    entered.set()
    go.wait(20)
    describe(*arguments)
manager._describe = slowly
one.step_done(llm)
assert entered.wait(20)         # the thread holds the folder's lock
read, write = os.pipe()
child = os.fork()
if not child:
    signal.alarm(60)
    manager._describe = describe
    one.wait()                  # nothing is being written here
    os.write(write, b"w")
    time.sleep(600)             # as a worker that lives on
assert os.read(read, 1) == b"w"
signal.alarm(40)
go.set()
one.wait()
one.save_last(llm)              # the child does not keep the lock
os.kill(child, signal.SIGKILL)
child = os.fork()
if not child:
    signal.alarm(30)
    one.step_done(llm)          # a child that trains writes with a thread of its own
    one.close()
    load_model_binary(os.path.join({folder!r}, "checkpoint_last.bin"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
one.close()
"""


def test_a_child_does_not_wait_for_its_parents_writer(tmp_path: Path) -> None:
    run(WRITING.format(tests=str(ROOT / "tests"), folder=str(tmp_path)))


LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "cached_property"}


def locks_of(source: str) -> set[str]:
    """Names of locks that a module makes or takes from where no child puts them right."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in (
            "threading",
            "functools",
            "multiprocessing",
        ):
            found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module in (
            "threading",
            "functools",
            "multiprocessing",
        ):
            found |= {alias.name for alias in node.names}
    return found & LOCKS


def test_every_lock_is_made_anew_in_a_child() -> None:
    found = {
        path.name: locks
        for path in sorted((ROOT / "cgpt").rglob("*.py"))
        if (locks := locks_of(path.read_text("utf-8")))
    }
    assert found == {"forking.py": {"RLock", "cached_property"}}
    assert locks_of("import threading\nx = threading.Lock()") == {"Lock"}
    assert locks_of("from functools import cached_property") == {"cached_property"}
