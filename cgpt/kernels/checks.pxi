# Argument checks: a ValueError names the array, its shape and the shape expected.

cdef int expect(str name, Py_ssize_t found, Py_ssize_t expected) except -1:
    if found != expected:
        raise ValueError(f"{name}: found {found}, expected {expected}")
    return 0


cdef int expect_shape(str name, const float[:, ::1] x, Py_ssize_t rows, Py_ssize_t columns) except -1:
    if x.shape[0] != rows or x.shape[1] != columns:
        raise ValueError(f"{name}: found shape ({x.shape[0]}, {x.shape[1]}), "
                         f"expected ({rows}, {columns})")
    return 0


cdef int expect_length(str name, const float[::1] x, Py_ssize_t length) except -1:
    if x.shape[0] != length:
        raise ValueError(f"{name}: found shape ({x.shape[0]},), expected ({length},)")
    return 0


cdef int expect_range(str name, const int[::1] values, Py_ssize_t low, Py_ssize_t high) except -1:
    """Every value in [low, high)."""
    cdef Py_ssize_t i
    for i in range(values.shape[0]):
        if values[i] < low or values[i] >= high:
            raise ValueError(f"{name}[{i}]: found {values[i]}, expected {low} to {high - 1}")
    return 0


cdef int expect_offsets(const int[::1] offsets, Py_ssize_t rows) except -1:
    """Document borders: offsets[0] = 0, ascending, offsets[-1] = rows."""
    cdef Py_ssize_t i
    if offsets.shape[0] < 2 or offsets[0] != 0 or offsets[offsets.shape[0] - 1] != rows:
        raise ValueError(f"offsets: must start at 0 and end at {rows} (the rows)")
    for i in range(1, offsets.shape[0]):
        if offsets[i] <= offsets[i - 1]:
            raise ValueError(f"offsets[{i}]: found {offsets[i]} after {offsets[i - 1]}, "
                             "expected ascending borders")
    return 0


cdef inline const float *first_element(const float[:, ::1] x) noexcept nogil:
    """Where an array begins; NULL where it has no element, which a bounds check would refuse."""
    if x.shape[0] > 0 and x.shape[1] > 0:
        return &x[0, 0]
    return NULL


cdef const float *optional(str name, array, Py_ssize_t rows, Py_ssize_t columns) except? NULL:
    """Where a (rows, columns) array begins; NULL for None."""
    cdef const float[:, ::1] x
    if array is None:
        return NULL
    x = array
    expect_shape(name, x, rows, columns)
    return first_element(x)


cdef float *optional_output(str name, array, Py_ssize_t rows, Py_ssize_t columns) except? NULL:
    """The same of an array that is written."""
    cdef float[:, ::1] x
    if array is None:
        return NULL
    x = array
    expect_shape(name, x, rows, columns)
    return <float *>first_element(x)
