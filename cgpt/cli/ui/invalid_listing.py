"""What is said of rows that cannot be used, and of what was changed in those that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cgpt.cli.error_text import in_this_language
from cgpt.cli.messages import N_, t
from cgpt.cli.ui.terminal import tell

if TYPE_CHECKING:
    from cgpt.corpus.invalid_rows import InvalidRow, InvalidRowsError

FIRST = 20  # rows that are shown where nobody asked for all of them
KINDS = {
    "json": N_("fault_json"),
    "csv": N_("fault_csv"),
    "encoding": N_("fault_encoding"),
    "repeated_key": N_("fault_repeated_key"),
    "too_large": N_("fault_too_large"),
    "form": N_("fault_form"),
    "type": N_("fault_type"),
    "part": N_("fault_part"),
    "role": N_("fault_role"),
    "order": N_("fault_order"),
    "empty": N_("fault_empty"),
}
CHANGED = {
    "tool_turns": N_("change_tool_turns"),
    "joined_answers": N_("change_joined_answers"),
    "openings": N_("change_openings"),
    "unanswered": N_("change_unanswered"),
}


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

    return ", ".join(f"{t(KINDS[kind])} {counts[kind]:,}" for kind in FAULTS if counts.get(kind))


def change_lines(changes: Mapping[str, int]) -> list[str]:
    """What reading left out or joined in items that are kept, with counts."""
    from cgpt.corpus.items import CHANGES

    return [t(CHANGED[name], n=f"{changes[name]:,}") for name in CHANGES if changes.get(name)]


def total_changes(files: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of the changes of several files."""
    found: dict[str, int] = {}
    for changes in files:
        for name, count in changes.items():
            found[name] = found.get(name, 0) + count
    return found
