"""Contexts that are kept between calls: what a prompt has in common with an earlier one is not
inferred again."""

from __future__ import annotations

from collections.abc import Sequence

from cgpt.generation.context import Context
from cgpt.nn.inference import Inference

MOST = 16  # contexts that are kept
MOST_BYTES = 1 << 28  # of all their keys and values; one is always kept


class PrefixCache:
    """The contexts of a model that nobody uses at the moment.

    What is kept is forgotten as soon as the model's weights are not those that made it, whoever
    changed them. Any number of threads may take and give: a list's own steps are enough for that,
    so there is no lock.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Context, bytes]] = []  # with the weights' mark; last used last

    def take(self, gpt: Inference, prompt: Sequence[int]) -> tuple[Context, bytes]:
        """A context that has as much of the beginning of `prompt` as any, and what `give` wants.

        Of one that has much more, with which another dialogue may go on, the beginning is copied.
        """
        mark = gpt.weights_mark()
        for one in tuple(self._kept):
            if one[0].gpt is not gpt or one[1] != mark:
                self._remove(one)
        best = max(tuple(self._kept), key=lambda one: one[0].common(prompt), default=None)
        if best is None:
            return Context(gpt), mark
        context, common = best[0], best[0].common(prompt)
        if common < len(context) - len(context) // 4:
            return context.copy(common), mark
        return (context if self._remove(best) else Context(gpt)), mark

    def give(self, taken: tuple[Context, bytes]) -> None:
        """Keep a context that was taken."""
        self._kept.append(taken)
        most = max(1, min(MOST, MOST_BYTES // taken[0].cache.nbytes))
        for one in tuple(self._kept)[:-most]:
            self._remove(one)

    def _remove(self, one: tuple[Context, bytes]) -> bool:
        """Whether it was there: another thread may have taken it."""
        try:
            self._kept.remove(one)
        except ValueError:
            return False
        return True

    def __len__(self) -> int:
        return len(self._kept)
