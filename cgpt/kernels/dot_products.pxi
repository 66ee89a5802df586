# Declarations of dot_products.h: dot products of a few rows with a matrix as it is stored.
cdef extern from "dot_products.h" nogil:
    enum: FLOAT32
    enum: FLOAT16
    enum: INT8
    enum: QUANTUM
    enum: ROWS
    enum: TILE_ROWS
    enum: UNPACKED_ROWS
    ctypedef struct Weights:
        const void *data
        const float *scales
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t group
        int form
    ctypedef struct MemoryRange:
        const char *start
        Py_ssize_t bytes
    ctypedef struct PrefetchQueue:
        const MemoryRange *ranges
        Py_ssize_t left
        Py_ssize_t done
    ctypedef struct Operand:
        const float *x
        const float *quads
        const signed char *q
        const float *scales
        const int *correction
        Py_ssize_t padded
        PrefetchQueue *queue
    ctypedef void (*Dots)(const Weights *m, const Operand *o, Py_ssize_t rows, Py_ssize_t j0,
                          const char *prefetch, float *out) noexcept nogil
    Dots dots_for(const Weights *m, int far)
    ctypedef void (*Stream)(const Weights *m, const Operand *o, Py_ssize_t first, Py_ssize_t last,
                            float *out) noexcept nogil
    Stream stream_for(const Weights *m)
    Py_ssize_t row_bytes(const Weights *m)
    vf vsums(vf *x)
    Py_ssize_t quads_stride(Py_ssize_t K)
    void interleave_row(const float *x, Py_ssize_t K, Py_ssize_t row, float *quads)
    vf vload_half(const unsigned short *p)
    void quantize_row(const float *x, Py_ssize_t K, signed char *q, float *scales,
                      int *correction)
    Weights with_zero_rows(const Weights *m, void *buffer)
    void thread_barrier()
    int team_size()

cdef enum:
    MAX_ROWS = 252     # of x at a time
cdef enum:
    L2_FLOATS = 192 << 10  # floats of x, which stay in the second cache
cdef enum:
    FEW_ROWS = 64            # rows up to which the time is that of reading the weights

ctypedef struct Projection:
    Weights weight
    const float *bias
    Dots dots
    Stream stream           # of one row, or NULL


cdef void interleave_rows(const float *x, Py_ssize_t R, Py_ssize_t K, Py_ssize_t part,
                          float *quads) noexcept nogil:
    """Part `part`, ROWS rows, of x (R, K), zeros behind the last; one row alone stays as it is."""
    cdef Py_ssize_t r
    if R > 1:
        for r in range(part * ROWS, (part + 1) * ROWS):
            interleave_row(x + r * K if r < R else NULL, K, r, quads)


cdef enum:
    GELU = 1
cdef enum:
    RELU = 2

ctypedef struct Target:
    # (R, M) each, or NULL
    float *y                # = x W^T + b + residual; may be the residual
    const float *residual
    float *activated        # = activation(y)
    int activation


cdef inline void epilogue(const Target *to, Py_ssize_t first, vf y, Py_ssize_t n) noexcept nogil:
    """n elements from the `first` on, of which y is x W^T + b."""
    if to.residual != NULL:
        y = y + load(to.residual + first, n)
    if to.y != NULL:
        store(to.y + first, y, n)
    if to.activated != NULL:
        store(to.activated + first,
              y * gelu_gate(y) if to.activation == GELU else vmax(y, vset1(0)), n)


cdef inline Py_ssize_t first_unit(const Weights *m, int thread, int threads) noexcept nogil:
    """Of the units of VL columns of a product, the first that is a thread's."""
    return ceil_div(m.rows, VL) * thread // threads


cdef inline const char *row_of(const Weights *m, Py_ssize_t j) noexcept nogil:
    return <const char *>m.data + j * row_bytes(m)


cdef inline const char *first_weights(const Weights *m, int thread, int threads) noexcept nogil:
    """Where a thread's part of a matrix begins."""
    return row_of(m, smaller(first_unit(m, thread, threads) * VL, max(m.rows - VL, 0)))


cdef void project_in_streams(Projection *p, const Operand *x, const Target *to, Py_ssize_t first,
                             Py_ssize_t last) noexcept nogil:
    """Columns `first` to `last` of a product of one row."""
    cdef float *sums = cgpt_scratch(SLOT_SUMS, last - first)
    cdef Py_ssize_t j, n
    cdef vf y
    p.stream(&p.weight, x, first, last, sums)
    for j from first <= j < last by VL:
        n = smaller(VL, last - j)
        y = load(sums + j - first, n)
        epilogue(to, j, y + load(p.bias + j, n) if p.bias != NULL else y, n)


cdef void project(Projection *p, Operand x, Py_ssize_t R, Target to, Py_ssize_t begin,
                  Py_ssize_t end, const char *next_weights) noexcept nogil:
    """Units begin .. end of VL columns of a product; what is read next, from `next_weights` on, is
    prefetched."""
    cdef Py_ssize_t M = p.weight.rows, most = max(M - VL, 0), unit, j, j0, r, n
    cdef float sums[MAX_ROWS * VL]
    cdef vf bias = vset1(0)
    cdef Weights whole = p.weight
    if M < VL:
        whole = with_zero_rows(&p.weight, cgpt_scratch(
            SLOT_THREAD, VL * (whole.columns + ceil_div(whole.columns, 32)) + 1))
    elif R == 1 and p.stream != NULL:
        project_in_streams(p, &x, &to, begin * VL, smaller(end * VL, M))
        return
    for unit in range(begin, end):
        # The last columns are made once more, so that there are VL of them.
        j = unit * VL
        j0, n = smaller(j, most), smaller(VL, M - j)
        p.dots(&whole, &x, R, j0,
               row_of(&whole, smaller(j + VL, most)) if unit + 1 < end else next_weights, sums)
        if p.bias != NULL:
            bias = load(p.bias + j, n)
        for r in range(R):
            epilogue(&to, r * M + j, load(sums + r * VL + j - j0, n) + bias, n)
