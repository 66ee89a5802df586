"""A program at a pseudo-terminal: read until a text is on the screen, type, press Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

CGPT = [sys.executable, "-c", "import sys; from cgpt.cli import main; sys.exit(main())"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][0-9A-B]?|\x07")
PATIENCE = 60.0  # seconds; a loaded machine may be slow, a passing test never waits so long


def environment(**changes: str) -> dict[str, str]:
    """This process's, without CGPT_ settings of whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CGPT_")}
    return {
        **kept,
        "CGPT_THREADS": "1",
        "TERM": "xterm",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        **changes,
    }


def plain(text: str) -> str:
    """Without escape sequences; of a line that was drawn over, what was drawn last."""
    lines = ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


class Screen:
    """One run of cgpt; a context manager that ends it."""

    def __init__(self, *args: str, cwd: Path, columns: int = 80, **env: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*CGPT, *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            close_fds=True,
            env=environment(**env),
            preexec_fn=own_terminal,
        )
        os.close(slave)
        self.raw = b""
        self.seen = 0  # characters of `text` that `expect` has passed

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return plain(self.raw.decode("utf-8", "replace"))

    def _read(self, seconds: float) -> bool:
        """Take what comes within so many seconds; False at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # EIO: the program has closed the terminal
            chunk = b""
        self.raw += chunk
        return bool(chunk)

    def expect(self, wanted: str, seconds: float = PATIENCE) -> str:
        """Read until `wanted` appears after what was expected before; that text is returned."""
        end = time.monotonic() + seconds
        alive = True
        while True:
            at = self.text.find(wanted, self.seen)
            if at >= 0:
                start, self.seen = self.seen, at + len(wanted)
                return self.text[start : self.seen]
            if not alive or time.monotonic() > end:
                raise AssertionError(f"waited for {wanted!r} in vain after:\n{self.text}")
            alive = self._read(0.2)

    def type(self, text: str) -> None:
        """Keys; "\\x03" is Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self.master, text.encode())

    def answer(self, prompt: str, text: str) -> None:
        """Wait for the prompt, then type the answer and Enter."""
        self.expect(prompt)
        self.type(text + "\r")

    def hang_up(self) -> None:
        """Close the terminal, as a closed window does: SIGHUP, and nobody reads any more."""
        os.close(self.master)
        self.master = -1

    def end(self, seconds: float = PATIENCE) -> int:
        """Read to the end and give the exit code."""
        end = time.monotonic() + seconds
        while self._read(0.2) and time.monotonic() < end:
            pass
        return self.process.wait(timeout=max(1.0, end - time.monotonic()))

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.master >= 0:
            os.close(self.master)


def piped(*args: str, cwd: Path, answers: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """One run of cgpt with `answers` on a piped stdin."""
    return subprocess.run(
        [*CGPT, *args],
        input=answers,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**env),
        timeout=PATIENCE,
        encoding="utf-8",
    )
