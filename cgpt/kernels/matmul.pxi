# Products: one packed, blocked matrix product serves y = x W^T, dx = dy W and dW += dy^T x.
#
# A depth block of B (KC x NC) is packed once, by all threads, into panels of NR columns; then
# each task packs MC rows of A and runs the micro-kernel over its tiles. The depth is cut into
# fixed blocks added in order, so the bits depend neither on the threads nor on the tasks.
# Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication".

cdef enum:
    KC = 256      # depth of a block: a B panel (KC x NR floats) stays in the first cache
cdef enum:
    MC = 96       # rows of A a task packs: MC x KC floats stay in the second cache
cdef enum:
    NC = 1024     # columns of B packed at a time: KC x NC floats stay in the last cache
cdef enum:
    NT = 256      # columns a task covers
cdef enum:
    FEW = 4       # up to this many rows, packing costs more than it gives

ctypedef struct Matrix:
    # element (i, j) is at data[i * row + j * column]
    const float *data
    Py_ssize_t row
    Py_ssize_t column


cdef inline const float *at(const float *p, Py_ssize_t i) noexcept nogil:
    """p + i, NULL for NULL."""
    return p + i if p != NULL else p


cdef void gemm_tile(Py_ssize_t depth, const float *a, const float *b, float *c, Py_ssize_t ldc,
                    Py_ssize_t rows, Py_ssize_t columns, int add, const float *bias) noexcept nogil:
    """One MR x NR tile; a tile at the border goes through a buffer of the whole size."""
    cdef float tile[MR * NR]
    cdef float tile_bias[NR]
    cdef Py_ssize_t i, j
    if rows >= MR and columns >= NR:
        micro_kernel(depth, a, b, c, ldc, add, bias)
        return
    rows = smaller(rows, MR)
    columns = smaller(columns, NR)
    if add == ADD_BIAS:
        memset(tile_bias, 0, sizeof(tile_bias))
        memcpy(tile_bias, bias, columns * sizeof(float))
    micro_kernel(depth, a, b, tile, NR, ADD_BIAS if add == ADD_BIAS else STORE, tile_bias)
    for i in range(rows):
        for j in range(columns):
            if add == ACCUMULATE:
                c[i * ldc + j] += tile[i * NR + j]
            else:
                c[i * ldc + j] = tile[i * NR + j]


cdef void gemm_task(Matrix a, const float *b_panels, float *c, Py_ssize_t ldc, Py_ssize_t rows,
                    Py_ssize_t columns, Py_ssize_t depth, int add, const float *bias) noexcept nogil:
    """rows x columns of C from `rows` rows of A and packed panels of B."""
    cdef float *a_panels = cgpt_scratch(SLOT_THREAD, (MC + MR) * KC)
    cdef Py_ssize_t i, j
    pack_panels(a.data, a.row, a.column, rows, depth, MR, 1.0, a_panels)
    for j from 0 <= j < columns by NR:
        for i from 0 <= i < rows by MR:
            gemm_tile(depth, a_panels + i * depth, b_panels + j * depth, c + i * ldc + j, ldc,
                      rows - i, columns - j, add, at(bias, j))


cdef void gemm(Matrix a, Matrix b, float *c, Py_ssize_t M, Py_ssize_t N, Py_ssize_t K,
               bint accumulate, const float *bias, int threads) noexcept nogil:
    """C (M, N) = A (M, K) B (K, N) [+ C] [+ bias (N,)]; C is contiguous."""
    cdef float *b_panels = cgpt_scratch(SLOT_SHARED, (NC + NR) * KC)
    cdef Py_ssize_t j0, k0, columns, depth, part, parts, task, row_blocks, column_blocks
    cdef int add
    cdef Matrix block
    if K == 0 and not accumulate:
        for j0 in range(M * N):
            c[j0] = bias[j0 % N] if bias != NULL else 0
    for j0 from 0 <= j0 < N by NC:
        columns = smaller(NC, N - j0)
        for k0 from 0 <= k0 < K by KC:
            depth = smaller(KC, K - k0)
            block.data = b.data + k0 * b.row + j0 * b.column
            parts = blocks(columns, NR)
            for part in prange(parts, num_threads=threads, schedule="static"):
                pack_panels(block.data + part * NR * b.column, b.column, b.row,
                            smaller(NR, columns - part * NR), depth, NR, 1.0,
                            b_panels + part * NR * depth)
            add = ACCUMULATE if (accumulate or k0 > 0) else (STORE if bias == NULL else ADD_BIAS)
            row_blocks = blocks(M, MC)
            column_blocks = blocks(columns, NT)
            for task in prange(row_blocks * column_blocks, num_threads=threads,
                               schedule="dynamic"):
                gemm_block(a, b_panels, c, M, N, k0, depth, j0, columns,
                           task // column_blocks, task % column_blocks, add, bias)


cdef void gemm_block(Matrix a, const float *b_panels, float *c, Py_ssize_t M, Py_ssize_t N,
                     Py_ssize_t k0, Py_ssize_t depth, Py_ssize_t j0, Py_ssize_t columns,
                     Py_ssize_t row_block, Py_ssize_t column_block, int add,
                     const float *bias) noexcept nogil:
    """Task (row_block, column_block) of a packed block of B: finds its part of A, B and C."""
    cdef Py_ssize_t i = row_block * MC, j = column_block * NT
    a.data += i * a.row + k0 * a.column
    gemm_task(a, b_panels + j * depth, c + i * N + j0 + j, N, smaller(MC, M - i),
              smaller(NT, columns - j), depth, add, at(bias, j0 + j))


cdef inline float dot(const float *x, const float *y, Py_ssize_t n) noexcept nogil:
    cdef vf sum0 = vset1(0), sum1 = vset1(0)
    cdef Py_ssize_t i = 0
    while i + 2 * VL <= n:
        sum0 = sum0 + vload(x + i) * vload(y + i)
        sum1 = sum1 + vload(x + i + VL) * vload(y + i + VL)
        i += 2 * VL
    while i < n:
        sum0 = sum0 + load(x + i, n - i) * load(y + i, n - i)
        i += VL
    return vsum(sum0 + sum1)


cdef void linear_rows(const float *x, const float *weight, const float *bias, float *y,
                      Py_ssize_t rows, Py_ssize_t M, Py_ssize_t K, Py_ssize_t j) noexcept nogil:
    """Output column j of a few rows: each weight row is read once."""
    cdef Py_ssize_t i
    for i in range(rows):
        y[i * M + j] = dot(x + i * K, weight + j * K, K) + (bias[j] if bias != NULL else 0)


def linear_forward(const float[:, ::1] x, const float[:, ::1] weight, bias, float[:, ::1] y):
    """y = x W^T + b.

    x       (N, K)
    weight  (M, K)
    bias    (M,) or None
    y       (N, M)  written; must not overlap x
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], M = weight.shape[0], j
    cdef const float[::1] b
    cdef const float *pb = NULL
    cdef Matrix A, B
    expect_shape("weight", weight, M, K)
    expect_shape("y", y, N, M)
    if bias is not None:
        b = bias
        expect_length("bias", b, M)
        pb = &b[0]
    if N == 0 or M == 0:
        return
    cdef const float *px = first_element(x)
    cdef const float *pw = first_element(weight)
    cdef float *py = &y[0, 0]
    cdef int threads = threads_for(2.0 * N * M * K)
    with nogil:
        if N <= FEW:
            for j in prange(M, num_threads=threads, schedule="static"):
                linear_rows(px, pw, pb, py, N, M, K, j)
        else:
            A = Matrix(px, K, 1)
            B = Matrix(pw, 1, K)
            gemm(A, B, py, N, M, K, False, pb, threads)


def linear_backward_input(const float[:, ::1] dy, const float[:, ::1] weight, float[:, ::1] dx):
    """dx = dy W, overwriting dx.

    dy (N, M), weight (M, K), dx (N, K). Raises ValueError naming the array with a wrong shape.
    """
    cdef Py_ssize_t N = dy.shape[0], M = weight.shape[0], K = weight.shape[1]
    cdef Matrix A, B
    expect_shape("dy", dy, N, M)
    expect_shape("dx", dx, N, K)
    if N == 0 or K == 0:
        return
    A = Matrix(first_element(dy), M, 1)
    B = Matrix(first_element(weight), K, 1)
    cdef float *pdx = &dx[0, 0]
    cdef int threads = threads_for(2.0 * N * M * K)
    with nogil:
        gemm(A, B, pdx, N, K, M, False, NULL, threads)


def linear_backward_weight(const float[:, ::1] dy, const float[:, ::1] x, float[:, ::1] dweight,
                           dbias):
    """dW += dy^T x and db += the column sums of dy.

    dy (N, M), x (N, K), dweight (M, K), dbias (M,) or None.
    Raises ValueError naming the array with a wrong shape.
    """
    cdef Py_ssize_t N = dy.shape[0], M = dy.shape[1], K = x.shape[1]
    cdef float[::1] db
    cdef Matrix A, B
    expect_shape("x", x, N, K)
    expect_shape("dweight", dweight, M, K)
    if dbias is not None:
        db = dbias
        expect_length("dbias", db, M)
    if N == 0 or M == 0 or K == 0:
        return
    cdef const float *pdy = &dy[0, 0]
    cdef float *pdb = &db[0] if dbias is not None else NULL
    cdef float *pdw = &dweight[0, 0]
    cdef int threads = threads_for(2.0 * N * M * K)
    cdef Py_ssize_t part
    A = Matrix(pdy, 1, M)
    B = Matrix(&x[0, 0], K, 1)
    with nogil:
        gemm(A, B, pdw, M, K, N, True, NULL, threads)
        if pdb != NULL:
            for part in prange(blocks(M, 64), num_threads=threads, schedule="static"):
                add_column_sums(pdy + part * 64, M, N, smaller(64, M - part * 64), pdb + part * 64)


cdef void add_column_sums(const float *x, Py_ssize_t ldx, Py_ssize_t rows, Py_ssize_t columns,
                          float *sums) noexcept nogil:
    """sums[j] += sum over rows of x[:, j], for at most 64 columns, rows in order."""
    cdef float total[64]
    cdef Py_ssize_t i, j
    memset(total, 0, sizeof(total))
    for i in range(rows):
        for j in range(columns):
            total[j] += x[i * ldx + j]
    for j in range(columns):
        sums[j] += total[j]
