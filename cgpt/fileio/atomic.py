"""Durable, atomic writing: at every instant the path holds the old file or the new one, whole.

A temporary file in the same folder, made exclusively and locked; data, fsync, rename, fsync of
the folder. Temporary files of processes that died are removed by the next save in the folder:
a lock that can be taken has no living owner.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from cgpt.errors import CheckpointError, Phrase, as_reason
from cgpt.fileio.file_errors import not_saved, unwritable
from cgpt.locale import N_

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".cgpt-", ".tmp"
_MOST = 1 << 24  # bytes given to one write call, and sent ahead at once


class Output:
    """The temporary file while it is written; every write is complete or raises OSError.

    Now and then a thread of `pool` sends what was written to the disk meanwhile, so that the sync
    at the end has little left to wait for.
    """

    def __init__(self, fd: int, pool: ThreadPoolExecutor) -> None:
        self._fd = fd
        self._pool = pool
        self._unsent = 0
        self._sending: Future[None] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all bytes at the current position."""
        view = memoryview(data).cast("B")
        while view:
            n = os.write(self._fd, view[:_MOST])
            view = view[n:]
            self._unsent += n
            if self._unsent >= _MOST:
                self._send()

    def _send(self) -> None:
        if not hasattr(os, "fdatasync") or (self._sending and not self._sending.done()):
            return
        if self._sending:
            self._sending.result()
        self._sending = self._pool.submit(os.fdatasync, self._fd)
        self._unsent = 0

    def seek(self, position: int) -> None:
        """Go to a byte position; what is skipped reads as zeros."""
        os.lseek(self._fd, position, os.SEEK_SET)

    def sync(self) -> None:
        """Return when everything written so far is on the disk."""
        if self._sending:
            self._sending.result()
        if fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync stops at the drive
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(self._fd)


def write_file(path: str | os.PathLike[str], size: int, write: Callable[[Output], None]) -> Path:
    """Replace `path` by what `write` puts out, or leave everything as it was.

    size   bytes that will be needed (checked against the free space first); may be an estimate
    write  called once with the Output
    Missing folders are made; a symbolic link keeps pointing to its target, which is replaced.
    Returns the path as given. Raises CheckpointError (code "write") with the reason.
    """
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target.parent)
        _check_space(path, target.parent, size)
        _replace(target, write)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        _sync_folder(target.parent)
    except OSError as error:
        raise CheckpointError(
            "{path} is saved whole, but the disk may forget it in a power cut: found "
            "'{reason}' when its folder was synced, expected success; save it again or "
            "choose another disk",
            code="write",
            path=path,
            reason=as_reason(error),
        ) from error
    return Path(path)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a checkpoint folder: who saves and removes files there waits for others.

    It is a lock of the folder itself, so there is no file of it that could be left over. Without
    locks (Windows, some network file systems) nothing is held.
    """
    fd = -1
    try:
        if fcntl is not None and hasattr(os, "O_DIRECTORY"):
            with suppress(OSError):
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        if fcntl is not None and fd >= 0:
            with suppress(OSError):  # closed only, a child forked meanwhile would hold it on
                fcntl.flock(fd, fcntl.LOCK_UN)
            with suppress(OSError):
                os.close(fd)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to replace: `path` or what its symbolic links point to. Raises OSError."""
    if "\0" in os.fsdecode(path):
        raise OSError(errno.EINVAL, N_("a NUL character in the name"))
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, N_("half a character in the name")) from None
    target = Path(os.path.realpath(path) if os.path.islink(path) else path)
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return target
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise not_saved(path, "a device or pipe", "a regular file", "choose another path")
    if not os.access(target, os.W_OK):
        raise not_saved(
            path,
            "a write-protected file",
            "one that may be replaced",
            "choose another name or change its permissions",
        )
    return target


def _check_space(path: str | os.PathLike[str], folder: Path, size: int) -> None:
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < size:
        raise not_saved(
            path,
            Phrase("{size:.1f} MB free on the disk", size=usage.free / 1e6),
            Phrase("{size:.1f} MB", size=size / 1e6),
            "free some space or choose another folder",
        )


def _replace(target: Path, write: Callable[[Output], None]) -> None:
    temporary, fd = _open_temporary(target.parent)
    try:
        try:
            if hasattr(os, "fchmod"):
                with suppress(OSError):  # a new file, or no permissions to keep
                    os.fchmod(fd, stat.S_IMODE(target.stat().st_mode))
            with ThreadPoolExecutor(1) as pool:
                out = Output(fd, pool)
                write(out)
                out.sync()
            if fcntl is None:
                os.close(fd)  # Windows renames closed files only
                fd = -1
            os.replace(temporary, target)
        except BaseException:
            if fd >= 0 and fcntl is None:
                os.close(fd)
                fd = -1
            _remove(temporary)
            raise
    finally:
        if fd >= 0:
            with suppress(OSError):  # the data was synced; nothing is lost
                os.close(fd)  # after the rename: the lock must outlive the name


def _open_temporary(folder: Path) -> tuple[Path, int]:
    flags = (
        os.O_WRONLY
        | os.O_CREAT
        | os.O_EXCL
        | getattr(os, "O_CLOEXEC", 0)
        | getattr(os, "O_BINARY", 0)
    )
    while True:
        path = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        fd = os.open(path, flags, 0o666)
        try:
            if _is_ours(path, fd):
                return path, fd
            os.close(fd)
        except BaseException:
            with suppress(OSError):
                os.close(fd)
            _remove(path)
            raise


def _is_ours(path: Path, fd: int) -> bool:
    """Lock a new file. False where another process took it for a stale one before that."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return True  # a file system without locks
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove_stale(folder: Path) -> None:
    """Remove temporary files in `folder` whose writers are dead; failures do not matter."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if name.startswith(PREFIX) and name.endswith(SUFFIX):
            _remove_if_unlocked(folder / name)


def _remove_if_unlocked(path: Path) -> None:
    if fcntl is None:
        _remove(path)
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        pass
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise  # those say that this file system cannot sync folders
    finally:
        os.close(fd)
