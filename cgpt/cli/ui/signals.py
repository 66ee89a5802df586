"""Ctrl-C, SIGTERM and a closed terminal end a step or an answer in order."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import ExitStack, suppress
from types import FrameType
from typing import TextIO

from cgpt.cli.ui.layout import cut
from cgpt.locale import t
from cgpt.runtime.signals import Terminated, handling, leave_terminal


class StopRequest(ExitStack):
    """Ctrl-C or SIGTERM asks to finish the step and says so; a second one raises at once.

    So does the terminal's end (SIGHUP, unless it is ignored as under nohup), after which what is
    said goes nowhere. Use as a context manager and pass it as `should_stop`. `stream` shows the
    notice; where `inline` is set it takes the place of the line that the cursor is on.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.number = 0
        self.stream = stream
        self.inline = False

    def __enter__(self) -> StopRequest:
        names = ["SIGINT", "SIGTERM"]
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            names.append("SIGHUP")
        self.enter_context(handling(dict.fromkeys(names, self._on_signal)))
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            leave_terminal()
            if self.number:  # the shell and the kernel may each send one
                return
        if self.number:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise Terminated(number)
        self.number = number
        self._tell()

    def _tell(self) -> None:
        """Unbuffered, since the signal may have come in the middle of a print."""
        notice = t("Finishing this step; a second Ctrl-C ends at once.")
        with suppress(OSError, ValueError):
            if not self.stream.isatty():
                notice += "\n"
            elif self.inline:
                notice = "\r\x1b[2K" + cut(notice, shutil.get_terminal_size().columns - 1)[0]
            else:
                notice = f"\r\n{notice}\r\n"
            os.write(self.stream.fileno(), notice.encode(self.stream.encoding, "replace"))

    def __call__(self) -> bool:
        return self.number != 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 129 after the terminal's end."""
        return 128 + (self.number or signal.SIGINT)


class AnswerStop(ExitStack):
    """Ctrl-C while the model answers ends the answer after its token.

    At once where nothing was shown yet (a long prompt, a beam search) or for a second Ctrl-C.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested = self.has_output = False

    def __enter__(self) -> AnswerStop:
        self.enter_context(handling({"SIGINT": self._on_signal}))
        return self

    def _on_signal(self, *_: object) -> None:
        at_once = self.requested or not self.has_output
        self.requested = True
        if at_once:
            raise KeyboardInterrupt
