"""A chat session that says what a test lets it say."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace

from cgpt.generation.results import Dropped


class Said:
    """The pieces of one answer, streamed."""

    def __init__(self, pieces: Generator[str, None, None]) -> None:
        self.result = SimpleNamespace(dropped=Dropped())
        self.close = pieces.close
        self._pieces = pieces

    def __iter__(self) -> Generator[str, None, None]:
        return self._pieces


class Speaker:
    """A session in which every answer is what `pieces()` yields."""

    dropped = Dropped()

    def __init__(self, pieces: Callable[[], Generator[str, None, None]]) -> None:
        self._pieces = pieces

    def reply(self, text: str) -> Said:
        return Said(self._pieces())
