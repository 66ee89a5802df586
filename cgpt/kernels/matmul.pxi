# Products: one packed, blocked matrix product serves y = x W^T, dx = dy W and dW += dy^T x.
#
# Where C has many rows, or fewer and the depth is small, columns of B are packed by all threads
# into panels of NR columns, and a task takes some rows of C: it packs those rows of A, a block of
# the depth at a time, and runs the micro-kernel over its tiles. Else A is packed by all threads,
# and a task takes some columns and packs those of B, or reads them unpacked. What is finished
# is, while still in the cache, completed by bias, GELU or residual. The depth is cut into blocks
# that depend on the shape alone and are added in order, so the bits depend neither on the threads
# nor on the tasks.
# Source: Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication".

cdef enum:
    KC = 384      # most depth of a block: a panel of B stays in the first cache, or nearly
cdef enum:
    MC = 84       # about the rows of A a task packs: MC x KC floats stay in the second cache
cdef enum:
    PACKED_FLOATS = 1 << 21    # floats of packed B at a time: 8 MB stay in the last cache
cdef enum:
    SHALLOW = 128       # depth up to which C is written row by row: writing it is the time
cdef enum:
    DEPTH = 2048        # most depth that is packed at once

ctypedef struct Matrix:
    # element (i, j) is at data[i * row + j * column]; row or column is 1
    const float *data
    Py_ssize_t row
    Py_ssize_t column

ctypedef struct Epilogue:
    # The epilogue of a product C (M, N); NULL for nothing. All but bias are laid out as C.
    const float *bias         # C += bias (N,)
    const float *residual     # then C += residual
    float *activated          # then activated = gelu(C)
    const float *preactivation     # then C *= gelu'(preactivation)
    float *recomputed              # and again = gelu(preactivation)
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
    Epilogue epilogue
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

ctypedef struct Operands:
    # What a task multiplies at a time: panels of A and B, `depth` deep; the first `unpacked` columns
    # of B are read unpacked, and b begins behind them
    const float *a
    const float *b
    Py_ssize_t unpacked
    Py_ssize_t depth
    bint shared               # B by all tasks


cdef inline const float *at(const float *p, Py_ssize_t i) noexcept nogil:
    """p + i, NULL for NULL."""
    return p + i if p != NULL else p


cdef inline Py_ssize_t even_part(Py_ssize_t n, Py_ssize_t most, Py_ssize_t unit) noexcept nogil:
    """Size of the equal parts, multiples of `unit`, that n is cut into: about `most`."""
    cdef Py_ssize_t parts = ceil_div(n, most)
    return ceil_div(ceil_div(n, parts), unit) * unit


cdef inline Py_ssize_t task_size(Py_ssize_t units, Py_ssize_t most, int threads) noexcept nogil:
    """Units of a task, `most` or down to half of it: as the last thread ends first, else more."""
    cdef Py_ssize_t size, whole, ends, found = most, soonest = units + most
    for size from most >= size >= most // 2:
        whole = units // size
        ends = ceil_div(whole, threads) * size
        if whole % threads == 0:
            ends += units % size
        if ends < soonest:
            found, soonest = size, ends
    return found


cdef void gemm_tile(Py_ssize_t depth, const float *a, const float *b, Py_ssize_t b_k, float *c,
                    Py_ssize_t ldc, Py_ssize_t rows, Py_ssize_t columns, int add,
                    const float *bias, const float *next) noexcept nogil:
    """One tile; where it is not whole it goes through a buffer that is. next: prefetched."""
    cdef float tile[MR * NR]
    cdef float tile_bias[NR]
    cdef Py_ssize_t i, j
    if columns >= NR and (rows >= MR or rows == MR_MID or rows == MR_LOW):
        if b_k == NR:
            tile_prefetch(rows, depth, a, b, c, ldc, add, bias, next)
        else:
            tile_unpacked(rows, depth, a, b, c, ldc, add, bias, b_k, next)
        return
    rows = smaller(rows, MR)
    columns = smaller(columns, NR)
    if add == ADD_BIAS:
        memset(tile_bias, 0, sizeof(tile_bias))
        memcpy(tile_bias, bias, columns * sizeof(float))
    tile_unpacked(rows, depth, a, b, tile, NR, ADD_BIAS if add == ADD_BIAS else STORE, tile_bias,
                    b_k, NULL)
    for i in range(rows):
        for j in range(columns):
            if add == ACCUMULATE:
                c[i * ldc + j] += tile[i * NR + j]
            else:
                c[i * ldc + j] = tile[i * NR + j]


cdef void gemm_epilogue(Product *p, Py_ssize_t first, Py_ssize_t columns) noexcept nogil:
    """The epilogue beyond the bias, for `columns` elements of C from `first` on."""
    if p.epilogue.residual != NULL:
        add_span(p.c + first, p.epilogue.residual + first, p.c + first, columns)
    if p.epilogue.activated != NULL:
        gelu_span(p.c + first, p.epilogue.activated + first, columns)
    if p.epilogue.preactivation != NULL:
        gelu_span_backward(p.c + first, p.epilogue.preactivation + first, p.c + first, columns,
                           p.epilogue.recomputed + first if p.epilogue.recomputed != NULL else NULL)


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
    cdef Py_ssize_t groups = ceil_div(rows, group), k0 = part // groups * kc
    cdef Py_ssize_t i = part % groups * group
    depth = smaller(kc, depth - k0)
    pack_panels(x + i * row + k0 * column, row, column, smaller(group, rows - i), depth, width,
                1.0, panels + k0 * ceil_div(rows, width) * width + i * depth)


cdef inline const float *a_at(Product *p, Py_ssize_t i, Py_ssize_t k) noexcept nogil:
    return p.a.data + i * p.a.row + k * p.a.column


cdef inline const float *b_at(Product *p, Py_ssize_t k, Py_ssize_t j) noexcept nogil:
    return p.b.data + k * p.b.row + j * p.b.column


cdef void gemm_task(Product *p, Block *block, Py_ssize_t i0, Py_ssize_t first) noexcept nogil:
    """mc rows of C from i0 on and nc columns of a block from its `first` on."""
    cdef Py_ssize_t rows = smaller(block.mc, p.M - i0), k0, i
    cdef Py_ssize_t columns = smaller(block.nc, block.columns - first), j0 = block.j0 + first
    cdef float *own = cgpt_scratch(SLOT_THREAD, p.kc * (
        block.mc + MR if block.a_panels == NULL else block.nc + NR))
    cdef Operands o
    o.shared = block.a_panels == NULL
    o.unpacked = columns // NR * NR if READ_UNPACKED and p.b.column == 1 and not o.shared else 0
    for k0 from block.k_begin <= k0 < block.k_end by p.kc:
        o.depth = smaller(p.kc, block.k_end - k0)
        if o.shared:
            pack_panels(a_at(p, i0, k0), p.a.row, p.a.column, rows, o.depth, MR, 1.0, own)
            o.a = own
            o.b = (block.b_panels + first * o.depth
                   + (k0 - block.k_begin) * ceil_div(block.columns, NR) * NR)
        else:
            pack_panels(b_at(p, k0, j0 + o.unpacked), p.b.column, p.b.row, columns - o.unpacked,
                        o.depth, NR, 1.0, own)
            o.a = block.a_panels + (k0 - block.k_begin) * ceil_div(p.M, MR) * MR + i0 * o.depth
            o.b = own
        if p.epilogue.sums != NULL and j0 == 0:
            for i from 0 <= i < rows by MR:
                add_row_sums(o.a + i * o.depth, o.depth, p.epilogue.sums + i0 + i, rows - i)
        gemm_tiles(p, &o, i0, j0, k0, rows, columns)
    if block.k_end == p.K:
        for i in range(rows):
            gemm_epilogue(p, (i0 + i) * p.N + j0, columns)


cdef void gemm_tiles(Product *p, Operands *o, Py_ssize_t i0, Py_ssize_t j0, Py_ssize_t k0,
                     Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    """What a block of the depth from k0 on adds to rows i0 on and columns j0 on of C."""
    cdef int add = ACCUMULATE if (p.accumulate or k0 > 0) else (
        STORE if p.epilogue.bias == NULL else ADD_BIAS)
    cdef bint along = p.K <= SHALLOW
    cdef Py_ssize_t down = ceil_div(rows, MR), across = ceil_div(columns, NR), tile, i, j, b_k
    cdef const float *b
    cdef const float *next
    for tile in range(down * across):
        if along:
            i, j = tile // across, tile % across * NR
        else:
            i, j = tile % down, tile // down * NR
        if p.upper and i0 + i * MR >= j0 + j + NR:
            continue
        next = NULL
        if j < o.unpacked:
            b, b_k = b_at(p, k0, j0 + j), p.b.row
            if i == 0:
                next = b + NR if j + NR < columns else b_at(p, smaller(k0 + p.kc, p.K - 1), j0)
        else:
            b, b_k = o.b + (j - o.unpacked) * o.depth, NR
            if o.shared and not along:      # other tasks read it too
                next = b + (NR + i * PREFETCH_FLOATS) * o.depth
        gemm_tile(o.depth, o.a + i * MR * o.depth, b, b_k, p.c + (i0 + i * MR) * p.N + j0 + j, p.N,
                  rows - i * MR, columns - j, add, at(p.epilogue.bias, j0 + j), next)


cdef void gemm_block(Product *p, Block *block, int threads) noexcept nogil:
    """What a block of the depth contributes to some columns of C."""
    cdef Py_ssize_t part, task, depth = block.k_end - block.k_begin, across
    if block.a_panels != NULL:
        for part in prange(ceil_div(p.M, MC) * ceil_div(depth, p.kc), num_threads=threads,
                           schedule="static"):
            pack_part(a_at(p, 0, block.k_begin), p.a.row, p.a.column, p.M, depth, p.kc, MR, MC,
                      block.a_panels, part)
    else:
        for part in prange(ceil_div(block.columns, NR) * ceil_div(depth, p.kc), num_threads=threads,
                           schedule="static"):
            pack_part(b_at(p, block.k_begin, block.j0), p.b.column, p.b.row, block.columns, depth,
                      p.kc, NR, NR, block.b_panels, part)
    across = ceil_div(block.columns, block.nc)
    for task in prange(ceil_div(p.M, block.mc) * across, num_threads=threads, schedule="dynamic"):
        gemm_task(p, block, task // across * block.mc, task % across * block.nc)


cdef void gemm(Product *p, int threads) noexcept nogil:
    cdef Py_ssize_t depth, columns = p.N, j0, k0
    cdef Block block
    p.kc = even_part(p.K, KC, 16)
    depth = even_part(p.K, DEPTH, p.kc)
    if ceil_div(p.M, MC) >= (2 if p.K <= SHALLOW else 4) * threads:
        block.mc = task_size(ceil_div(p.M, MR), MC // MR, threads) * MR
        columns = even_part(p.N, PACKED_FLOATS // depth, NR)
        block.nc = columns
        block.a_panels = NULL
        block.b_panels = cgpt_scratch(SLOT_SHARED, depth * columns)
    else:
        block.mc = ceil_div(p.M, MR) * MR
        block.nc = task_size(ceil_div(p.N, NR), 4, threads) * NR
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
                p.c[i * p.N + j] = p.epilogue.bias[j] if p.epilogue.bias != NULL else 0
        gemm_epilogue(p, i * p.N, p.N)
