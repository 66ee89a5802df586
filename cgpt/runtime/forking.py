"""What a child of os.fork() renews: locks and threads whose owners are not in it.

A lock that another thread held at the time of the fork is never given back in the child, and a
buffer that thread was writing stays half written. So no module of the package makes a lock of
`threading` itself: it takes a `ForkLock`, or registers with `renew_after_fork` what else is to be
put right.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """An object that a child process puts right before it is used there."""

    def after_fork(self) -> None:
        """Called once in the child, before anything else runs."""


_RENEWED: WeakSet[Renewed] = WeakSet()


def renew_after_fork(owner: Renewed) -> None:
    """Call owner.after_fork() in every child of os.fork() for as long as the owner lives."""
    _RENEWED.add(owner)


def _renew() -> None:
    for owner in list(_RENEWED):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class ForkLock:
    """A lock for `with` that its thread may take again; free in a child of os.fork()."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Free, whoever held it."""
        self._lock = threading.RLock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, as threading.RLock.acquire; whether it was free."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property:
        """functools.cached_property without the lock that it has before Python 3.12.

        Of two threads that ask first at once each computes the value, and one of them stays.
        """

        def __init__(self, compute: Any) -> None:
            self._compute, self.__doc__ = compute, compute.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            return vars(instance).setdefault(self._name, self._compute(instance))
