# Embedding, and the choice of rows that leave the last block.

cdef enum:
    COLUMNS = 64    # columns of one task of the backward sums


def embedding_forward(const int[::1] ids, const int[::1] positions, const float[:, ::1] wte,
                      const float[:, ::1] wpe, float[:, ::1] y):
    """y[n] = wte[ids[n]] + wpe[positions[n]].

    ids, positions  (N,) int32
    wte, wpe        (V, C), (T, C)
    y               (N, C) written
    Raises ValueError naming the array whose shape is wrong or the index out of range.
    """
    cdef Py_ssize_t N = ids.shape[0], C = wte.shape[1], n
    expect("positions", positions.shape[0], N)
    expect_shape("wpe", wpe, wpe.shape[0], C)
    expect_shape("y", y, N, C)
    expect_range("ids", ids, 0, wte.shape[0])
    expect_range("positions", positions, 0, wpe.shape[0])
    cdef int threads = threads_for(1.0 * N * C)
    for n in prange(N, nogil=True, num_threads=threads, schedule="static"):
        add_span(&wte[ids[n], 0], &wpe[positions[n], 0], &y[n, 0], C)


cdef void scatter_columns(const float *dy, const int *rows, float *dw, Py_ssize_t N, Py_ssize_t C,
                          Py_ssize_t width) noexcept nogil:
    """dw[rows[n]] += dy[n] for `width` columns, n in order, so that equal rows add up alike."""
    cdef Py_ssize_t n
    for n in range(N):
        add_span(dw + rows[n] * C, dy + n * C, dw + rows[n] * C, width)


def embedding_backward(const float[:, ::1] dy, const int[::1] ids, const int[::1] positions,
                       float[:, ::1] dwte, dwpe):
    """dwte[ids[n]] += dy[n] and dwpe[positions[n]] += dy[n].

    dy (N, C), ids and positions (N,) int32, dwte (V, C), dwpe (T, C) or None.
    Raises ValueError naming the array whose shape is wrong or the index out of range.
    """
    cdef Py_ssize_t N = ids.shape[0], C = dwte.shape[1], part
    cdef float[:, ::1] table
    cdef float *sums = NULL
    expect("positions", positions.shape[0], N)
    expect_shape("dy", dy, N, C)
    expect_range("ids", ids, 0, dwte.shape[0])
    if dwpe is not None:
        table = dwpe
        expect_shape("dwpe", table, table.shape[0], C)
        expect_range("positions", positions, 0, table.shape[0])
        sums = <float *>first_element(table)
    if N == 0:
        return
    cdef int threads = threads_for(2.0 * N * C)
    for part in prange(ceil_div(C, COLUMNS), nogil=True, num_threads=threads, schedule="static"):
        scatter_columns(&dy[0, part * COLUMNS], &ids[0], &dwte[0, part * COLUMNS], N, C,
                        smaller(COLUMNS, C - part * COLUMNS))
        if sums != NULL:
            scatter_columns(&dy[0, part * COLUMNS], &positions[0], sums + part * COLUMNS, N, C,
                            smaller(COLUMNS, C - part * COLUMNS))


def gather_rows(const float[:, ::1] x, const int[::1] rows, float[:, ::1] y):
    """y[i] = x[rows[i]].  x (N, C), rows (R,) int32, y (R, C) written."""
    cdef Py_ssize_t R = rows.shape[0], C = x.shape[1], i
    expect_shape("y", y, R, C)
    expect_range("rows", rows, 0, x.shape[0])
    cdef int threads = threads_for(1.0 * R * C)
    for i in prange(R, nogil=True, num_threads=threads, schedule="static"):
        memcpy(&y[i, 0], &x[rows[i], 0], C * sizeof(float))


def scatter_rows(const float[:, ::1] dy, const int[::1] rows, float[:, ::1] dx):
    """dx = 0, then dx[rows[i]] = dy[i].  dy (R, C), rows (R,) int32 without repeats, dx (N, C)."""
    cdef Py_ssize_t R = rows.shape[0], C = dx.shape[1], i
    expect_shape("dy", dy, R, C)
    expect_range("rows", rows, 0, dx.shape[0])
    if dx.shape[0] > 0:
        memset(&dx[0, 0], 0, dx.shape[0] * C * sizeof(float))
    cdef int threads = threads_for(1.0 * R * C)
    for i in prange(R, nogil=True, num_threads=threads, schedule="static"):
        memcpy(&dx[rows[i], 0], &dy[i, 0], C * sizeof(float))
