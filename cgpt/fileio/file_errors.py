"""The errors of model files: which file, what was found, what was expected, what to do."""

from __future__ import annotations

import errno
import os

from cgpt.errors import CheckpointError

OWN = "a .bin or .json that cgpt saved"
ANYTHING = OWN + ", or a JSON export of RustGPT-Chinese"  # what can be loaded


def damaged(path: object, found: str, expected: str) -> CheckpointError:
    """A cgpt file that is cut short or changed."""
    return CheckpointError(
        f"{path} is damaged: found {found}, expected {expected}; restore a copy of the file or "
        "load an earlier checkpoint",
        code="damaged",
    )


def foreign(
    path: object,
    found: str,
    advice: str = "choose another file",
    expected: str = OWN,
    *,
    hint: str = "",
) -> CheckpointError:
    """A file that is none of those expected."""
    return CheckpointError(
        f"{path} is not a cgpt model file: found {found}, expected {expected}; {advice}",
        code="foreign",
        hint=hint,
    )


def other_version(path: object, found: str, expected: str) -> CheckpointError:
    """A whole cgpt file that this release cannot read."""
    return CheckpointError(
        f"{path} was written by another version of cgpt: found {found}, expected {expected}; "
        "update cgpt to read it",
        code="version",
    )


def other_base(path: object, found: str, advice: str, *, hint: str = "") -> CheckpointError:
    """An adapter that does not go with the model at hand."""
    return CheckpointError(
        f"{path} does not fit: found {found}, expected the model that belongs to it; {advice}",
        code="foreign",
        hint=hint,
    )


def unreadable(path: object, error: OSError) -> CheckpointError:
    """What opening or reading failed with, told apart."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CheckpointError(
            f"{path} does not exist, expected a model file that cgpt saved; check the path",
            code="missing",
        )
    if isinstance(error, IsADirectoryError):
        if os.path.isfile(os.path.join(str(path), "config.json")):
            return foreign(path, "a Hugging Face folder", "choose another file", ANYTHING)
        return foreign(path, "a folder", "name a file in it")
    if isinstance(error, PermissionError):
        return CheckpointError(
            f"{path} cannot be opened: found no permission to read it, expected "
            "a readable file; change its permissions",
            code="missing",
        )
    if error.errno in (errno.EIO, errno.ESTALE):
        return damaged(
            path, f"an input/output error of the disk ({_reason(error)})", "readable data"
        )
    return CheckpointError(
        f"{path} cannot be opened: found '{_reason(error)}', expected a "
        "readable file; check the path",
        code="missing",
    )


def unwritable(path: object, error: OSError) -> CheckpointError:
    """Why a save failed. The file that was there, if any, is unchanged."""
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))  # type: ignore[call-overload]
    found, advice = _REASONS.get(
        error.errno or 0, (f"the error '{_reason(error)}'", "choose another path or folder")
    )
    return not_saved(path, found.format(folder=folder), "a file that can be written", advice)


def not_saved(path: object, found: str, expected: str, advice: str) -> CheckpointError:
    """A model that was not written to `path`."""
    return CheckpointError(
        f"{path} could not be saved: found {found}, expected {expected}; "
        f"{advice} (nothing was overwritten)",
        code="write",
    )


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


_FULL = ("a full disk at {folder}", "free some space or choose another folder")
_DENIED = ("no permission to write in {folder}", "choose another folder or change its permissions")
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: ("a used-up disk quota at {folder}", _FULL[1]),
    errno.EFBIG: ("a limit on the size of files (ulimit -f)", "raise it or choose another folder"),
    errno.EROFS: ("a read-only file system at {folder}", "choose another folder"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EISDIR: ("a folder of this name", "choose another file name"),
    errno.ENOTDIR: ("a file where {folder} needs a folder", "choose another path"),
    errno.EEXIST: ("a file where {folder} needs a folder", "choose another path"),
    errno.ENAMETOOLONG: ("a name that is too long for the file system", "choose a shorter one"),
    errno.ELOOP: ("symbolic links that point to each other", "choose another path"),
    errno.EIO: ("an input/output error of the disk at {folder}", "choose another disk"),
}
