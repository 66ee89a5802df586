"""Rows of data files that cannot be used: all of them are found before one is complained of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cgpt.corpus.records import Unusable
from cgpt.errors import DataError, Phrase, Templated, as_dict, phrase_of
from cgpt.locale import N_

ROW = N_("{path}, {place}: {reason}")
MOST_ROWS = 100_000  # that are kept by themselves; after them only counts continue


@dataclass(frozen=True)
class InvalidRow:
    """One row that cannot be used.

    path    of its file;  place  in it, as "item 3 (line 7)", "line 7" or "row 5"
    line    on which it starts, 0 where that is not known; of a table without lines its row
    kind    one of `cgpt.corpus.records.FAULTS`
    reason  what was found and expected
    said    place and reason with their templates, where they are known
    """

    path: str
    place: str
    line: int
    kind: str
    reason: str
    said: tuple[Templated, Templated] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.path}, {self.place}: {self.reason}"

    def to_dict(self, *, templates: bool = False) -> dict[str, Any]:
        """The row for JSON: path, place, line, kind and reason; on demand how they are made."""
        names = ("path", "place", "line", "kind", "reason")
        found = {name: getattr(self, name) for name in names}
        return found | {"said": [*map(as_dict, self.said or ())]} if templates else found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InvalidRow:
        """The row that `to_dict(templates=True)` gave."""
        place, reason = map(phrase_of, values["said"])
        return cls(**{**values, "said": (place, reason)})

    def fields(self) -> dict[str, Any]:
        """The fields of ROW for this one."""
        place, reason = self.said or (self.place, self.reason)
        return {"path": self.path, "place": place, "reason": reason}


def invalid_row(path: str, place: Phrase, line: int, fault: Unusable) -> InvalidRow:
    """The row of a fault that was found at a place."""
    return InvalidRow(path, str(place), line, fault.code, str(fault), (place, fault))


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
        if count == 1:
            return self._error(ROW, skipping=True, **first.fields())
        return self._error(
            "{path}: no row of it can be used, {n} are invalid, the first is {sentence}; mend "
            "them, or leave out the file",
            skipping=True,
            path=path,
            n=count,
            sentence=Phrase(ROW, **first.fields()),
        )

    def error(self) -> InvalidRowsError:
        """What to raise where there are any."""
        first, files = self.rows[0].fields(), len({row.path for row in self.rows})
        if len(self) == 1:
            return self._error(ROW, **first)
        return self._error(
            "{n} invalid rows, the first is {sentence}; mend them, or leave them out by "
            "skip_invalid=True"
            if files == 1
            else "{n} invalid rows in {files} files, the first is {sentence}; mend them, or leave "
            "them out by skip_invalid=True",
            n=len(self),
            files=files,
            sentence=Phrase(ROW, **first),
        )

    def _error(self, template: str, *, skipping: bool = False, **fields: Any) -> InvalidRowsError:
        return InvalidRowsError(template, self.rows, self.counts, skipping=skipping, **fields)


class InvalidRowsError(DataError):
    """Data with rows that cannot be used. code: data.

    rows    InvalidRow of each, in the order of the files (at most MOST_ROWS)
    counts  of all of them, by kind
    skipping  they were to be left out, and nothing else is there
    """

    def __init__(
        self,
        template: str,
        /,
        rows: Sequence[InvalidRow] = (),
        counts: dict[str, int] | None = None,
        *,
        skipping: bool = False,
        **fields: Any,
    ) -> None:
        hint = "skip_invalid" if len(rows) > 1 and not skipping else ""
        super().__init__(template, hint=hint, **fields)
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
