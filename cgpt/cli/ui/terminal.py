"""Questions and answers of a terminal or a pipe: prompts, wrong answers, the end of input."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import TextIO, TypeVar

from cgpt.cli.ui.keyboard import LineEditor, read_unedited
from cgpt.cli.ui.layout import box, wrap
from cgpt.cli.ui.streams import BYTE_ORDER_MARK, as_utf8, checked, echo, shown
from cgpt.errors import DataError
from cgpt.locale import N_, t

Value = TypeVar("Value")

YES = {"y", "yes", "是", "好"}
NO = {"n", "no", "否", "不"}
CANCEL = {*NO, "cancel", "取消", "q", "quit", "exit"}


def plain_number(value: float) -> str:
    """The shortest decimal that reads back as `value`, never with an exponent: 0.00005."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Terminal:
    """What the guided run and the chat show and ask. `ask` raises EOFError at the end of input.

    Off a terminal the answer that was read is shown, so that a log reads like the screen.
    """

    def __init__(self, output: TextIO | None = None) -> None:
        self.output = output or sys.stdout
        self.interactive = sys.stdin is not None and sys.stdin.isatty()
        self.lines_read = 0  # of a pipe
        self._editor: LineEditor | None = None
        if self.interactive and self.output is sys.stdout and sys.stdout.isatty():
            with suppress(ImportError):
                self._editor = LineEditor()

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

    def ask(self, prompt: str, *, history: bool = False, words: Sequence[str] = ()) -> str:
        """One line of input without its end; a block that was pasted, with its line ends.

        history  the arrow keys bring the line back later
        words    what Tab completes
        Raises EOFError, KeyboardInterrupt; what is shown next then begins on a new line. Bytes that
        are not UTF-8 are reported and asked for again, in a pipe they are a DataError.
        """
        while True:
            try:
                if self._editor is not None:
                    line = self._editor.read(shown(prompt, self.output), words)
                else:
                    line = self._read(prompt)
            except (EOFError, KeyboardInterrupt, DataError):
                self.say()
                raise
            answer = as_utf8(line)
            if answer is not None:
                break
            self.note(t("That holds bytes that are not UTF-8, please type it again."))
        if history and self._editor is not None and answer.strip():
            self._editor.add_history(answer)
        return answer

    def _read(self, prompt: str) -> str:
        """A line of a pipe, which is shown, or of a terminal without line editing."""
        self.write(prompt)
        line = read_unedited() if self.interactive else (sys.stdin or io.StringIO()).readline()
        if not line:
            raise EOFError
        answer = line.rstrip("\r\n")
        if not self.interactive:
            self.lines_read += 1
            answer = checked(answer, self.lines_read)
            if self.lines_read == 1:
                answer = answer.removeprefix(BYTE_ORDER_MARK)
            self.say(answer)
        return answer

    def ask_until(self, prompt: str, parse: Callable[[str], Value | None], wrong: str) -> Value:
        """Ask until `parse` gives something; None is answered with `wrong`."""
        while True:
            value = parse(normalize_answer(self.ask(prompt)))
            if value is not None:
                return value
            self.note(wrong)

    def yes_no(self, prompt: str) -> bool:
        """y or n."""
        known = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
        return self.ask_until(prompt, known.get, t("Please type y or n."))

    def choose(self, count: int, *, back: bool = False) -> int:
        """A number of 1..count; with `back`, n (or exit, cancel) gives 0."""
        numbers = "/".join(map(str, range(1, count + 1))) if count < 10 else f"1-{count}"

        def parse(answer: str) -> int | None:
            if back and answer in CANCEL:
                return 0
            return parse_count(answer, count)

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
        return self.ask_until(
            t("Epochs (default {default}): ", default=default),
            lambda answer: parse_count(answer) if answer else default,
            t("Epochs must be a whole number above 0, such as {default}.", default=default),
        )

    def learning_rate(self, default: float) -> float:
        """Number in (0, 1); Enter takes the default."""
        shown = plain_number(default)
        return self.ask_until(
            t("Learning rate (default {default}): ", default=shown),
            lambda answer: parse_fraction(answer) if answer else default,
            t(
                "The learning rate must be a number between 0 and 1, such as {default}.",
                default=shown,
            ),
        )


def parse_count(answer: str, most: int = 10**9 - 1) -> int | None:
    """A whole number from 1 to `most`, None for anything else."""
    digits = answer.isascii() and answer.isdigit() and len(answer) < 10
    return int(answer) if digits and 1 <= int(answer) <= most else None


def parse_fraction(answer: str) -> float | None:
    """A number between 0 and 1, None for anything else."""
    with suppress(ValueError):
        value = float(answer)
        return value if 0 < value < 1 else None
    return None


def shell_quoted(path: str) -> str:
    """A path as it is typed at a shell: quoted where it has to be, and never an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def notify(text: str) -> None:
    """A sentence on stderr, wrapped to the screen where there is one."""
    Terminal(sys.stderr).note(text)


def normalize_answer(answer: str) -> str:
    """An answer as compared: full-width letters, case and blanks do not matter."""
    return unicodedata.normalize("NFKC", answer).strip().lower()
