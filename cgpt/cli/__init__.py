"""The command line: `main()` runs it and gives the exit code. Only cli/ imports click and rich.

It may import everything. Begin with `root.py`, which names the commands, and with `commands/`.
Exit codes: 0 · 1 a CgptError · 2 usage · 3 a damaged or foreign checkpoint · 130 Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from cgpt.locale import LANGUAGES, set_language, t
from cgpt.training.mpi_environment import launched

if TYPE_CHECKING:
    from cgpt.errors import CgptError

UNREADABLE = ("damaged", "foreign", "version")  # codes of a CheckpointError that exit with 3


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and give the exit code.

    args  sys.argv by default: then the process is this command's alone, and a Ctrl-C after its end
          changes nothing any more
    """
    try:
        return command_line(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt:  # one more while the first was being told
        return 130
    finally:
        if args is None:
            with suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)


def command_line(given: Sequence[str]) -> int:
    """Run with these arguments; the exit code."""
    from cgpt.cli.ui.streams import prepare_streams, silence_broken_pipe

    prepare_streams()
    choose_language(given)
    if launched():
        from cgpt.cli import ranks

        if ranks.asked(given):
            ranks.prepare()
    wanted: dict[str, bool] = {}
    try:
        with warnings_as_sentences():
            code = guard(lambda: run(list(given), wanted), wanted)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        silence_broken_pipe()
        return 0
    except OSError as error:  # what was printed could not be written after all
        complain(f"stdout: {sentence_of(error)}")
        silence_broken_pipe()
        return 1


@contextmanager
def warnings_as_sentences() -> Iterator[None]:
    """Warnings of the library become one line on stderr, in the language of this run."""
    from cgpt.cli.ui.terminal import notify
    from cgpt.errors import CgptWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", CgptWarning)
        others = warnings.showwarning

        def show(message: Warning | str, *where: Any, **more: Any) -> None:
            if isinstance(message, CgptWarning):
                notify(t("warning: ") + sentence_of(message))
            else:
                others(message, *where, **more)

        warnings.showwarning = show
        yield


def choose_language(args: Sequence[str]) -> None:
    """The language before anything is parsed, so that even usage errors speak it."""
    set_language(LANGUAGES[0] if speaks_chinese() else "en")
    chosen = [os.environ.get("CGPT_LANG", "")]
    for i, arg in enumerate(args):
        if arg == "--":
            break
        if arg == "--lang" and i + 1 < len(args):
            chosen.append(args[i + 1])
        elif arg.startswith("--lang="):
            chosen.append(arg.partition("=")[2])
    for one in filter(None, chosen):
        with suppress(ValueError):  # the option itself refuses it
            set_language(one)


def speaks_chinese() -> bool:
    """Whether Chinese can be read where sentences go; else they would be question marks."""
    try:
        "中".encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def run(args: list[str], wanted: dict[str, bool]) -> int:
    """Parse and run; raises what goes wrong. wanted["json"] becomes whether --json is given."""
    from cgpt.cli.root import cgpt

    with cgpt.make_context("cgpt", args, obj=wanted) as context:
        result = cgpt.invoke(context)
    return result if isinstance(result, int) else 0


def guard(action: Callable[[], int], wanted: Mapping[str, bool]) -> int:
    """The one place where errors become one line on stderr and an exit code; where "json" is
    wanted also a JSON object on stdout."""
    import click

    from cgpt.cli.app import usage_sentence
    from cgpt.cli.ui.streams import echo
    from cgpt.cli.ui.terminal import notify
    from cgpt.errors import CgptError, CheckpointError
    from cgpt.runtime.signals import Terminated

    try:
        return action()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        complain(usage_sentence(error))
        command = error.ctx.command_path if error.ctx else "cgpt"
        notify(t("Try '{command} --help'.", command=command))
        return 2
    except (KeyboardInterrupt, click.Abort):
        echo("\n" + t("interrupted"), stream=sys.stderr)
        return 130
    except Terminated as stop:
        return stop.code
    except CgptError as error:
        from cgpt.corpus.invalid_rows import InvalidRowsError

        if isinstance(error, InvalidRowsError):
            from cgpt.cli.ui.data_report import say_invalid

            say_invalid(error)
        fail(error, wanted)
        unreadable = isinstance(error, CheckpointError) and error.code in UNREADABLE
        return 3 if unreadable else 1
    except BrokenPipeError:
        raise
    except (MemoryError, OSError) as error:
        fail(error, wanted)
        return 1


def fail(error: CgptError | MemoryError | OSError, wanted: Mapping[str, bool]) -> None:
    """Say what went wrong on stderr, and on stdout as JSON where that is wanted."""
    complain(sentence_of(error))
    if wanted.get("json"):
        from cgpt.cli.errors import as_cgpt_error
        from cgpt.cli.ui.streams import print_json
        from cgpt.errors import as_dict

        print_json(as_dict(as_cgpt_error(error)))


def sentence_of(error: BaseException) -> str:
    """What went wrong, in the language of this run."""
    from cgpt.cli.errors import reason_of  # costs nothing where nothing goes wrong

    return reason_of(error)


def complain(sentence: str) -> None:
    """One line on stderr, wrapped at a terminal, where anybody listens."""
    from cgpt.cli.ui.terminal import notify

    with suppress(OSError, ValueError):
        notify(t("error: ") + " ".join(sentence.split("\n")))
