# Linear layers: y = x W^T, dx = dy W and dW += dy^T x.


cdef void product_unpacked(const Product *p, int threads) noexcept nogil:
    """C = A B, with rows of A interleaved, some at a time, and the rows of B^T unpacked."""
    cdef PrefetchQueue none = PrefetchQueue(NULL, 0, 0)
    cdef Py_ssize_t units = ceil_div(p.N, VL)
    cdef Py_ssize_t tasks = threads if p.M <= FEW_ROWS else ceil_div(units, 4)
    cdef Py_ssize_t most = max(L2_FLOATS // p.K, 1), R, start, rows, part, task
    cdef Weights weight = Weights(p.b.data, NULL, p.N, p.K, 0, FLOAT32)
    cdef Projection by = Projection(weight, p.epilogue.bias, dots_for(&weight, True),
                                    stream_for(&weight))
    cdef Operand x
    cdef Target to
    R = even_part(p.M, smaller(MAX_ROWS, ceil_div(most, TILE_ROWS) * TILE_ROWS), TILE_ROWS)
    x.queue = &none
    x.quads = cgpt_scratch(SLOT_SHARED, ceil_div(R, ROWS) * quads_stride(p.K))
    for start from 0 <= start < p.M by R:
        rows = smaller(R, p.M - start)
        x.x = p.a.data + start * p.K
        for part in prange(ceil_div(rows, ROWS), schedule="static",
                           num_threads=threads if rows > FEW_ROWS else 1):
            interleave_rows(x.x, rows, p.K, part, <float *>x.quads)
        to = Target(p.c + start * p.N, at(p.epilogue.residual, start * p.N),
                    <float *>at(p.epilogue.activated, start * p.N), GELU)
        for task in prange(tasks, num_threads=threads, schedule="dynamic"):
            project(&by, x, rows, to, units * task // tasks, units * (task + 1) // tasks,
                    <const char *>p.b.data)


def linear_forward(const float[:, ::1] x, const float[:, ::1] weight, bias, float[:, ::1] y,
                   residual=None, activated=None):
    """y = x W^T + b + residual, and activated = gelu(y).

    x          (N, K)
    weight     (M, K)
    bias       (M,) or None
    y          (N, M)  written; must not overlap x
    residual   (N, M) or None, added; must not overlap y
    activated  (N, M) or None, written
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], M = weight.shape[0]
    cdef const float[::1] b
    cdef Product p
    expect_shape("weight", weight, M, K)
    expect_shape("y", y, N, M)
    p.epilogue = Epilogue(NULL, optional("residual", residual, N, M),
                      optional_output("activated", activated, N, M), NULL, NULL, NULL)
    if bias is not None:
        b = bias
        expect_length("bias", b, M)
        p.epilogue.bias = &b[0] if M > 0 else NULL
    if N == 0 or M == 0:
        return
    p.a, p.b = Matrix(first_element(x), K, 1), Matrix(first_element(weight), 1, K)
    p.c, p.M, p.N, p.K, p.accumulate, p.upper = &y[0, 0], N, M, K, False, False
    cdef int threads = threads_for(2.0 * N * M * K)
    with nogil:
        if K == 0:
            empty_product(&p)
        elif N <= UNPACKED_ROWS:
            product_unpacked(&p, threads)
        else:
            gemm(&p, threads)


def linear_backward_input(const float[:, ::1] dy, const float[:, ::1] weight, float[:, ::1] dx,
                          preactivation=None, activated=None):
    """dx = dy W, overwriting dx; times gelu'(preactivation) where that is given.

    dy         (N, M)
    weight     (M, K)
    dx         (N, K)  must not overlap dy
    preactivation  (N, K) or None: x of the GELU whose y was the product's input
    activated      (N, K) or None, written: that y, gelu(preactivation), which must be given too
    Raises ValueError naming the array with a wrong shape.
    """
    cdef Py_ssize_t N = dy.shape[0], M = weight.shape[0], K = weight.shape[1]
    cdef Product p
    expect_shape("dy", dy, N, M)
    expect_shape("dx", dx, N, K)
    if activated is not None and preactivation is None:
        raise ValueError("activated: is made of preactivation, which is missing")
    p.epilogue = Epilogue(NULL, NULL, NULL, optional("preactivation", preactivation, N, K),
                          optional_output("activated", activated, N, K), NULL)
    if N == 0 or K == 0:
        return
    p.a, p.b = Matrix(first_element(dy), M, 1), Matrix(first_element(weight), K, 1)
    p.c, p.M, p.N, p.K, p.accumulate, p.upper = &dx[0, 0], N, K, M, False, False
    cdef int threads = threads_for(2.0 * N * M * K)
    with nogil:
        if M == 0:
            empty_product(&p)
        else:
            gemm(&p, threads)


def linear_backward_weight(const float[:, ::1] dy, const float[:, ::1] x, float[:, ::1] dweight,
                           dbias):
    """dW += dy^T x and db += the column sums of dy.

    dy (N, M), x (N, K), dweight (M, K), dbias (M,) or None.
    Raises ValueError naming the array with a wrong shape.
    """
    cdef Py_ssize_t N = dy.shape[0], M = dy.shape[1], K = x.shape[1]
    cdef float[::1] db
    cdef Product p
    expect_shape("x", x, N, K)
    expect_shape("dweight", dweight, M, K)
    if dbias is not None:
        db = dbias
        expect_length("dbias", db, M)
    if N == 0 or M == 0 or K == 0:
        return
    p.epilogue = Epilogue(NULL, NULL, NULL, NULL, NULL, NULL)
    if dbias is not None:
        p.epilogue.sums = &db[0]
    p.a, p.b = Matrix(&dy[0, 0], 1, M), Matrix(&x[0, 0], K, 1)
    p.c, p.M, p.N, p.K, p.accumulate, p.upper = &dweight[0, 0], M, K, N, True, False
    with nogil:
        gemm(&p, threads_for(2.0 * N * M * K))
