"""What this machine can do at the most: multiply-adds in registers, sgemm, reading memory.

A side like any other, so that its figures come from the same minutes as those of the rest.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from cgpt import kernels
from cgpt.bench.measure import repeated, seconds_of
from cgpt.version import __version__

TRIAL = 0.05  # seconds a trial of one instruction set
AS_FAST = 0.95  # of the fastest: where two sets are equal, a trial may favour either
PEAK_SECONDS = 0.05  # of one look at what the machine can do, beside what is measured
READ = 512 << 20  # bytes that the memory's bandwidth is measured over
SQUARE = 1024  # side of the matrices of a product beside the model's own


def multiply_adds(module: ModuleType, threads: int, seconds: float) -> float:
    """GFLOP/s of independent multiply-adds in registers, for about so many seconds."""
    module.set_num_threads(threads)
    ends = np.empty(threads, np.float32)
    rounds, spent, work = 64, 0.0, 0.0
    while spent < seconds:
        start = time.perf_counter()
        work = module.roofline_multiply_add(ends, rounds)
        spent = time.perf_counter() - start
        rounds *= 2 if spent < seconds / 4 else 1 + int(seconds / spent)
    return work / spent / 1e9


@cache
def best_set(threads: int) -> tuple[str, ModuleType]:
    """The instruction set, of those compiled, that multiplies and adds fastest; tried once.

    It is the one in use where that is as fast as any, so that bench names what info names.
    """
    found = {name: kernels.load(name) for name in kernels.runnable()}
    rates = {name: multiply_adds(module, threads, TRIAL) for name, module in found.items()}
    name = fastest(rates, kernels.instruction_set())
    return name, found[name]


def fastest(rates: Mapping[str, float], used: str) -> str:
    """The name with the highest rate; `used` where its rate is hardly lower."""
    best = max(rates, key=rates.__getitem__)
    return used if rates.get(used, 0.0) >= AS_FAST * rates[best] else best


def sgemm(products: list[list[int]], seconds: float) -> Callable[[], float]:
    """GFLOP/s of NumPy's float32 product: the best of (N, K) x (K, M) for each [N, K, M]."""
    runs = []
    for n, k, m in products:
        a, b = np.ones((n, k), np.float32), np.ones((k, m), np.float32)
        out = np.empty((n, m), np.float32)
        measure = repeated(partial(np.matmul, a, b, out=out), seconds)
        runs.append((2.0 * n * k * m, measure))
    return lambda: max(work / measure() / 1e9 for work, measure in runs)


def read_bandwidth(module: ModuleType, threads: int, size: int) -> Callable[[], float]:
    """GB/s of reading `size` bytes once, the best of three passes."""
    x, sums = np.ones(size // 4, np.float32), np.empty(8 * threads, np.float32)

    def measure() -> float:
        module.set_num_threads(threads)
        seconds = min(seconds_of(lambda: module.roofline_read(x, sums)) for _ in range(3))
        return x.nbytes / seconds / 1e9

    measure()
    return measure


def peaks(
    threads: int, seconds: float, products: list[list[int]], reads: dict[str, int]
) -> Callable[[], dict[str, Any]]:
    """Task: {"isa", "fma" and "sgemm" in GFLOP/s, "read": {name: GB/s}}.

    products  [N, K, M] to try with sgemm, beside a square one; without any there is no sgemm
    reads     bytes to read, by name
    """
    isa, module = best_set(threads)
    product = sgemm([[SQUARE] * 3, *products], seconds / 4) if products else None
    bandwidths = {name: read_bandwidth(module, threads, size) for name, size in reads.items()}

    def measure() -> dict[str, Any]:
        found: dict[str, Any] = {
            "isa": isa,
            "fma": multiply_adds(module, threads, seconds),
            "read": {name: read() for name, read in bandwidths.items()},
        }
        if product:  # last: the threads of its BLAS spin into whatever comes behind it
            found["sgemm"] = product()
        return found

    return measure


def peaks_task(
    threads: int,
    seconds: float,
    products: Sequence[list[int]] = (),
    reads: Mapping[str, int] | None = None,
) -> tuple[str, dict[str, Any]]:
    """The task `peaks` and its details; it reads READ bytes of "memory" where nothing is named."""
    reads = {"memory": READ} if reads is None else reads
    return "peaks", {"threads": threads, "seconds": seconds, "products": products, "reads": reads}


TASKS = {"peaks": peaks}


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return platform.processor()
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")


def installation() -> dict[str, Any]:
    """Version, instruction set, whether OpenMP is there, threads, and what they run on.

    usable_cpus are those that the affinity mask and the cgroups' quota (in processors, None for
    none) leave this process.
    """
    from cgpt import kernels
    from cgpt.runtime.processors import available, quota

    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "instruction_set": kernels.instruction_set(),
        "instruction_sets": ", ".join(kernels.runnable()),
        "openmp": kernels.has_openmp(),
        "threads": kernels.get_num_threads(),
        "cpus": os.cpu_count(),
        "usable_cpus": available(),
        "cpu_quota": quota(),
    }


def machine_report(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The results with the version, the machine and the shapes that they are of."""
    from cgpt import kernels
    from cgpt.bench.shapes import SHAPES

    configs = dict.fromkeys(one["config"] for one in results)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor(),
        "instruction_set": kernels.instruction_set(),
        "threads": kernels.get_num_threads(),
        "shapes": {name: vars(SHAPES[name]) for name in configs if name in SHAPES},
        "results": results,
    }
