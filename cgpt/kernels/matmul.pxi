# Products: one packed, blocked matrix product serves y = x W^T, dx = dy W and dW += dy^T x.
#
# Where C has many rows, columns of B are packed by all threads into panels of NR columns, and a
# task takes some rows of C: it packs those rows of A, a block of the depth at a time, and runs the
# micro-kernel over its tiles. Where C has few rows, A is packed by all threads, and a task takes
# some columns and packs those of B. What is finished is, while still in the cache, completed by
# bias, GELU or residual. The depth is cut into blocks that depend on the shape alone and are
# added in order, so the bits depend neither on the threads nor on the tasks.
# Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication".

cdef enum:
    KC = 384      # most depth of a block: a panel of B stays in the first cache, or nearly
cdef enum:
    MC = 84       # about the rows of A a task packs: MC x KC floats stay in the second cache
cdef enum:
    PACKED = 1 << 21    # floats of packed B at a time: 8 MB stay in the last cache
cdef enum:
    DEPTH = 2048        # most depth that is packed at once
cdef enum:
    FEW = 4       # up to this many rows, packing costs more than it gives

ctypedef struct Matrix:
    # element (i, j) is at data[i * row + j * column]; row or column is 1
    const float *data
    Py_ssize_t row
    Py_ssize_t column

ctypedef struct Finish:
    # What else is done to C (M, N); NULL for nothing. All but bias are shaped and laid out as C.
    const float *bias         # C += bias (N,)
    const float *residual     # then C += residual
    float *activated          # then activated = gelu(C)
    const float *slope_of     # then C *= gelu'(slope_of)
    float *again              # and again = gelu(slope_of)
    float *sums               # sums (M,) += the sums of the rows of A

ctypedef struct Product:
    # C (M, N) = A (M, K) B (K, N), or += with accumulate; C is contiguous
    Matrix a
    Matrix b
    float *c
    Py_ssize_t M
    Py_ssize_t N
    Py_ssize_t K
    bint accumulate
    bint upper                # C is symmetric: tiles wholly below its diagonal are left out
    Finish finish
    Py_ssize_t kc             # depth of a block

ctypedef struct Block:
    # Columns j0 .. j0 + columns of C, depth k_begin .. k_end, and its tasks: mc rows and nc
    # columns each. Packed and shared by all tasks: B (rows of A are the tasks' own), or else A.
    float *b_panels
    float *a_panels
    Py_ssize_t j0
    Py_ssize_t columns
    Py_ssize_t k_begin
    Py_ssize_t k_end
    Py_ssize_t mc
    Py_ssize_t nc


cdef inline const float *at(const float *p, Py_ssize_t i) noexcept nogil:
    """p + i, NULL for NULL."""
    return p + i if p != NULL else p


cdef inline Py_ssize_t even_part(Py_ssize_t n, Py_ssize_t most, Py_ssize_t unit) noexcept nogil:
    """Size of the equal parts, multiples of `unit`, that n is cut into: about `most`."""
    cdef Py_ssize_t parts = blocks(n, most)
    return blocks(blocks(n, parts), unit) * unit


cdef inline Py_ssize_t task_size(Py_ssize_t units, Py_ssize_t most, int threads) noexcept nogil:
    """Units of a task, `most` or down to half of it: as the last thread ends first, else more."""
    cdef Py_ssize_t size, whole, ends, found = most, soonest = units + most
    for size from most >= size >= most // 2:
        whole = units // size
        ends = blocks(whole, threads) * size
        if whole % threads == 0:
            ends += units % size
        if ends < soonest:
            found, soonest = size, ends
    return found


cdef void gemm_tile(Py_ssize_t depth, const float *a, const float *b, float *c, Py_ssize_t ldc,
                    Py_ssize_t rows, Py_ssize_t columns, int add, const float *bias,
                    const float *next) noexcept nogil:
    """One tile; where it is not whole it goes through a buffer that is. next: asked for ahead."""
    cdef float tile[MR * NR]
    cdef float tile_bias[NR]
    cdef Py_ssize_t i, j
    if columns >= NR and (rows >= MR or rows == MR_MID or rows == MR_LOW):
        tile_ahead(rows, depth, a, b, c, ldc, add, bias, next)
        return
    rows = smaller(rows, MR)
    columns = smaller(columns, NR)
    if add == ADD_BIAS:
        memset(tile_bias, 0, sizeof(tile_bias))
        memcpy(tile_bias, bias, columns * sizeof(float))
    tile_of_panel(rows, depth, a, b, tile, NR, ADD_BIAS if add == ADD_BIAS else STORE, tile_bias)
    for i in range(rows):
        for j in range(columns):
            if add == ACCUMULATE:
                c[i * ldc + j] += tile[i * NR + j]
            else:
                c[i * ldc + j] = tile[i * NR + j]


cdef void gemm_finish(Product *p, Py_ssize_t first, Py_ssize_t columns) noexcept nogil:
    """What p.finish asks for beyond the bias, for `columns` elements of C from `first` on."""
    if p.finish.residual != NULL:
        add_span(p.c + first, p.finish.residual + first, p.c + first, columns)
    if p.finish.activated != NULL:
        gelu_span(p.c + first, p.finish.activated + first, columns)
    if p.finish.slope_of != NULL:
        gelu_span_backward(p.c + first, p.finish.slope_of + first, p.c + first, columns,
                           p.finish.again + first if p.finish.again != NULL else NULL)


cdef void add_row_sums(const float *panel, Py_ssize_t depth, float *sums,
                       Py_ssize_t rows) noexcept nogil:
    """sums[i] += the sum of row i of a packed panel of A, k in order."""
    cdef vf total
    cdef Py_ssize_t i, k
    for i from 0 <= i < smaller(MR, rows) by VL:
        total = vset1(0)
        for k in range(depth):      # reads past the panel's width, and behind it into scratch
            total = total + vload(panel + k * MR + i)
        store(sums + i, load(sums + i, smaller(MR, rows) - i) + total, smaller(MR, rows) - i)


cdef void pack_part(const float *x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows,
                    Py_ssize_t depth, Py_ssize_t kc, int width, Py_ssize_t group,
                    float *panels, Py_ssize_t part) noexcept nogil:
    """Part `part` of a matrix packed in panels of `width` rows, `group` rows a part; all panels
    of the first kc of depth lie before those of the next."""
    cdef Py_ssize_t groups = blocks(rows, group), k0 = part // groups * kc
    cdef Py_ssize_t i = part % groups * group
    depth = smaller(kc, depth - k0)
    pack_panels(x + i * row + k0 * column, row, column, smaller(group, rows - i), depth, width,
                1.0, panels + k0 * blocks(rows, width) * width + i * depth)


cdef inline const float *a_at(Product *p, Py_ssize_t i, Py_ssize_t k) noexcept nogil:
    return p.a.data + i * p.a.row + k * p.a.column


cdef inline const float *b_at(Product *p, Py_ssize_t k, Py_ssize_t j) noexcept nogil:
    return p.b.data + k * p.b.row + j * p.b.column


cdef void gemm_task(Product *p, Block *block, Py_ssize_t i0, Py_ssize_t first) noexcept nogil:
    """mc rows of C from i0 on and nc columns of a block from its `first` on."""
    cdef Py_ssize_t rows = smaller(block.mc, p.M - i0), k0, depth, i, j
    cdef Py_ssize_t columns = smaller(block.nc, block.columns - first), j0 = block.j0 + first
    cdef float *own = cgpt_scratch(SLOT_THREAD, p.kc * (
        block.mc + MR if block.a_panels == NULL else block.nc + NR))
    cdef float *c = p.c + i0 * p.N + j0
    cdef const float *a
    cdef const float *b
    cdef const float *shared = NULL     # B, where other tasks read it too: asked for ahead
    cdef int add
    for k0 from block.k_begin <= k0 < block.k_end by p.kc:
        depth = smaller(p.kc, block.k_end - k0)
        if block.a_panels == NULL:
            pack_panels(a_at(p, i0, k0), p.a.row, p.a.column, rows, depth, MR, 1.0, own)
            a = own
            shared = b = (block.b_panels + first * depth
                          + (k0 - block.k_begin) * blocks(block.columns, NR) * NR)
        else:
            pack_panels(b_at(p, k0, j0), p.b.column, p.b.row, columns, depth, NR, 1.0, own)
            a = block.a_panels + (k0 - block.k_begin) * blocks(p.M, MR) * MR + i0 * depth
            b = own
        if p.finish.sums != NULL and j0 == 0:
            for i from 0 <= i < rows by MR:
                add_row_sums(a + i * depth, depth, p.finish.sums + i0 + i, rows - i)
        add = ACCUMULATE if (p.accumulate or k0 > 0) else (
            STORE if p.finish.bias == NULL else ADD_BIAS)
        for j from 0 <= j < columns by NR:
            for i from 0 <= i < rows by MR:
                if p.upper and i0 + i >= j0 + j + NR:
                    break
                gemm_tile(depth, a + i * depth, b + j * depth, c + i * p.N + j, p.N, rows - i,
                          columns - j, add, at(p.finish.bias, j0 + j),
                          at(shared, (j + NR + i // MR * AHEAD) * depth))
    if block.k_end == p.K:
        for i in range(rows):
            gemm_finish(p, (i0 + i) * p.N + j0, columns)


cdef void gemm_block(Product *p, Block *block, int threads) noexcept nogil:
    """What a block of the depth contributes to some columns of C."""
    cdef Py_ssize_t part, task, depth = block.k_end - block.k_begin, across
    if block.a_panels != NULL:
        for part in prange(blocks(p.M, MC) * blocks(depth, p.kc), num_threads=threads,
                           schedule="static"):
            pack_part(a_at(p, 0, block.k_begin), p.a.row, p.a.column, p.M, depth, p.kc, MR, MC,
                      block.a_panels, part)
    else:
        for part in prange(blocks(block.columns, NR) * blocks(depth, p.kc), num_threads=threads,
                           schedule="static"):
            pack_part(b_at(p, block.k_begin, block.j0), p.b.column, p.b.row, block.columns, depth,
                      p.kc, NR, NR, block.b_panels, part)
    across = blocks(block.columns, block.nc)
    for task in prange(blocks(p.M, block.mc) * across, num_threads=threads, schedule="dynamic"):
        gemm_task(p, block, task // across * block.mc, task % across * block.nc)


cdef void gemm(Product *p, int threads) noexcept nogil:
    cdef Py_ssize_t depth, columns = p.N, j0, k0
    cdef Block block
    p.kc = even_part(p.K, KC, 16)
    depth = even_part(p.K, DEPTH, p.kc)
    if blocks(p.M, MC) >= 4 * threads:
        block.mc = task_size(blocks(p.M, MR), MC // MR, threads) * MR
        columns = even_part(p.N, PACKED // depth, NR)
        block.nc = columns
        block.a_panels = NULL
        block.b_panels = cgpt_scratch(SLOT_SHARED, depth * columns)
    else:
        block.mc = blocks(p.M, MR) * MR
        block.nc = task_size(blocks(p.N, NR), 4, threads) * NR
        block.a_panels = cgpt_scratch(SLOT_SHARED, depth * block.mc + MR)
        block.b_panels = NULL
    for j0 from 0 <= j0 < p.N by columns:
        block.j0 = j0
        block.columns = smaller(columns, p.N - j0)
        for k0 from 0 <= k0 < p.K by depth:
            block.k_begin = k0
            block.k_end = smaller(k0 + depth, p.K)
            gemm_block(p, &block, threads)


cdef void empty_product(Product *p) noexcept nogil:
    """C where K is 0: nothing but what is added and done to it."""
    cdef Py_ssize_t i, j
    for i in range(p.M):
        for j in range(p.N):
            if not p.accumulate:
                p.c[i * p.N + j] = p.finish.bias[j] if p.finish.bias != NULL else 0
        gemm_finish(p, i * p.N, p.N)


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
    cdef Py_ssize_t N = x.shape[0], K = x.shape[1], M = weight.shape[0], j
    cdef const float[::1] b
    cdef Product p
    cdef Projection few
    cdef Operand rows
    expect_shape("weight", weight, M, K)
    expect_shape("y", y, N, M)
    p.finish = Finish(NULL, optional("residual", residual, N, M),
                      optional_output("activated", activated, N, M), NULL, NULL, NULL)
    if bias is not None:
        b = bias
        expect_length("bias", b, M)
        p.finish.bias = &b[0] if M > 0 else NULL
    if N == 0 or M == 0:
        return
    p.a, p.b = Matrix(first_element(x), K, 1), Matrix(first_element(weight), 1, K)
    p.c, p.M, p.N, p.K, p.accumulate, p.upper = &y[0, 0], N, M, K, False, False
    cdef int threads = threads_for(2.0 * N * M * K)
    with nogil:
        if K == 0:
            empty_product(&p)
        elif N <= FEW:
            few.weight = Weights(p.b.data, NULL, M, K, 0, FLOAT32)
            few.bias, few.dots = p.finish.bias, dots_for(&few.weight, True)
            rows = operand_of_floats(p.a.data, N, K)
            with parallel(num_threads=threads):
                project(&few, rows, N, p.c, WRITE, threadid(), threads_here(),
                        <const char *>p.b.data)
            for j in range(N):
                gemm_finish(&p, j * M, M)
        else:
            gemm(&p, threads)


def linear_backward_input(const float[:, ::1] dy, const float[:, ::1] weight, float[:, ::1] dx,
                          activated=None, again=None):
    """dx = dy W, overwriting dx; times gelu'(activated) where that is given.

    dy         (N, M)
    weight     (M, K)
    dx         (N, K)  must not overlap dy
    activated  (N, K) or None: what gelu was applied to, whose output was the product's input
    again      (N, K) or None, written: that output, gelu(activated), which must be given too
    Raises ValueError naming the array with a wrong shape.
    """
    cdef Py_ssize_t N = dy.shape[0], M = weight.shape[0], K = weight.shape[1]
    cdef Product p
    expect_shape("dy", dy, N, M)
    expect_shape("dx", dx, N, K)
    if again is not None and activated is None:
        raise ValueError("again: is made of activated, which is missing")
    p.finish = Finish(NULL, NULL, NULL, optional("activated", activated, N, K),
                      optional_output("again", again, N, K), NULL)
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
    p.finish = Finish(NULL, NULL, NULL, NULL, NULL, NULL)
    if dbias is not None:
        p.finish.sums = &db[0]
    p.a, p.b = Matrix(&dy[0, 0], 1, M), Matrix(&x[0, 0], K, 1)
    p.c, p.M, p.N, p.K, p.accumulate, p.upper = &dweight[0, 0], M, K, N, True, False
    with nogil:
        gemm(&p, threads_for(2.0 * N * M * K))
