"""What ends a call before it is done: a token that somebody sets, a deadline, or its own `end`."""

from __future__ import annotations

from time import monotonic
from typing import Any, Protocol

from cgpt.errors import CgptError, ConfigError
from cgpt.validation import check_float


class CancelToken(Protocol):
    """Anything that says whether it is set: a threading.Event, an own class."""

    def is_set(self) -> bool:
        """Whether the call that was given this token is to end."""
        ...


class Cancelled(CgptError):
    """A call that was ended by its token or deadline and has no result to give. code: cancelled."""

    code = "cancelled"


class Limit:
    """Whether what is under way is to end.

    cancel   a CancelToken or None
    timeout  seconds from `begin` on, or None for no deadline
    Any thread may ask, and call `end`. Raises ConfigError naming an argument that is no such thing.
    """

    __slots__ = ("_deadline", "_ended", "_is_set", "_timeout")

    def __init__(
        self, owner: str, cancel: CancelToken | None = None, timeout: float | None = None
    ) -> None:
        is_set: Any = None if cancel is None else getattr(cancel, "is_set", None)
        if cancel is not None and not callable(is_set):
            raise ConfigError(
                "{owner}: cancel must have a method is_set, as threading.Event has, found {kind}",
                owner=owner,
                kind=type(cancel).__name__,
            )
        if timeout is not None:
            check_float(owner, "timeout", timeout, 0.0)
        self._is_set, self._timeout = is_set, timeout
        self._deadline: float | None = None
        self._ended = False

    def begin(self) -> None:
        """The seconds of the timeout run from now on; the first call counts."""
        if self._timeout is not None and self._deadline is None:
            self._deadline = monotonic() + self._timeout

    def end(self) -> None:
        """As if the token was set."""
        self._ended = True

    def reached(self) -> bool:
        """Whether to end now."""
        return bool(
            self._ended
            or (self._is_set is not None and self._is_set())
            or (self._deadline is not None and monotonic() >= self._deadline)
        )

    def check(self, owner: str) -> None:
        """Raises Cancelled where it is reached."""
        if self.reached():
            raise Cancelled(
                "{owner}: ended by its cancel token or timeout before it was done; give it "
                "more time or less to do",
                owner=owner,
            )


def check(limit: Limit | None, owner: str) -> None:
    """Raises Cancelled where there is a limit that is reached; it is begun with the first call."""
    if limit is not None:
        limit.begin()
        limit.check(owner)
