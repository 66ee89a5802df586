# Prefetched rows. A head's rows lie kilobytes apart, beyond what a hardware prefetcher predicts. So
# while a task computes, a row at a time of what it will write and of what its thread's next task
# reads is brought into the second cache; else both would wait for memory.

cdef enum:
    MAX_PREFETCHED = 8       # most matrices of a Prefetch

ctypedef struct Prefetch:
    # `left` rows of each of `parts` matrices, D floats of each row, `stride` floats apart.
    const float *row[MAX_PREFETCHED]
    Py_ssize_t stride[MAX_PREFETCHED]
    Py_ssize_t left[MAX_PREFETCHED]
    Py_ssize_t D
    int parts
    int part            # the one whose row comes next
    int rows_per_call         # rows of a call


cdef inline Prefetch new_prefetch(Py_ssize_t D, int rows_per_call) noexcept nogil:
    cdef Prefetch prefetch
    prefetch.parts = prefetch.part = 0
    prefetch.D = D
    prefetch.rows_per_call = rows_per_call
    return prefetch


cdef inline void add_prefetch(Prefetch *prefetch, const float *row, Py_ssize_t stride,
                            Py_ssize_t rows) noexcept nogil:
    """Queue `rows` rows from `row` on for prefetching."""
    if rows == 0:
        return
    prefetch.row[prefetch.parts] = row
    prefetch.stride[prefetch.parts] = stride
    prefetch.left[prefetch.parts] = rows
    prefetch.parts += 1


cdef inline void prefetch_rows(Prefetch *prefetch) noexcept nogil:
    """Prefetch the next few rows, while there are any."""
    cdef Py_ssize_t d
    cdef int i
    for i in range(prefetch.rows_per_call):
        if prefetch.part == prefetch.parts:
            return
        for d from 0 <= d < prefetch.D by 16:      # floats of a line of the cache
            PREFETCH_FAR(prefetch.row[prefetch.part] + d)
        prefetch.row[prefetch.part] += prefetch.stride[prefetch.part]
        prefetch.left[prefetch.part] -= 1
        if prefetch.left[prefetch.part] == 0:
            prefetch.part += 1
