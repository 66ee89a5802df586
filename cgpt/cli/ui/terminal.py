"""Asking and telling: one place for prompts, wrong answers, the end of input and Ctrl-C."""

from __future__ import annotations

import io
import math
import os
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from typing import TextIO, TypeVar

from cgpt.cli.ui.layout import box, wrap
from cgpt.cli.ui.streams import BYTE_ORDER_MARK, as_utf8, checked, echo, shown
from cgpt.errors import DataError
from cgpt.locale import N_, t

Value = TypeVar("Value")

CTRL_C = "\x03"
PASTE = "\x1b[200~", "\x1b[201~"  # what a terminal sends around a pasted block ...
PASTES_MARKED = "\x1b[?2004h", "\x1b[?2004l"  # ... once it was asked to, and no more
YES = {"y", "yes", "是", "好"}
NO = {"n", "no", "否", "不"}
CANCEL = {*NO, "cancel", "取消", "q", "quit", "exit"}


def plain_number(value: float) -> str:
    """The shortest decimal that reads back as `value`, never with an exponent: 0.00005."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Terminal:
    """Where the guided run and the chat speak. `ask` raises EOFError at the end of input.

    Off a terminal the answer that was read is shown, so that a log reads like the screen.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self.output = output or sys.stdout
        self.interactive = sys.stdin is not None and sys.stdin.isatty()
        self.lines_read = 0  # of a pipe
        self._ctrl_c_is_key = False
        self._edit = self.interactive and self._line_editing()

    def _line_editing(self) -> bool:
        """Turn on readline, which knows how wide Chinese is; answers stay out of the history."""
        if not (self.output is sys.stdout and sys.stdout.isatty()):
            return False
        try:
            teach_locale_utf8()
            import readline
        except ImportError:
            return False
        readline.set_auto_history(False)
        marked = "on" if can_mark_pastes() else "off"
        readline.parse_and_bind(f"set enable-bracketed-paste {marked}")  # a pasted block: one line
        if os.name == "posix" and "libedit" not in (readline.__doc__ or ""):
            # A Ctrl-C that comes just after the prompt is lost on readline where it is a signal
            # (it waits for a key), so while a line is edited it is a key: clear the line, insert
            # Ctrl-C itself, Enter.
            readline.parse_and_bind(r'"\C-c": "\C-e\C-u\C-v\C-c\C-m"')
            self._ctrl_c_is_key = True
        return True

    @property
    def width(self) -> int:
        """Cells of a line."""
        return shutil.get_terminal_size().columns

    def say(self, text: str = "") -> None:
        """One line, shown at once."""
        echo(text, stream=self.output)

    def write(self, text: str) -> None:
        """A piece of a line, shown at once."""
        echo(text, end="", stream=self.output)

    def note(self, text: str) -> None:
        """A sentence, wrapped to the screen where there is one, as far in as it begins."""
        text = shown(text, self.output)
        indent = " " * (len(text) - len(text.lstrip(" ")))
        room = self.width - 1 - len(indent)
        lines = wrap(text.lstrip(" "), room) if self.output.isatty() else [text.lstrip(" ")]
        for line in lines:
            self.say(indent + line)

    def box(self, title: str, left: int | None = None) -> None:
        """A title in a double-line box."""
        width = self.width if self.output.isatty() else 80
        for line in box(title, width, left):
            self.say(line)

    def ask(self, prompt: str, *, remember: bool = False) -> str:
        """One line of input without its end; a block that was pasted, with its line ends.

        Raises EOFError, KeyboardInterrupt; what is said next then begins on a new line. Bytes that
        are not UTF-8 are told and asked again, in a pipe they are a DataError.
        """
        while True:
            try:
                answer = as_utf8(self._edited(prompt) if self._edit else self._read(prompt))
            except (EOFError, KeyboardInterrupt, DataError):
                self.say()
                raise
            if answer is not None:
                break
            self.note(t("That holds bytes that are not UTF-8, please type it again."))
        if remember and self._edit and answer.strip():
            import readline

            readline.add_history(answer)
        return answer

    def _edited(self, prompt: str) -> str:
        """A line that readline edits."""
        with ctrl_c_as_key() if self._ctrl_c_is_key else nullcontext():
            answer = input(shown(prompt, self.output))
        if answer.startswith(CTRL_C):
            raise KeyboardInterrupt
        return answer

    def _read(self, prompt: str) -> str:
        """A line of a pipe, which is shown, or of a terminal without line editing."""
        self.write(prompt)
        with nullcontext() if not self.interactive else marked_pastes():
            stdin = sys.stdin or io.StringIO()
            line = stdin.readline()
            while self.interactive and PASTE[0] in line and PASTE[1] not in line:
                more = stdin.readline()
                line += more or PASTE[1]
        if not line:
            raise EOFError
        for mark in PASTE if self.interactive else ():
            line = line.replace(mark, "")
        answer = line.rstrip("\r\n")
        if not self.interactive:
            self.lines_read += 1
            answer = checked(answer, self.lines_read)
            if self.lines_read == 1:
                answer = answer.removeprefix(BYTE_ORDER_MARK)
            self.say(answer)
        return answer

    def ask_until(self, prompt: str, parse: Callable[[str], Value | None], wrong: str) -> Value:
        """Ask until `parse` gives something; None is told as `wrong` and asked again."""
        while True:
            value = parse(fold(self.ask(prompt)))
            if value is not None:
                return value
            self.note(wrong)

    def yes_no(self, prompt: str) -> bool:
        """y or n."""

        def parse(answer: str) -> bool | None:
            return True if answer in YES else False if answer in NO else None

        return self.ask_until(prompt, parse, t("Please type y or n."))

    def choose(self, count: int, *, back: bool = False) -> int:
        """A number of 1..count; with `back`, n (or exit, cancel) gives 0."""
        numbers = "/".join(map(str, range(1, count + 1))) if count < 10 else f"1-{count}"

        def parse(answer: str) -> int | None:
            if back and answer in CANCEL:
                return 0
            digits = answer.isascii() and answer.isdigit() and len(answer) < 10
            return int(answer) if digits and 1 <= int(answer) <= count else None

        return self.ask_until(
            t("Your choice ({numbers}): ", numbers=numbers),
            parse,
            t(
                N_("Please type one of {numbers}, or n to cancel.")
                if back
                else N_("Please type one of {numbers}."),
                numbers=numbers,
            ),
        )

    def epochs(self, default: int) -> int:
        """Whole number above 0; Enter takes the default."""

        def parse(answer: str) -> int | None:
            if not answer:
                return default
            digits = answer.isascii() and answer.isdigit() and len(answer) < 10
            return int(answer) if digits and int(answer) > 0 else None

        return self.ask_until(
            t("Epochs (default {default}): ", default=default),
            parse,
            t("Epochs must be a whole number above 0, such as {default}.", default=default),
        )

    def learning_rate(self, default: float) -> float:
        """Number in (0, 1); Enter takes the default."""

        def parse(answer: str) -> float | None:
            if not answer:
                return default
            try:
                value = float(answer)
            except ValueError:
                return None
            return value if math.isfinite(value) and 0 < value < 1 else None

        shown = plain_number(default)
        return self.ask_until(
            t("Learning rate (default {default}): ", default=shown),
            parse,
            t(
                "The learning rate must be a number between 0 and 1, such as {default}.",
                default=shown,
            ),
        )


def as_argument(path: str) -> str:
    """A path as it is typed at a shell: quoted where it has to be, and never an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def tell(text: str) -> None:
    """A sentence on stderr, wrapped to the screen where there is one."""
    Terminal(sys.stderr).note(text)


def fold(answer: str) -> str:
    """An answer as compared: full-width letters, case and blanks do not matter."""
    return unicodedata.normalize("NFKC", answer).strip().lower()


def teach_locale_utf8() -> None:
    """Where the locale knows no UTF-8 and Python reads it all the same (LC_ALL=C), choose another.

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


def can_mark_pastes() -> bool:
    """Whether the terminal understands escape sequences."""
    return os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def marked_pastes() -> Iterator[None]:
    """The terminal marks the beginning and the end of a block that is pasted."""

    def send(sequence: str) -> None:
        with suppress(OSError, ValueError):  # a terminal that cannot be written to
            os.write(sys.stdin.fileno(), sequence.encode())

    if not can_mark_pastes() or not in_foreground(sys.stdin):
        yield
        return
    send(PASTES_MARKED[0])
    try:
        yield
    finally:
        send(PASTES_MARKED[1])


@contextmanager
def ctrl_c_as_key() -> Iterator[None]:
    """The terminal hands Ctrl-C over as a character instead of a signal."""
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    changed = [*before[:6], list(before[6])]
    changed[6][termios.VINTR] = os.fpathconf(fd, "PC_VDISABLE").to_bytes(1, "little")
    termios.tcsetattr(fd, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


def in_foreground(stream: TextIO) -> bool:
    """Whether a terminal's keys are this program's: False for one started with `&`."""
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # another kind of terminal, or none
        return True


@contextmanager
def silent_keys() -> Iterator[None]:
    """Keys do not show while lines are drawn over each other; Ctrl-C is as ever."""
    try:
        import termios

        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd) if in_foreground(sys.stdin) else None
    except (ImportError, AttributeError, OSError, ValueError, termios.error):
        before = None
    if before is None:
        yield
        return
    changed = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(fd, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
