"""The compiled kernels of the instruction set that this processor runs best.

Chosen once, at import: the environment variable CGPT_ISA ("generic", "avx2", "avx512") decides
where it is set. Every name of the chosen module is here; `instruction_set()` says which it is.
It may import `config` and what lies below it. To read a kernel begin with
cgpt/_kernels.pyx, which includes the sources of this folder.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from cgpt.config import MAX_THREADS
from cgpt.errors import ConfigError
from cgpt.runtime.processors import available
from cgpt.validation import check_int

# How long a thread that has finished its part spins before it sleeps, in libgomp's own unit;
# read when the library is loaded, so it is set before the first kernel module is. By default it
# spins for milliseconds: on a machine with other work that takes the processor from the very
# thread that is waited for, and made a step seven times slower.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "5000"

import cgpt._kernels as _generic

if TYPE_CHECKING:
    from cgpt._kernels import *  # noqa: F403

INSTRUCTION_SETS = ("generic", "avx2", "avx512")


def runnable() -> list[str]:
    """Instruction sets that are compiled and that this processor has, slowest first."""
    names = []
    for level, name in enumerate(INSTRUCTION_SETS[: _generic.cpu_level() + 1]):
        try:
            load(name)
        except ImportError:
            continue
        names.append(INSTRUCTION_SETS[level])
    return names


def load(name: str) -> ModuleType:
    """The compiled module of one instruction set. Raises ImportError where it was not built."""
    return _generic if name == "generic" else import_module(f"cgpt.kernels.{name}")


def _choose() -> tuple[str, ModuleType]:
    wanted = os.environ.get("CGPT_ISA", "").strip().lower()
    level = _generic.cpu_level()
    if wanted:
        if wanted not in INSTRUCTION_SETS:
            raise ConfigError(
                "CGPT_ISA: unknown instruction set '{name}'; known: {known}",
                name=wanted,
                known=list(INSTRUCTION_SETS),
            )
        if INSTRUCTION_SETS.index(wanted) > level:
            raise ConfigError(
                "CGPT_ISA: this processor has no {name}; use {other} or leave CGPT_ISA unset",
                name=wanted,
                other=INSTRUCTION_SETS[level],
            )
        try:
            return wanted, load(wanted)
        except ImportError:
            raise ConfigError(
                "CGPT_ISA: {name} was not built into this installation; leave CGPT_ISA unset",
                name=wanted,
            ) from None
    for name in reversed(INSTRUCTION_SETS[: level + 1]):
        try:
            return name, load(name)
        except ImportError:
            continue
    return "generic", _generic


def _threads_wanted() -> int:
    """CGPT_THREADS, OMP_NUM_THREADS, else the processors that this process may keep busy."""
    for variable in ("CGPT_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(variable, "").strip()
        if value.isdecimal() and 0 < int(value) <= MAX_THREADS:
            return int(value)
        if value and variable == "CGPT_THREADS":  # the other one is not ours and may be a list
            raise ConfigError(
                "CGPT_THREADS: found '{value}', expected 1 to {most}; correct it or leave "
                "CGPT_THREADS unset",
                value=value,
                most=MAX_THREADS,
            )
    return min(available(), MAX_THREADS)


_name, _module = _choose()
globals().update({key: value for key, value in vars(_module).items() if not key.startswith("__")})
_module.set_num_threads(_threads_wanted())


def set_num_threads(n: int) -> None:  # type: ignore[no-redef]  # the compiled one, checked
    """Threads that kernels use from now on, 1 to 1024.

    It stays 1 without OpenMP, and in a child of os.fork() whose parent had imported cgpt: the
    parent's threads are not there, and GNU's OpenMP would wait for them for ever.
    Raises ConfigError for anything else.
    """
    n = check_int("set_num_threads", "n", n, 1, MAX_THREADS)
    _module.set_num_threads(n if os.getpid() == _PROCESS else 1)


_PROCESS = os.getpid()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _module.set_num_threads(1))


def instruction_set() -> str:
    """Name of the instruction set in use: "generic", "avx2" or "avx512"."""
    return _name
