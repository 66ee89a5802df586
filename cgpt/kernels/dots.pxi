# What dots.h gives: dot products of a few rows with a matrix as it is stored.
cdef extern from "dots.h" nogil:
    enum: FLOAT32
    enum: FLOAT16
    enum: INT8
    enum: QUANTUM
    enum: ROWS
    ctypedef struct Weights:
        const void *data
        const float *scales
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t group
        int form
    ctypedef struct Operand:
        const float *x
        const float *quads
        const signed char *q
        const float *scales
        const int *correction
        Py_ssize_t padded
    ctypedef void (*Dots)(const Weights *m, const Operand *o, Py_ssize_t rows, Py_ssize_t j0,
                          const char *ahead, float *out) noexcept nogil
    Dots dots_for(const Weights *m, int far)
    Py_ssize_t row_bytes(const Weights *m)
    vf vsums(vf *x)
    Py_ssize_t quads_stride(Py_ssize_t K)
    void interleave_row(const float *x, Py_ssize_t K, Py_ssize_t row, float *quads)
    vf vload_half(const unsigned short *p)
    void quantize_row(const float *x, Py_ssize_t K, signed char *q, float *scales,
                      int *correction)
    Weights widened(const Weights *m, void *room)
    void wait_for_all()
    int threads_here()

cdef enum:
    MOST_ROWS = 64  # of x at a time

cdef enum Finishing:
    WRITE           # y = x W^T + b
    WRITE_GELU      # y = gelu(x W^T + b)
    ADD             # y += x W^T + b

ctypedef struct Projection:
    Weights weight
    const float *bias
    Dots dots


cdef Operand operand_of_floats(const float *x, Py_ssize_t R, Py_ssize_t K) noexcept nogil:
    """Rows of x (R, K), interleaved in the scratch of the thread that calls."""
    cdef Py_ssize_t r, whole = blocks(R, ROWS) * ROWS
    cdef float *quads = cgpt_scratch(SLOT_SHARED, whole // ROWS * quads_stride(K))
    if R > 1:
        for r in range(whole):
            interleave_row(x + r * K if r < R else NULL, K, r, quads)
    return Operand(x, quads, NULL, NULL, NULL, K)


cdef void finish(Projection *p, float *y, const float *sums, Py_ssize_t j0, Py_ssize_t skip,
                 Py_ssize_t n, Finishing how) noexcept nogil:
    """Columns j0 + skip .. j0 + n of a row y from dot products `sums` (VL,) of columns j0 on."""
    cdef float part[VL]
    cdef vf v = vload(sums)
    cdef Py_ssize_t j
    if p.bias != NULL:
        v = v + load(p.bias + j0, n)
    if how == WRITE_GELU:
        v = v * gelu_gate(v)
    if skip == 0:
        store(y + j0, load(y + j0, n) + v if how == ADD else v, n)
        return
    vstore(part, v)
    for j in range(skip, n):
        y[j0 + j] = y[j0 + j] + part[j] if how == ADD else part[j]


cdef inline Py_ssize_t first_unit(const Weights *m, int thread, int threads) noexcept nogil:
    """Of the units of VL columns of a product, the first that is a thread's."""
    return blocks(m.rows, VL) * thread // threads


cdef inline const char *row_of(const Weights *m, Py_ssize_t j) noexcept nogil:
    return <const char *>m.data + j * row_bytes(m)


cdef inline const char *first_weights(const Weights *m, int thread, int threads) noexcept nogil:
    """Where a thread's part of a matrix begins."""
    return row_of(m, smaller(first_unit(m, thread, threads) * VL, max(m.rows - VL, 0)))


cdef void project(Projection *p, Operand x, Py_ssize_t R, float *y, Finishing how, int thread,
                  int threads, const char *then) noexcept nogil:
    """This thread's columns of y (R, M); what it reads next, from `then` on, is asked for."""
    cdef Py_ssize_t M = p.weight.rows, r, j, j0, n = smaller(VL, M), most = max(M - VL, 0)
    cdef Py_ssize_t last = first_unit(&p.weight, thread + 1, threads)
    cdef float sums[MOST_ROWS * VL]
    cdef Weights whole = p.weight
    if M < VL:
        whole = widened(&p.weight, cgpt_scratch(
            SLOT_THREAD, VL * (whole.columns + blocks(whole.columns, 32)) + 1))
    for j in range(first_unit(&p.weight, thread, threads), last):
        # The last columns are made once more, so that there are VL of them.
        j0 = smaller(j * VL, most)
        p.dots(&whole, &x, R, j0,
               row_of(&whole, smaller(j0 + VL, most)) if j + 1 < last else then, sums)
        for r in range(R):
            finish(p, y + r * M, sums + r * VL, j0, j * VL - j0, n, how)
