"""Errors as the command line says them: in the language of this run, with its own advice."""

from __future__ import annotations

import os
import traceback

from cgpt import locale
from cgpt.errors import CgptError, CgptWarning, as_reason
from cgpt.locale import N_, t

HINTS = {
    "merge": N_("as a command: cgpt merge MODEL ADAPTER OUT.bin"),
    "import": N_("as a command: cgpt import FILE OUT.bin"),
    "guided": N_("in the guided run: cgpt"),
    "new_data": N_("option: --new-data"),
    "skip_invalid": N_("option: --skip-invalid; cgpt data PATH... lists all of them"),
    "too_long": N_("option: --too-long"),
    "mix": N_("option: --mix"),
    "cache": N_("option: --cache, or CGPT_CACHE"),
    "mpi": N_("as a command: mpiexec -n 2 cgpt train --parallel mpi"),
}


def localized(error: CgptError | CgptWarning) -> str:
    """The error's sentence; what the library advises is followed by the command or option that
    does it."""
    text, hint = locale.localized(error), getattr(error, "hint", "")
    return text + t(" ({hint})", hint=t(HINTS[hint])) if hint else text


def reason_of(error: BaseException) -> str:
    """One sentence for a warning, or any error that a command may end with."""
    if isinstance(error, (CgptError, CgptWarning)):
        return localized(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.strerror):
        return locale.localized(as_cgpt_error(error))
    return str(error) or type(error).__name__


def as_cgpt_error(error: CgptError | MemoryError | OSError) -> CgptError:
    """The error with a template and fields; code "memory" or "system" of those of Python."""
    if isinstance(error, CgptError):
        return error
    if isinstance(error, MemoryError):
        return CgptError("out of memory; use a smaller model or a smaller batch", code="memory")
    reason = as_reason(error)
    if error.filename:
        return CgptError("{path}: {reason}", code="system", path=error.filename, reason=reason)
    return CgptError("{reason}", code="system", reason=reason)


def what_failed(error: BaseException) -> str:
    """The sentence of an error; of one that nobody foresaw also where it comes from."""
    if isinstance(error, (CgptError, OSError, MemoryError)):
        return reason_of(error)
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({os.path.basename(one.filename)}:{one.lineno})" for one in place)
    return f"{type(error).__name__}: {error}{where}"
