"""Files that a command is about to write: none that is not its own is replaced unasked."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from cgpt.cli.ui.terminal import Terminal
from cgpt.corpus.files import walk
from cgpt.errors import CheckpointError
from cgpt.locale import t

if TYPE_CHECKING:
    from cgpt.llm import LLM

Own = Callable[[str], bool]
Stamp = tuple[int, int, int, int]


class Target:
    """A file that will be written, as it was when the command began.

    overwrite  whether it may be replaced without a question
    own        says of a file that is there whether it may be replaced anyway
    At a terminal it is asked whether a file that is there may be replaced. Raises CheckpointError
    (code "write") where it may not, or nobody can be asked.
    """

    def __init__(self, path: str, *, overwrite: bool, own: Own | None = None) -> None:
        self.path = path
        self._before = stamp(path)
        empty = self._before is None or self._before[-1] == 0
        if not (empty or overwrite or (own is not None and own(path)) or may_replace(path)):
            raise CheckpointError(
                "{path}: the file exists, expected a new one; name another file, or "
                "replace it by --overwrite",
                code="write",
                path=path,
            )

    def is_free(self, own: Own) -> bool:
        """Whether no other program has put something else there meanwhile."""
        now = stamp(self.path)
        return now is None or now == self._before or own(self.path)


def check_apart(targets: Mapping[str, str | None], read: Iterable[str] = ()) -> None:
    """Refuse what would put a file in place of another one of the same command.

    targets  option -> the file that it writes;  read  files and folders of data that it reads
    Raises CheckpointError (code "write"), with --overwrite as well: the file that would be lost is
    needed by the command itself.
    """
    named: dict[str, str] = {}
    data = list(read)
    for option, path in targets.items():
        if not path:
            continue
        other = named.setdefault(os.path.realpath(path), option)
        if other != option:
            raise CheckpointError(
                "{path}: both {option} and {second} name this file, expected a file for "
                "each; name another one",
                code="write",
                path=path,
                option=other,
                second=option,
            )
        if stamp(path) is not None and any(_is_of(path, one) for one in data):
            raise CheckpointError(
                "{path}: {option} would replace a file of the data that is read; name another file",
                code="write",
                path=path,
                option=option,
            )


def _is_of(path: str, data: str) -> bool:
    """Whether a file is the data or a file of the folder of data."""
    if not os.path.isdir(data):
        return os.path.exists(data) and os.path.samefile(path, data)
    files = (file for file, skipped in walk(data) if not skipped)
    return any(os.path.exists(file) and os.path.samefile(path, file) for file in files)


def stamp(path: str) -> Stamp | None:
    """What tells a file from one that takes its place; None for none, and for what is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def may_replace(path: str) -> bool:
    """Ask on a terminal; False where there is none."""
    terminal = Terminal(sys.stderr)
    if not (terminal.interactive and sys.stderr.isatty()):
        return False
    try:
        return terminal.yes_no(t("The file exists, overwrite {path}? (y/n): ", path=path))
    except EOFError:
        return False


def state_of(llm: LLM) -> Own:
    """Says of a file whether it holds this training, as it is now or as it was earlier."""
    from cgpt.checkpoint.latest import checkpoint_of, holds_earlier

    now = checkpoint_of(llm)
    return lambda path: holds_earlier(path, now)
