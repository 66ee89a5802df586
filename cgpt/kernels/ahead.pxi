# Rows asked for ahead. A head's rows lie kilobytes apart, where no processor guesses the next
# one. So while a task computes, a row at a time of what it will write and of what its thread's
# next task reads is brought into the second cache; else both would wait for memory.

cdef enum:
    PARTS = 8       # most matrices of an Ahead

ctypedef struct Ahead:
    # `left` rows of each of `parts` matrices, D floats of each row, `stride` floats apart.
    const float *row[PARTS]
    Py_ssize_t stride[PARTS]
    Py_ssize_t left[PARTS]
    Py_ssize_t D
    int parts
    int part            # the one whose row comes next
    int at_once         # rows of a call


cdef inline Ahead ahead_of(Py_ssize_t D, int at_once) noexcept nogil:
    cdef Ahead ahead
    ahead.parts = ahead.part = 0
    ahead.D = D
    ahead.at_once = at_once
    return ahead


cdef inline void also_ahead(Ahead *ahead, const float *row, Py_ssize_t stride,
                            Py_ssize_t rows) noexcept nogil:
    """Ask for `rows` rows from `row` on behind those that are asked for already."""
    if rows == 0:
        return
    ahead.row[ahead.parts] = row
    ahead.stride[ahead.parts] = stride
    ahead.left[ahead.parts] = rows
    ahead.parts += 1


cdef inline void ask_ahead(Ahead *ahead) noexcept nogil:
    """Ask for some more rows, while there are any."""
    cdef Py_ssize_t d
    cdef int i
    for i in range(ahead.at_once):
        if ahead.part == ahead.parts:
            return
        for d from 0 <= d < ahead.D by 16:      # floats of a line of the cache
            PREFETCH_FAR(ahead.row[ahead.part] + d)
        ahead.row[ahead.part] += ahead.stride[ahead.part]
        ahead.left[ahead.part] -= 1
        if ahead.left[ahead.part] == 0:
            ahead.part += 1
