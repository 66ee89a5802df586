# Arrays of Python that the decoder points at for as long as it lives.

ctypedef struct Norm:
    const float *weight     # NULL where nothing is normalised
    const float *bias
    float eps


cdef int bind(Projection *p, str name, weight, bias, Py_ssize_t rows,
              Py_ssize_t columns) except -1:
    """Point at a matrix (rows, columns): an array of float32 or float16, or for int8 a tuple of
    values, scales and group."""
    cdef const float[:, ::1] floats
    cdef const unsigned short[:, ::1] halves
    cdef const signed char[:, ::1] values
    cdef const float[:, ::1] scales
    cdef const float[::1] b
    p.weight.rows, p.weight.columns = rows, columns
    p.weight.group, p.weight.scales, p.bias = 0, NULL, NULL
    if isinstance(weight, tuple):
        values, scales, p.weight.group = weight
        if p.weight.group != 32 and p.weight.group != 64:
            raise ValueError(f"{name}: found groups of {p.weight.group}, expected 32 or 64")
        expect(f"{name}: rows", values.shape[0], rows)
        expect(f"{name}: columns", values.shape[1], columns)
        expect_shape(f"{name}: scales", scales, rows, blocks(columns, p.weight.group))
        p.weight.form, p.weight.data, p.weight.scales = INT8, &values[0, 0], &scales[0, 0]
    elif weight.dtype.itemsize == 2:
        halves = weight.view("uint16")
        expect(f"{name}: rows", halves.shape[0], rows)
        expect(f"{name}: columns", halves.shape[1], columns)
        p.weight.form, p.weight.data = FLOAT16, &halves[0, 0]
    else:
        floats = weight
        expect_shape(name, floats, rows, columns)
        p.weight.form, p.weight.data = FLOAT32, &floats[0, 0]
    if bias is not None:
        b = bias
        expect_length(f"{name}: bias", b, rows)
        p.bias = &b[0]
    return 0


cdef inline Py_ssize_t choose_dots(Projection *p, bint far) noexcept nogil:
    """How the projection multiplies, from memory if `far`; the bytes of its weights."""
    p.dots = dots_for(&p.weight, far)
    p.stream = stream_for(&p.weight)
    return p.weight.rows * row_bytes(&p.weight)


cdef int bind_norm(Norm *p, norm, Py_ssize_t length) except -1:
    """Point at (weight, bias, eps); None for no norm."""
    if norm is None:
        p.weight = NULL
        return 0
    weight, bias, p.eps = norm
    p.weight = vector_of("norm: weight", weight, length)
    p.bias = vector_of("norm: bias", bias, length)
    return 0


cdef const float *vector_of(str name, array, Py_ssize_t length) except NULL:
    cdef const float[::1] x = array
    expect_length(name, x, length)
    return &x[0]
