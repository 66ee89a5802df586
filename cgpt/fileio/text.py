"""Text on its way to a file: the one place that makes bytes of it, whatever the text is.

A string may hold what no encoding has: halves of surrogate pairs, from JSON data or from names of
files. They are written as JSON has them (\\ud83d), so that JSON stays JSON and gives them back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cgpt.errors import CgptError, Templated, as_reason


def utf8(text: str) -> bytes:
    """Any text as UTF-8; half a surrogate pair becomes \\ud83d."""
    return text.encode("utf-8", "backslashreplace")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON of any value, which every encoding of Unicode can hold: see `without_nan`."""
    return utf8(json.dumps(without_nan(value), ensure_ascii=False, indent=indent)).decode()


def without_nan(value: Any) -> Any:
    """The same for JSON: NaN and infinities are null, paths and tuples as JSON has them."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


class JsonLines:
    """A file of one JSON object a line, each on its way to the disk when `write` returns.

    append   continue what is there; a last line that was cut off is removed
    failure  makes the error that is raised where the file cannot be written, of the reason
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        failure: Callable[[Templated], CgptError],
        *,
        append: bool = False,
    ) -> None:
        self._failure = failure
        target = Path(path)
        try:
            if append:
                _cut_to_whole_lines(target)
            self._file = target.open("ab" if append else "wb", buffering=0)
        except OSError as error:
            raise self._error(error) from error

    def write(self, value: Any) -> None:
        """Add one line. Raises what `failure` makes."""
        left = memoryview(utf8(json_text(value) + "\n"))
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file; nothing is left to be written."""
        try:
            self._file.close()
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> CgptError:
        return self._failure(as_reason(error))


def _cut_to_whole_lines(path: Path) -> None:
    """Remove what stands after the last line end, where a process was killed while it wrote."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        file.truncate(end)
