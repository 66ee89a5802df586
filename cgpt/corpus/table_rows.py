"""Rows of tables: .csv and .tsv by the standard library, .parquet by pyarrow.

A column has the name of a key of an item (cgpt/corpus/records.py); other columns are not read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from cgpt.corpus.files import open_data
from cgpt.corpus.records import KEYS, Unusable, has_form
from cgpt.corpus.text_rows import Row, decoded
from cgpt.errors import DataError, Phrase, foreign_text, shown
from cgpt.locale import N_

LONGEST_CELL = 1 << 24  # characters
_DELIMITERS = (",", ";", "\t")
_AT_ONCE = 256  # rows of a .parquet file


def csv_rows(path: str, file: BinaryIO, delimiters: Iterable[str] = _DELIMITERS) -> Iterator[Row]:
    """A row for every record after the first, which names the columns.

    delimiters  of which the first is taken that separates known names
    Raises DataError where no column has a known name, UnicodeDecodeError.
    """
    with decoded(file, newline="") as text:
        lines = _lines(path, text)
        first = next(lines, "")
        reader, names = _reader(path, first, lines, tuple(delimiters))
        wanted = _wanted(names)
        while True:
            number = reader.line_num + 1
            try:
                cells = _next(reader)
            except csv.Error as error:
                yield Row(
                    "line {line}",
                    number,
                    fault=Unusable(
                        "a record that cannot be read ({reason}); mend its quotation marks",
                        code="csv",
                        reason=_csv_reason(error),
                    ),
                )
                continue
            if cells is None:
                return
            if not cells:
                continue
            fault = None
            if len(cells) != len(names):
                fault = Unusable(
                    "found {n} cells, expected {most} as in the first line",
                    code="csv",
                    n=len(cells),
                    most=len(names),
                )
            yield Row(
                "line {line}",
                number,
                {name: cell for name, cell in zip(names, cells, strict=False) if name in wanted},
                fault,
            )


def _lines(path: str, text: Any) -> Iterator[str]:
    number = 0
    while line := text.readline(LONGEST_CELL):
        number += 1
        if len(line) >= LONGEST_CELL and not line.endswith("\n"):
            raise DataError(
                "{path}, line {line}: more than {n} characters without a line end; mend the file",
                path=path,
                line=number,
                n=LONGEST_CELL,
            )
        yield line


def _reader(
    path: str, first: str, lines: Iterator[str], delimiters: tuple[str, ...]
) -> tuple[Any, list[str]]:
    """A reader after the first record, and the names of the columns."""
    chosen = next((one for one in delimiters if has_form(_names([first], one))), delimiters[0])
    reader = csv.reader(chain([first], lines), delimiter=chosen, strict=True)
    try:
        found = _next(reader) or []
    except csv.Error as error:
        raise DataError(
            "{path}, line 1: a record that cannot be read ({reason}); mend its quotation marks",
            path=path,
            reason=_csv_reason(error),
        ) from None
    names = [name.strip().lower() for name in found]
    if found:
        _check_columns(path, names)
    return reader, names


def _csv_reason(error: Exception) -> Phrase:
    return foreign_text(str(error), N_("field larger than field limit ({value})"))


def _names(lines: Iterable[str], delimiter: str) -> list[str]:
    try:
        return [name.strip().lower() for name in next(csv.reader(lines, delimiter=delimiter), [])]
    except csv.Error:
        return []


def _wanted(names: list[str]) -> set[str]:
    """The columns that an item is made of: of an idiom all of them."""
    return {name for name in names if name in KEYS or "成语" in names}


def _check_columns(path: str, names: list[str]) -> None:
    twice = next((name for name in names if name in KEYS and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            "{path}: the column {name} occurs twice; rename one of the two",
            path=path,
            name=shown(twice),
        )
    if not has_form(names):
        raise DataError(
            "{path}: found the columns {names}, expected text, messages, or a question and its "
            "answer, such as instruction and output",
            path=path,
            names=[shown(name, 50) for name in names[:6]],
        )


def _next(reader: Any) -> list[str] | None:
    """The next record, None at the end; the limit of the module's cells stays as it was."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        found: list[str] | None = next(reader, None)
        return found
    finally:
        csv.field_size_limit(before)


def parquet_rows(path: str, digest: Any) -> Iterator[Row]:
    """A row for every row of a .parquet file, whose bytes go into `digest`.

    Raises DataError where it cannot be read or no column has a known name.
    """
    with open_data(path, digest):
        pass
    pyarrow, parquet = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as table:
            names = list(table.schema_arrow.names)
            _check_columns(path, names)
            columns = [name for name in names if name in _wanted(names)]
            number = 0
            for batch in table.iter_batches(batch_size=_AT_ONCE, columns=columns):
                for value in batch.to_pylist():
                    number += 1
                    found = _without_nulls(value)
                    yield Row("row {line}", number, found if has_form(found) else value)
    except (pyarrow.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from error


def parquet_size(path: str) -> int:
    """Bytes that the rows of a .parquet file have unpacked, as it says. Raises DataError."""
    pyarrow, parquet = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as table:
            groups = table.metadata
            return sum(
                groups.row_group(number).total_byte_size for number in range(groups.num_row_groups)
            )
    except (pyarrow.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from error


def _pyarrow(path: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "{path}: reading it needs the package pyarrow; install the extra: pip install "
            "'cgpt[data]'",
            path=path,
        ) from None
    return pyarrow, pyarrow.parquet


def _no_parquet(path: str, error: Exception) -> DataError:
    return DataError(
        "{path}: not a Parquet file that can be read ({detail}); make the file again",
        path=path,
        detail=shown(" ".join(str(error).split())[:200]),
    )


def _without_nulls(value: Any) -> Any:
    """A value as JSON would have it: a key without a value is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
