"""`Ranks`: the processes of a parallel training over MPI, started by mpiexec (extra `mpi`).

Nothing here waits without looking around: a process that fails tells the others, and one that is
gone (killed, out of memory) is missed, so that the rest stop instead of waiting for ever.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cgpt import kernels, version
from cgpt.errors import ConfigError, Phrase, as_reason
from cgpt.locale import N_
from cgpt.nn.arrays import Floats
from cgpt.runtime.process_group import PeerError, SingleProcess
from cgpt.runtime.processors import available
from cgpt.training.mpi_environment import launched, started_as

PATIENCE = 3600.0  # seconds without an answer where others are not on this machine
_BUSY = 0.02  # seconds of a wait in which the processor is not given back
_PAUSE = 2e-4  # of sleep between two looks after that
_LOOK = 0.5  # between two looks at whether the others still live
_FAILED, _RELEASED = 1, 2  # tags of messages between processes


class Ranks(SingleProcess):
    """All processes that mpiexec started. Raises ConfigError where they are not alike.

    host, threads  of this process; threads is its share of the processors it may run on
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._comm = mpi.COMM_WORLD.Dup()
        self._notices = mpi.COMM_WORLD.Dup()  # never waits: what a failed process says
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self.host = socket.gethostname()
        self._parent = os.getppid()
        self._sums: list[Any] = []
        self._sent: list[Any] = []
        self._peers: list[dict[str, Any]] = []
        self._peers = self._exchange(
            {
                "cgpt": version.__version__,
                "instruction_set": kernels.instruction_set(),
                "host": self.host,
                "pid": os.getpid(),
                "space": _process_space(),
                "processors": _processors(),
            }
        )
        self.threads = self._share_of_processors()
        self._expect(
            "cgpt",
            [peer["cgpt"] for peer in self._peers],
            N_("install the same version everywhere"),
        )
        self._expect(
            N_("instruction set"),
            [peer["instruction_set"] for peer in self._peers],
            N_("set CGPT_ISA to one that all of them have"),
        )

    @property
    def machines(self) -> int:
        """How many machines the processes are on."""
        return len({peer["host"] for peer in self._peers})

    # What a training asks

    def begin_sum(self, part: Floats) -> None:
        """Begin to replace `part` by its sum over all processes; finish_sums() ends it."""
        self._sums.append(self._comm.Iallreduce(self._mpi.IN_PLACE, part, self._mpi.SUM))

    def progress(self) -> None:
        """Let sums that were begun get on: MPI works while it is called."""
        if self._sums:
            self._mpi.Request.Testall(self._sums)

    def finish_sums(self) -> None:
        """Return when all sums that were begun are there. Raises PeerError."""
        self._wait(self._sums)
        self._sums.clear()

    def gather(self, values: Sequence[float]) -> NDArray[np.float64]:
        """(size, len(values)): what each process gave. Raises PeerError."""
        sent = np.array(values, np.float64)
        found = np.empty((self.size, len(sent)), np.float64)
        self._wait([self._comm.Iallgather(sent, found)])
        return found

    def summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes. Raises PeerError."""
        found = np.array(values, np.float64)
        self._wait([self._comm.Iallreduce(self._mpi.IN_PLACE, found, self._mpi.SUM)])
        return found

    def require_same(self, values: dict[str, object], weights: Floats) -> None:
        """Raises ConfigError in every process where one of them has others than process 0."""
        found = self._exchange({**values, "weights": crc32(weights.data)})
        for name in found[0]:
            self._expect(
                name,
                [one[name] for one in found],
                N_("give all of them the same model, data and settings"),
            )

    def broadcast(self, data: bytes | None) -> bytes:
        """The bytes that process 0 gave. Raises PeerError."""
        count = np.array([len(data or b"")], np.int64)
        self._wait([self._comm.Ibcast(count)])
        buffer = np.frombuffer(data, np.uint8) if data else np.empty(count[0], np.uint8)
        for start in range(0, len(buffer), 1 << 28):
            self._wait([self._comm.Ibcast(buffer[start : start + (1 << 28)])])
        return data if data else buffer.tobytes()

    # Ending

    def fail(self, reason: str) -> None:
        """Tell all others that this process failed; returns at once."""
        self._notify(_FAILED, reason.encode()[:4096])

    def release(self) -> None:
        """Process 0: let the processes go that wait to be released."""
        self._notify(_RELEASED, b"")
        until = time.monotonic() + 2
        with suppress(self._mpi.Exception):
            while not self._mpi.Request.Testall(self._sent) and time.monotonic() < until:
                time.sleep(_PAUSE)

    def wait_for_release(self) -> None:
        """Return when process 0 has saved what is to be saved, or is gone."""
        began = time.monotonic()
        while not self._notices.Iprobe(0, _RELEASED) and time.monotonic() - began < PATIENCE:
            if self._lost_peer() == 0:
                return
            time.sleep(_LOOK / 10)

    def _notify(self, tag: int, data: bytes) -> None:
        with suppress(self._mpi.Exception):  # of those that are gone
            for peer in range(self.size):
                if peer != self.rank:
                    self._sent.append(self._notices.Isend([data, self._mpi.BYTE], peer, tag))

    # Waiting

    def _wait(self, requests: list[Any]) -> None:
        """Return when all are done. Raises PeerError where a process failed or is gone."""
        began = looked = time.monotonic()
        try:
            while not self._mpi.Request.Testall(requests):
                now = time.monotonic()
                if now - began < _BUSY:
                    os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)
                    continue
                self._raise_notices()
                if now - looked > _LOOK:
                    looked = now
                    self._check_peers(now - began)
                time.sleep(_PAUSE)
        except self._mpi.Exception as error:
            self._raise_notices()
            raise PeerError(
                "parallel: MPI could not go on ({detail}); see which process ended first, "
                "then resume the training",
                detail=as_reason(error),
            ) from None

    def _raise_notices(self) -> None:
        """Raises PeerError where another process has said that it failed."""
        status = self._mpi.Status()
        if self._notices.Iprobe(self._mpi.ANY_SOURCE, _FAILED, status):
            sender = status.Get_source()
            data = bytearray(status.Get_count(self._mpi.BYTE))
            self._notices.Recv([data, self._mpi.BYTE], sender, _FAILED)
            raise PeerError(
                "process {n} of {size} on {host} failed: {reason}",
                n=sender,
                size=self.size,
                host=self._host(sender),
                reason=data.decode(errors="replace"),
            )

    def _check_peers(self, waited: float) -> None:
        """Raises PeerError where another process is gone."""
        lost = self._lost_peer()
        if lost is not None:
            raise PeerError(
                "process {n} of {size} on {host} is gone (killed, or out of memory?); the "
                "others stop",
                n=lost,
                size=self.size,
                host=self._host(lost),
            )
        if self.orphaned:
            raise PeerError("parallel: mpiexec has ended; this process stops as well")
        away = any(peer["space"] != self._peers[self.rank]["space"] for peer in self._peers)
        if away and waited > PATIENCE:
            raise PeerError(
                "parallel: no answer of the other processes for {n:.0f} seconds; see "
                "whether they still run, then resume the training",
                n=PATIENCE,
            )

    @property
    def orphaned(self) -> bool:
        """Whether what started this process is gone, and with it those who read its output."""
        return os.getppid() != self._parent

    def _host(self, rank: int) -> str:
        return str(self._peers[rank]["host"]) if self._peers else "?"

    def _lost_peer(self) -> int | None:
        """A process on this machine that no longer lives, or None."""
        own = self._peers[self.rank] if self._peers else {}
        for rank, peer in enumerate(self._peers):
            if peer["space"] and peer["space"] == own["space"] and not _lives(peer["pid"]):
                return rank
        return None

    # Agreeing

    def _exchange(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """What each process gave, JSON-ready."""
        sent = np.frombuffer(json.dumps(values).encode(), np.uint8)
        lengths = self.gather([len(sent)])[:, 0].astype(int)
        found = np.empty(lengths.sum(), np.uint8)
        starts = np.cumsum([0, *lengths[:-1]])
        self._wait(
            [
                self._comm.Iallgatherv(
                    sent, [found, lengths.tolist(), starts.tolist(), self._mpi.BYTE]
                )
            ]
        )
        return [
            json.loads(found[start : start + length].tobytes())
            for start, length in zip(starts, lengths, strict=True)
        ]

    def _expect(self, what: str, values: list[Any], advice: str) -> None:
        """Raises ConfigError where they are not all those of process 0."""
        for rank, value in enumerate(values):
            if value != values[0]:
                found, expected = _difference(value, values[0])
                raise ConfigError(
                    "parallel: process {n} on {host} has other {what} than process 0 "
                    "(found {value}, expected {wanted}); {advice}",
                    n=rank,
                    host=self._host(rank),
                    what=Phrase(what),
                    value=found,
                    wanted=expected,
                    advice=Phrase(advice),
                )

    def _share_of_processors(self) -> int:
        own = self._peers[self.rank]
        alike = sum(
            (peer["host"], peer["space"], peer["processors"])
            == (own["host"], own["space"], own["processors"])
            for peer in self._peers
        )
        return max(1, min(len(own["processors"]), available()) // alike)


def connect() -> Ranks:
    """Join the processes that mpiexec started.

    Raises ConfigError, saying what to do, without mpi4py, an MPI library or mpiexec, where
    mpiexec belongs to another MPI than mpi4py, and where the processes are not alike.
    """
    try:
        import mpi4py
    except ImportError:
        raise ConfigError(
            "parallel: training over MPI needs the package mpi4py; install the "
            "extra: pip install 'cgpt[mpi]'"
        ) from None
    mpi4py.rc.thread_level = "funneled"  # only the main thread calls MPI
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "parallel: mpi4py found no MPI library ({detail}); install one: pip install mpich",
            detail=reason,
        ) from None
    size = MPI.COMM_WORLD.Get_size()
    if size == 1:
        _check_launcher(started_as()[1], MPI.Get_library_version())
    return Ranks(MPI)


def _check_launcher(wanted: int, library: str) -> None:
    """Raises ConfigError where one process is not what the user started."""
    own = Path(sys.executable).parent / "mpiexec"
    if wanted > 1:
        name = " ".join(library.split())[:40]
        raise ConfigError(
            "parallel: mpiexec started {n} processes, but they do not find each other: it "
            "belongs to another MPI than that of mpi4py ({library}); use the mpiexec of "
            "that one, for pip's mpich {path}",
            n=wanted,
            library=name,
            path=own,
        )
    if launched():
        return
    if not own.exists() and shutil.which("mpiexec") is None:
        raise ConfigError(
            "parallel: mpiexec is missing, which starts the processes; install the "
            "extra: pip install 'cgpt[mpi]'"
        )
    name = "mpiexec" if shutil.which("mpiexec") else str(own)
    raise ConfigError(
        "parallel: this is one process alone; start several by mpiexec, for example: "
        "{command} -n 2 python PROGRAM.py",
        hint="mpi",
        command=name,
    )


def _difference(found: Any, expected: Any) -> tuple[str, str]:
    """The two as far as they differ, short."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = [name for name in expected if found.get(name) != expected[name]]
        return tuple(
            ", ".join(f"{name}={one.get(name)!r}" for name in names)[:200]
            for one in (found, expected)
        )  # type: ignore[return-value]
    return f"{found}"[:80], f"{expected}"[:80]


def _processors() -> list[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _process_space() -> str:
    """Names the numbering of processes that pids belong to; "" where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _lives(pid: int) -> bool:
    """Whether a process of this machine still runs."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2][1]
            not in "ZX"
        )
    except OSError:
        return False
