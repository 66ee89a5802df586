"""What goes to stdout and stderr and comes from stdin: any text, harmless on a terminal, UTF-8."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from cgpt.errors import DataError
from cgpt.fileio.text import json_text
from cgpt.locale import t

BYTE_ORDER_MARK = "\ufeff"
STDIN_PATIENCE = 2.0  # seconds without a byte on stdin before that is said

# Control characters but newline and tab, as signs; and what turns the direction of a line around.
# Those beyond ASCII have no sign of their own, and are as JSON has them.
_SIGNS: dict[int, str] = {code: chr(0x2400 + code) for code in (*range(9), *range(11, 32))}
_SIGNS[127] = "\u2421"
_SIGNS.update(
    (code, f"\\u{code:04x}")
    for code in (*range(128, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)


def prepare_streams() -> None:
    """No text makes writing fail: what the encoding of a stream lacks is shown as `?`.

    Bytes that are no text stay recognisable on stdin. Streams that were closed before the start
    (`>&-`) swallow what is written.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "replace"),
        (sys.stderr, "replace"),
    ):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            piped = stream is sys.stdin and not stream.isatty()
            with suppress(ValueError, OSError):
                reconfigure(errors=errors, **({"encoding": "utf-8"} if piped else {}))


def printable(text: str) -> str:
    """Any text as a terminal may show it: control characters as signs (ESC is U+241B)."""
    return text.translate(_SIGNS)


def shown(text: str, stream: TextIO) -> str:
    """The text as it goes to this stream: printable on a terminal, as it is elsewhere."""
    return printable(text) if stream.isatty() else text


def echo(text: str = "", *, end: str = "\n", stream: TextIO | None = None) -> None:
    """Write to stdout, or another stream, at once: the one place from which text gets there."""
    stream = stream or sys.stdout
    if stream is None:  # a process without stdout, as print() has it
        return
    stream.write(shown(text, stream) + end)
    stream.flush()


def print_json(value: Any) -> None:
    """One JSON object on stdout; NaN and infinities are null."""
    echo(json_text(value))


def drop_broken_bytes(text: str) -> str:
    """Text of a model without the marks of bytes that made no character."""
    return text.replace("\ufffd", "")


def has_stray_bytes(text: str) -> bool:
    """Whether bytes that were no UTF-8 are in a text from stdin or from the command line."""
    return any("\udc80" <= char <= "\udcff" for char in text)


def as_utf8(text: str) -> str | None:
    """The text that the bytes of a stream or of an argument are, None where they are not UTF-8.

    Bytes beyond a locale's encoding (LC_ALL=C) come as stray ones and may be UTF-8 all the same.
    """
    if not has_stray_bytes(text):
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return None


def read_stdin(*, typed: bool = False) -> str:
    """All of stdin; "" where there is none, or where it is a terminal and not to be `typed`.

    A byte order mark is left out. Raises DataError for bytes that are not UTF-8.
    """
    if sys.stdin is None or (sys.stdin.isatty() and not typed):
        return ""
    if not sys.stdin.isatty():
        _say_that_it_waits()
    return checked(sys.stdin.read()).removeprefix(BYTE_ORDER_MARK)


def checked(text: str, first_line: int = 1) -> str:
    """The text of a pipe. Raises DataError where bytes of it were not UTF-8."""
    if has_stray_bytes(text):
        before, byte = next(
            (text[:at], ord(char) - 0xDC00) for at, char in enumerate(text) if has_stray_bytes(char)
        )
        line = before.count("\n") + first_line
        column = len(before.rpartition("\n")[2].encode("utf-8", "surrogatepass")) + 1
        raise DataError(
            "stdin, line {line}: found byte 0x{byte:02x} at byte {column} of the line, "
            "expected UTF-8; convert the text, for example with iconv",
            line=line,
            byte=byte,
            column=column,
        )
    return text


def _say_that_it_waits() -> None:
    """A sentence on stderr where a pipe stays empty: it may be one that nobody writes to."""
    try:
        from select import select

        ready = select([sys.stdin.fileno()], [], [], STDIN_PATIENCE)[0]
    except (ImportError, OSError, ValueError):  # no pipe, or one that cannot be asked
        return
    if not ready:
        echo(
            t("waiting for text on stdin; where there is none, add < /dev/null"), stream=sys.stderr
        )


def silence_broken_pipe() -> None:
    """The reader is gone: let the exit not complain about what is still buffered."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
