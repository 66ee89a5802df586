"""The errors of model files: which file, what was found, what was expected, what to do."""

from __future__ import annotations

import errno
import os

from cgpt.errors import CheckpointError, Phrase, Templated, as_reason
from cgpt.locale import N_

OWN = Phrase("a .bin or .json that cgpt saved")
# What can be loaded.
ANYTHING = Phrase("a .bin or .json that cgpt saved, or a JSON export of RustGPT-Chinese")

Part = str | Templated  # of a sentence: a text of the catalogue without fields, or a Phrase


def damaged(path: object, found: Part, expected: Part) -> CheckpointError:
    """A cgpt file that is cut short or changed."""
    return CheckpointError(
        "{path} is damaged: found {found}, expected {expected}; restore a copy of the file "
        "or load an earlier checkpoint",
        code="damaged",
        path=path,
        found=_part(found),
        expected=_part(expected),
    )


def foreign(
    path: object,
    found: Part,
    advice: Part = "choose another file",
    expected: Part = OWN,
    *,
    hint: str = "",
) -> CheckpointError:
    """A file that is none of those expected."""
    return CheckpointError(
        "{path} is not a cgpt model file: found {found}, expected {expected}; {advice}",
        code="foreign",
        hint=hint,
        path=path,
        found=_part(found),
        expected=_part(expected),
        advice=_part(advice),
    )


def other_version(path: object, found: Part, expected: Part) -> CheckpointError:
    """A whole cgpt file that this release cannot read."""
    return CheckpointError(
        "{path} was written by another version of cgpt: found {found}, expected "
        "{expected}; update cgpt to read it",
        code="version",
        path=path,
        found=_part(found),
        expected=_part(expected),
    )


def other_base(path: object, found: Part, advice: Part, *, hint: str = "") -> CheckpointError:
    """An adapter that does not go with the model at hand."""
    return CheckpointError(
        "{path} does not fit: found {found}, expected the model that belongs to it; {advice}",
        code="foreign",
        hint=hint,
        path=path,
        found=_part(found),
        advice=_part(advice),
    )


def unreadable(path: object, error: OSError) -> CheckpointError:
    """What opening or reading failed with, told apart."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CheckpointError(
            "{path} does not exist, expected a model file that cgpt saved; check the path",
            code="missing",
            path=path,
        )
    if isinstance(error, IsADirectoryError):
        if os.path.isfile(os.path.join(str(path), "config.json")):
            return foreign(path, "a Hugging Face folder", "choose another file", ANYTHING)
        return foreign(path, "a folder", "name a file in it")
    if isinstance(error, PermissionError):
        return CheckpointError(
            "{path} cannot be opened: found no permission to read it, expected a readable "
            "file; change its permissions",
            code="missing",
            path=path,
        )
    if error.errno in (errno.EIO, errno.ESTALE):
        return damaged(
            path,
            Phrase("an input/output error of the disk ({reason})", reason=as_reason(error)),
            "readable data",
        )
    return CheckpointError(
        "{path} cannot be opened: found '{reason}', expected a readable file; check the path",
        code="missing",
        path=path,
        reason=as_reason(error),
    )


def unwritable(path: object, error: OSError) -> CheckpointError:
    """Why a save failed. The file that was there, if any, is unchanged."""
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))  # type: ignore[call-overload]
    known = _REASONS.get(error.errno or 0)
    if known:
        found, advice = Phrase(known[0], folder=folder), known[1]
    else:
        found = Phrase("the error '{reason}'", reason=as_reason(error))
        advice = N_("choose another path or folder")
    return not_saved(path, found, "a file that can be written", advice)


def not_saved(path: object, found: Part, expected: Part, advice: Part) -> CheckpointError:
    """A model that was not written to `path`."""
    return CheckpointError(
        "{path} could not be saved: found {found}, expected {expected}; {advice} (nothing "
        "was overwritten)",
        code="write",
        path=path,
        found=_part(found),
        expected=_part(expected),
        advice=_part(advice),
    )


def _part(text: Part) -> Templated:
    return Phrase(text) if isinstance(text, str) else text


_FULL = (N_("a full disk at {folder}"), N_("free some space or choose another folder"))
_DENIED = (
    N_("no permission to write in {folder}"),
    N_("choose another folder or change its permissions"),
)
_IN_THE_WAY = (N_("a file where {folder} needs a folder"), N_("choose another path"))
_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: (N_("a used-up disk quota at {folder}"), _FULL[1]),
    errno.EFBIG: (
        N_("a limit on the size of files (ulimit -f)"),
        N_("raise it or choose another folder"),
    ),
    errno.EROFS: (N_("a read-only file system at {folder}"), N_("choose another folder")),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EISDIR: (N_("a folder of this name"), N_("choose another file name")),
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENAMETOOLONG: (
        N_("a name that is too long for the file system"),
        N_("choose a shorter one"),
    ),
    errno.ELOOP: (N_("symbolic links that point to each other"), N_("choose another path")),
    errno.EIO: (N_("an input/output error of the disk at {folder}"), N_("choose another disk")),
}
