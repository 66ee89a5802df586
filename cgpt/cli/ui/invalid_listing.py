"""What is said of rows that cannot be used, and of what was changed in those that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cgpt.cli.error_text import in_this_language
from cgpt.cli.messages import t
from cgpt.cli.ui.terminal import tell

if TYPE_CHECKING:
    from cgpt.corpus.invalid_rows import InvalidRow, InvalidRowsError

FIRST = 20  # rows that are shown where nobody asked for all of them


def say_invalid(error: InvalidRowsError) -> None:
    """On stderr: how many rows of which kinds, and the first of them; of one, what to do."""
    if len(error.rows) == 1:
        if not error.skipping:
            tell(t("hint_skip_invalid"))
        return
    for line in listing(error.rows, error.counts):
        tell(line)


def listing(
    rows: Sequence[InvalidRow], counts: Mapping[str, int], most: int | None = FIRST
) -> list[str]:
    """How many rows of which kinds, then a line for each: all of them where most is None."""
    total = sum(counts.values())
    shown = [t("invalid_rows", n=f"{total:,}", kinds=by_kind(counts))]
    shown += ["  " + in_this_language(str(row)) for row in rows[:most]]
    if len(shown) <= total:
        shown.append("  " + t("invalid_more", n=f"{total - len(shown) + 1:,}"))
    return shown


def by_kind(counts: Mapping[str, int]) -> str:
    """The kinds of faults with their counts, in one order."""
    from cgpt.corpus.items import FAULTS

    return ", ".join(
        f"{t(f'fault_{kind}')} {counts[kind]:,}" for kind in FAULTS if counts.get(kind)
    )


def change_lines(changes: Mapping[str, int]) -> list[str]:
    """What reading left out or joined in items that are kept, with counts."""
    from cgpt.corpus.items import CHANGES

    return [t(f"change_{name}", n=f"{changes[name]:,}") for name in CHANGES if changes.get(name)]


def total_changes(files: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of the changes of several files."""
    found: dict[str, int] = {}
    for changes in files:
        for name, count in changes.items():
            found[name] = found.get(name, 0) + count
    return found
