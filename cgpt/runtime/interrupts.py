"""Updates that nothing can leave half done, and Ctrl-C taken between the steps of a training.

An update of several arrays and fields is a list of operations for `uninterrupted`; Ctrl-C is the
business of `Interrupts`.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

Operation = partial[Any]


def uninterrupted(operations: Sequence[Operation]) -> None:
    """Call them in order; no signal handler and no asynchronous exception comes in between.

    CPython runs handlers, and raises what other threads ask for, between the instructions of
    functions written in Python. Here it stays in C from the first operation to the last, since each
    is a `partial` of something written in C: a kernel, a ufunc, setitem, setattr, a method of a
    built-in type. (Not numpy.copyto, which calls Python to find out whose arrays it got.)
    An operation that fails ends the call, so what can fail comes first.
    """
    deque(map(partial.__call__, operations), maxlen=0)


class Interrupts:
    """Ctrl-C, from `install` to `restore`: noted, and raised by `check`; a second one at once.

    So it is where Ctrl-C would raise KeyboardInterrupt: in the main thread, under Python's own
    handler or that of another Interrupts around this one. Elsewhere nothing changes. It is raised
    once: what comes while that is on its way up is left out, so that cleaning up is not broken off.

    pending  whether one was noted
    at_once  set it where the first one may be raised wherever it comes
    """

    def __init__(self) -> None:
        self.pending = False
        self.at_once = False
        self._raised = False
        self._leaving = False
        self._before: Any = None

    def install(self) -> None:
        """Take Ctrl-C from now on."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler or isinstance(
            getattr(before, "__self__", None), Interrupts
        ):
            self._before = before
            with suppress(ValueError):  # an interpreter inside the main one has no signals
                signal.signal(signal.SIGINT, self._on_signal)

    def restore(self) -> None:
        """Give Ctrl-C back. Raises KeyboardInterrupt where one is still pending."""
        self._leaving = True
        if signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, self._before)
        self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt where one is pending."""
        if self.pending and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._raised:
            return
        if (self.pending or self.at_once) and not self._leaving:
            self._raised = True
            raise KeyboardInterrupt
        self.pending = True
