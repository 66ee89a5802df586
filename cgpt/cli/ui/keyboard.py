"""The keyboard of a terminal: line editing, pasted blocks, keys that do not show.

Lines are edited by readline: prompt_toolkit takes 0.2 s to import, half as long as a chat takes
from its start to its first prompt.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from cgpt.cli.ui.streams import echo
from cgpt.runtime.signals import handling

CTRL_C = "\x03"
PASTE = "\x1b[200~", "\x1b[201~"  # what a terminal sends around a pasted block ...
BRACKETED_PASTE = "\x1b[?2004h", "\x1b[?2004l"  # ... once this is on, until it is off


class LineEditor:
    """Lines of a terminal, edited by readline. Raises ImportError where there is no readline."""

    def __init__(self) -> None:
        use_utf8_locale()
        import readline

        self.readline = readline
        readline.set_auto_history(False)
        if understands_escapes():
            readline.parse_and_bind("set enable-bracketed-paste on")  # a pasted block is one line
            readline.parse_and_bind("tab: complete")
        else:
            readline.parse_and_bind("set enable-bracketed-paste off")
        stop = getattr(signal, "SIGTSTP", None)  # ignored where nobody could continue the program
        self.can_suspend = stop is not None and signal.getsignal(stop) == signal.SIG_DFL
        self.ctrl_c_is_key = os.name == "posix" and "libedit" not in (readline.__doc__ or "")
        if self.ctrl_c_is_key:
            # A Ctrl-C that comes just after the prompt is lost on readline where it is a signal
            # (it waits for a key), so while a line is edited it is a key: clear the line, insert
            # Ctrl-C itself, Enter.
            readline.parse_and_bind(r'"\C-c": "\C-e\C-u\C-v\C-c\C-m"')

    def read(self, prompt: str, words: Sequence[str] = ()) -> str:
        """One line. Tab completes it to one of the words. Raises EOFError, KeyboardInterrupt."""

        def complete(text: str, state: int) -> str | None:
            at_start = self.readline.get_begidx() == 0
            found = [word for word in words if at_start and word.startswith(text.lower())]
            return found[state] if state < len(found) else None

        def suspend(*_: object) -> None:
            # Under Python readline neither gives the terminal back on Ctrl-Z nor takes it again.
            with terminal_mode(settings=before), handling({"SIGTSTP": signal.SIG_DFL}):
                signal.raise_signal(signal.SIGTSTP)
            echo(prompt + self.readline.get_line_buffer(), end="")

        self.readline.set_completer(complete)
        with (
            terminal_mode(ctrl_c_is_key=self.ctrl_c_is_key) as before,
            handling({"SIGTSTP": suspend} if self.can_suspend else {}),
        ):
            line = input(prompt)
        if line.startswith(CTRL_C):
            raise KeyboardInterrupt
        return line

    def add_history(self, line: str) -> None:
        """The arrow keys bring this line back, until the program ends."""
        self.readline.add_history(line)


def read_unedited() -> str:
    """A line of a terminal without line editing, its end included; "" at the end of input."""
    with bracketed_paste():
        line = sys.stdin.readline()
        while PASTE[0] in line and PASTE[1] not in line:
            line += sys.stdin.readline() or PASTE[1]
    return line.replace(PASTE[0], "").replace(PASTE[1], "")


def use_utf8_locale() -> None:
    """Where the locale is not UTF-8 although Python reads UTF-8 (LC_ALL=C), choose another.

    Else readline takes the bytes of a Chinese character for keys.
    """
    import locale

    reads_utf8 = "utf" in (sys.stdin.encoding or "").lower()
    if not reads_utf8 or not hasattr(locale, "nl_langinfo"):
        return
    if "utf" in locale.nl_langinfo(locale.CODESET).lower():
        return
    for name in ("C.UTF-8", "en_US.UTF-8"):
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            os.environ["LC_ALL" if os.environ.get("LC_ALL") else "LC_CTYPE"] = name
            return


def understands_escapes() -> bool:
    """Whether the terminal understands escape sequences."""
    return os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def bracketed_paste() -> Iterator[None]:
    """The terminal marks the beginning and the end of a pasted block."""
    on, off = BRACKETED_PASTE if understands_escapes() and in_foreground(sys.stdin) else ("", "")
    try:
        with suppress(OSError, ValueError):  # a terminal that cannot be written to
            os.write(sys.stdin.fileno(), on.encode())
        yield
    finally:
        with suppress(OSError, ValueError):
            os.write(sys.stdin.fileno(), off.encode())


def in_foreground(stream: TextIO) -> bool:
    """Whether a terminal's keys are this program's: False for one started with `&`."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # another kind of terminal, or none
        return True


@contextmanager
def terminal_mode(
    *, echo: bool = True, ctrl_c_is_key: bool = False, settings: list[Any] | None = None
) -> Iterator[list[Any] | None]:
    """Whether keys show and whether Ctrl-C is a character instead of a signal, inside the block.

    settings  of the terminal to start from, None for the present ones
    Yields the settings outside the block, None where they are unknown.
    """
    try:
        import termios
    except ImportError:
        yield None
        return
    before = None
    with suppress(AttributeError, OSError, ValueError, termios.error):
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd) if in_foreground(sys.stdin) else None
    if before is None:
        yield None
        return
    changed = [*(settings or before)[:6], list((settings or before)[6])]
    if not echo:
        changed[3] &= ~termios.ECHO
    if ctrl_c_is_key:
        changed[6][termios.VINTR] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")
    termios.tcsetattr(fd, termios.TCSANOW, changed)
    try:
        yield before
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
