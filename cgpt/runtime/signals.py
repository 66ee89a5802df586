"""Signals handled for a while: what is put back afterwards, and SIGTERM as an exception."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class Terminated(BaseException):
    """SIGTERM or a closed terminal; `code` is the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextmanager
def handling(handlers: dict[str, Callable[[int, FrameType | None], Any] | int]) -> Iterator[None]:
    """Signals by name handled so inside the block; those the system lacks are left out."""
    before: dict[int, Any] = {}
    try:
        for name, handler in handlers.items():
            number = getattr(signal, name, None)
            if number is not None:
                with suppress(ValueError):  # not in the main thread
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def termination_raises() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated, so that what must be saved is saved."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    with handling({"SIGTERM": stop, "SIGHUP": stop}):
        yield


def leave_terminal() -> None:
    """The terminal is gone: what would be written to it goes nowhere, without an error."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # one that hung up is no tty any more
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
