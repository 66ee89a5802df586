"""What a checkpoint's bytes need at the speed of memory: CRC-32, and float32 as decimal text.

Every function releases the GIL. The loops are C (crc32.h, decimal.h); their results are those of
`zlib.crc32` and of the shortest decimals that NumPy prints.
"""

from libc.stdint cimport uint32_t

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
