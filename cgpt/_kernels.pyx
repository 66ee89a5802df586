"""Compiled kernels: argument checks and threads; the loops are in kernels/*.pxi.

This file is compiled once as the baseline module `cgpt._kernels` and once for each further
instruction set (kernels/avx2.pyx, kernels/avx512.pyx); cgpt.kernels chooses one at import.
All arrays are C-contiguous float32 unless a docstring says otherwise; the caller allocates.
Sums run in an order that depends on the shapes alone, so any number of threads gives the same
bits.
"""

from cython.parallel import parallel, prange, threadid

include "kernels/simd.pxi"
include "kernels/checks.pxi"
include "kernels/dot_products.pxi"

cdef int _threads = 1


def set_num_threads(int n):
    """Threads that kernels use from now on, at least 1; without OpenMP it stays 1."""
    global _threads
    if n < 1:
        raise ValueError(f"threads: found {n}, expected at least 1")
    _threads = n if cgpt_has_openmp() else 1


def get_num_threads():
    """Threads that kernels use."""
    return _threads


cdef inline int threads_for(double work) noexcept nogil:
    """Threads for about `work` float operations: below 200,000 (some 20 microseconds) a second
    thread costs more than it gives. Bits do not depend on it."""
    return _threads if work >= 2e5 else 1


def has_openmp():
    """Whether the kernels were built with OpenMP."""
    return bool(cgpt_has_openmp())


def cpu_level():
    """What this processor runs: 0 baseline, 1 AVX2 with FMA, 2 AVX-512 F, BW, DQ and VL."""
    return cgpt_cpu_level()


def vector_length():
    """float32 lanes of a vector in this module."""
    return VL


include "kernels/matmul.pxi"
include "kernels/linear.pxi"
include "kernels/norm.pxi"
include "kernels/activation.pxi"
include "kernels/prefetch.pxi"
include "kernels/attention.pxi"
include "kernels/embedding.pxi"
include "kernels/loss.pxi"
include "kernels/adamw.pxi"
include "kernels/muon.pxi"
include "kernels/roofline.pxi"
include "kernels/sampling.pxi"
include "kernels/attention_cached.pxi"
include "kernels/decode.pxi"
