"""Rows of data files that cannot be used: all of them are found before one is complained of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cgpt.errors import DataError

MOST_ROWS = 100_000  # that are kept by themselves; after them only counts continue


@dataclass(frozen=True)
class InvalidRow:
    """One row that cannot be used.

    path    of its file;  place  in it, as "item 3 (line 7)", "line 7" or "row 5"
    line    on which it starts, 0 where that is not known; of a table without lines its row
    kind    one of `cgpt.corpus.records.FAULTS`
    reason  what was found and expected
    """

    path: str
    place: str
    line: int
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"


@dataclass
class InvalidRows:
    """Rows that cannot be used, in the order in which they were found.

    rows    the first MOST_ROWS of them;  counts  of all, by kind
    """

    rows: list[InvalidRow] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, row: InvalidRow) -> None:
        """Take in one row."""
        self.counts[row.kind] = self.counts.get(row.kind, 0) + 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(row)

    def nothing_in(self, path: str, count: int) -> InvalidRowsError:
        """What to raise of a file with `count` of them and no row that can be used."""
        first = next((row for row in self.rows if row.path == path), self.rows[0])
        message = (
            str(first)
            if count == 1
            else (
                f"{path}: no row of it can be used, {count} are invalid, the first is {first}; "
                "mend them, or leave out the file"
            )
        )
        return InvalidRowsError(message, self.rows, self.counts, skipping=True)

    def error(self) -> InvalidRowsError:
        """What to raise where there are any."""
        first, count = self.rows[0], len(self)
        files = len({row.path for row in self.rows})
        if count == 1:
            return InvalidRowsError(str(first), self.rows, self.counts)
        if files == 1:
            return InvalidRowsError(
                f"{count} invalid rows, the first is {first}; mend them, or leave them out by "
                "skip_invalid=True",
                self.rows,
                self.counts,
            )
        return InvalidRowsError(
            f"{count} invalid rows in {files} files, the first is {first}; mend them, or leave "
            "them out by skip_invalid=True",
            self.rows,
            self.counts,
        )


class InvalidRowsError(DataError):
    """Data with rows that cannot be used. code: data.

    rows    InvalidRow of each, in the order of the files (at most MOST_ROWS)
    counts  of all of them, by kind
    skipping  they were to be left out, and nothing else is there
    """

    def __init__(
        self,
        message: str,
        rows: Sequence[InvalidRow] = (),
        counts: dict[str, int] | None = None,
        *,
        skipping: bool = False,
    ) -> None:
        super().__init__(message, hint="skip_invalid" if len(rows) > 1 and not skipping else "")
        self.rows = tuple(rows)
        self.counts = dict(counts or {})
        self.skipping = skipping


def merged(errors: Iterable[InvalidRowsError]) -> InvalidRowsError:
    """One error for the rows of several readings; a row that two of them met counts once."""
    errors = list(errors)
    for error in errors:
        if error.skipping:  # it says what is missing, the others' rows are left out
            return error
    found = InvalidRows()
    seen: set[tuple[str, str]] = set()
    for error in errors:
        for row in error.rows:
            if (row.path, row.place) not in seen:
                seen.add((row.path, row.place))
                found.add(row)
        rest = sum(error.counts.values()) - len(error.rows)
        if rest:
            return error  # too many to be told apart
    return found.error()
