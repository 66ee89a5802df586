"""What a checkpoint's bytes need at the speed of memory: CRC-32, and float32 as decimal text.

Every function releases the GIL. The loops are C (crc32.h, decimal.h); their results are those of
`zlib.crc32` and of the shortest decimals that NumPy prints.
"""

from array import array

from libc.stdint cimport int64_t, uint32_t

cdef extern from "crc32.h" nogil:
    void cgpt_crc_prepare()
    int cgpt_crc_folds()
    uint32_t cgpt_crc32(uint32_t crc, const unsigned char *p, size_t n, int fold)

cgpt_crc_prepare()
cdef int _folds = cgpt_crc_folds()


def crc32(const unsigned char[::1] data, uint32_t crc=0, bint fold=True):
    """zlib.crc32(data, crc) of any bytes-like object.

    fold  False leaves out the processor's carry-less multiplication, for tests
    """
    cdef size_t n = data.shape[0]
    cdef const unsigned char *start = &data[0] if n else NULL
    with nogil:
        crc = cgpt_crc32(crc, start, n, fold and _folds)
    return crc


def crc32_parts(const unsigned char[::1] data, const int64_t[::1] starts,
                const int64_t[::1] lengths):
    """The CRC-32 of several parts of `data`, as a list; the GIL is released once for all.

    Raises ValueError for a part that is not inside `data`.
    """
    cdef Py_ssize_t i, n = starts.shape[0]
    if lengths.shape[0] != n:
        raise ValueError(f"lengths: found {lengths.shape[0]}, expected {n}")
    for i in range(n):
        if not 0 <= starts[i] <= data.shape[0] or not 0 <= lengths[i] <= data.shape[0] - starts[i]:
            raise ValueError(f"part {i}: found {lengths[i]} bytes at {starts[i]}, expected them "
                             f"inside {data.shape[0]}")
    found = array("I", bytes(4 * n))
    cdef uint32_t[::1] crcs = found
    with nogil:
        for i in range(n):
            crcs[i] = cgpt_crc32(0, &data[0] + starts[i], lengths[i], _folds)
    return found.tolist()
