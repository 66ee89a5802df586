# Inference: all layers for a few rows in one call, each row a token of some sequence's cache.
#
# One parallel region for the whole call: every thread computes some columns of each product,
# with a barrier between two of them. A row's numbers depend on its own sequence alone, not
# on the rows beside it nor on the threads, so that a token is the same whether it was fed by
# itself, with the rest of its prompt or beside other sequences.

from libc.stdlib cimport calloc, free

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
        expect_shape(f"{name}: scales", scales, rows, ceil_div(columns, p.weight.group))
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


cdef enum:
    REDUNDANT_ROWS = 4       # up to so many rows each thread prepares all of them, and waits less

ctypedef struct Scratch:
    # Intermediate rows; `prepared_size` floats of `prepared` are one thread's, or all are shared
    float *x              # (R, C) the stream
    float *branch[2]      # (R, width) what the operations of a branch write in turn
    float *prepared       # (threads, prepared_size)
    Py_ssize_t prepared_size

ctypedef struct Rows:
    # R tokens: token r goes to positions[r] of sequence sequences[r], whose cache holds the
    # positions before it once the rows before r are done
    const int *ids
    const int *positions
    const int *position_ids  # which row of the table of positions
    const int *sequences
    Py_ssize_t R
    float *keys           # (sequences, L, H, T, D)
    float *values
    Py_ssize_t L          # layers of the cache
    Py_ssize_t T          # positions of the cache
    Py_ssize_t first      # rows from here on have logits
    float *logits         # (R - first, V)
    const SamplingSettings *settings  # how the next tokens are sampled, or NULL
    const double *u       # (R - first,) random numbers of the samples
    int *tokens           # (R - first,) the sampled tokens
    Scratch scratch


cdef inline Py_ssize_t padded_columns(Py_ssize_t columns) noexcept nogil:
    return ceil_div(columns, QUANTUM) * QUANTUM


cdef inline Py_ssize_t prepared_floats(Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    """Floats for rows of an operand: their floats, and either interleaved or as int8 values with
    scales and corrections."""
    cdef Py_ssize_t P = padded_columns(columns)
    return rows * columns + max(ceil_div(rows, ROWS) * quads_stride(columns),
                                rows * (P // 4 + P // QUANTUM + P // 4)) + 64


cdef Operand prepare(Rows *rows, const float *x, Py_ssize_t first, Norm *norm, Projection *to,
                     int thread, int threads, PrefetchQueue *queue) noexcept nogil:
    """Rows of x from `first` on, normalised where there is a norm, in the layout that `to` reads.

    Of a few rows every thread prepares all; else each prepares some, behind a barrier."""
    cdef Py_ssize_t C = to.weight.columns, P = padded_columns(C), R = rows.R - first, r, part
    cdef bint redundant = R <= REDUNDANT_ROWS or threads == 1, quantized = to.weight.form == INT8
    cdef Py_ssize_t first_part = 0 if redundant else thread, step = 1 if redundant else threads
    cdef float *prepared = rows.scratch.prepared + (
        thread * rows.scratch.prepared_size if redundant else 0)
    cdef float *quads = prepared + R * C
    cdef signed char *q = <signed char *>quads
    cdef float *scales = quads + R * P // 4
    cdef int *correction = <int *>(scales + R * (P // QUANTUM))
    cdef const float *row
    cdef float mean, rstd
    x = x + first * C
    for part from first_part <= part < ceil_div(R, ROWS) by step:
        for r in range(part * ROWS, (part + 1) * ROWS):
            row = x + r * C if r < R else NULL
            if norm.weight != NULL and row != NULL:
                layernorm_row(row, norm.weight, norm.bias, prepared + r * C, &mean, &rstd, C,
                              norm.eps)
                row = prepared + r * C
            if not quantized and R > 1:
                interleave_row(row, C, r, quads)
            elif quantized and row != NULL:
                quantize_row(row, C, q + r * P, scales + r * (P // QUANTUM),
                             correction + r * (P // 4))
    if not redundant:
        thread_barrier()
    if norm.weight != NULL:
        x = prepared
    return Operand(x, quads, q, scales, correction, P, queue)


cdef void apply(Rows *rows, const float *x, Py_ssize_t first, Norm *norm, Projection *by,
                Target to, int thread, int threads, const Projection *next_product,
                PrefetchQueue *queue) noexcept nogil:
    """This thread's columns of a product of the rows of x from `first` on, normalised. The product
    `next_product` comes next: its first weights are prefetched while threads wait."""
    project(by, prepare(rows, x, first, norm, by, thread, threads, queue), rows.R - first, to,
            first_unit(&by.weight, thread, threads), first_unit(&by.weight, thread + 1, threads),
            first_weights(&next_product.weight, thread, threads))


cdef void embed_row(const Weights *wte, const float *position, Py_ssize_t id,
                    float *x) noexcept nogil:
    cdef Py_ssize_t C = wte.columns, c, groups
    cdef const float *floats = <const float *>wte.data + id * C
    cdef const unsigned short *halves = <const unsigned short *>wte.data + id * C
    cdef const signed char *values = <const signed char *>wte.data + id * C
    cdef unsigned short part[VL]
    if wte.form == FLOAT32:
        for c in range(C):
            x[c] = floats[c] + position[c]
    elif wte.form == INT8:
        groups = ceil_div(C, wte.group)
        for c in range(C):
            x[c] = values[c] * wte.scales[id * groups + c // wte.group] + position[c]
    else:
        for c from 0 <= c < C by VL:
            memcpy(part, halves + c, 2 * smaller(VL, C - c))
            store(x + c, vload_half(part) + load(position + c, C - c), C - c)


cdef enum:
    PASS_ROWS = 64       # rows that go through all layers together
cdef enum:
    MANY_ROWS = 24       # from so many rows on the products are compute-bound

ctypedef struct Operation:
    # A product of rows of the stream, or of what the operation before has written; where `layer` is
    # 0 or more, attention over that layer of the cache instead
    Py_ssize_t layer
    Py_ssize_t next_layer   # of the attention that comes next, or -1
    Norm norm
    Projection by
    int source              # -1 for the stream, else which of the branch's two buffers
    int target              # likewise; what goes to the stream is added to it
    int activation
    const Projection *next_product  # the product that comes next


cdef class Decoder:
    """The operations of a graph, bound to weights that stay where they are.

    n_head      heads of every attention
    embedding   (V, C) float32 or float16, or (int8 (V, C), float32 scales, group)
    positions   (T, C) float32, added to the embedding
    operations  in order. A product is (norm, matrix, bias, activation, adds): norm is None or
                (weight (K,), bias (K,), eps), matrix (M, K) as the embedding, bias (M,) or None,
                activation "", "gelu" or "relu"; `adds` where it ends a branch and is added to the
                stream. Attention is the index of its layer in the cache: (R, 3C) to (R, C)
    norm, head  before the logits: as of a product; (matrix (V, C), bias (V,) or None)
    Arrays are C-contiguous, and read anew in every call. Raises ValueError naming what does not
    fit.
    """

    cdef Operation *_operations
    cdef Projection _embedding, _head
    cdef const float *_positions
    cdef Norm _norm
    cdef Py_ssize_t _n, _L, _H, _C, _V, _T, _widest, _elements
    cdef Py_ssize_t _widths[2]
    cdef object _kept

    def __cinit__(self):
        self._operations = NULL

    def __dealloc__(self):
        free(self._operations)

    def __init__(self, int n_head, embedding, const float[:, ::1] positions, operations, norm,
                 head):
        cdef Py_ssize_t C = positions.shape[1]
        self._kept = (embedding, positions, operations, norm, head)
        self._n, self._L, self._H, self._C, self._T = (
            len(operations), 0, n_head, C, positions.shape[0])
        self._V = len(embedding[0]) if isinstance(embedding, tuple) else len(embedding)
        if self._T < 1 or C < 1 or self._V < 1 or n_head < 1 or C % n_head:
            raise ValueError(f"Decoder: found V, T, C, heads = {self._V}, {self._T}, {C}, "
                             f"{n_head}, expected at least 1 of each and heads that divide C")
        self._positions = &positions[0, 0]
        bind(&self._embedding, "embedding", embedding, None, self._V, C)
        bind(&self._head, "head", head[0], head[1], self._V, C)
        bind_norm(&self._norm, norm, C)
        free(self._operations)
        self._operations = <Operation *>calloc(max(self._n, 1), sizeof(Operation))
        if self._operations == NULL:
            raise MemoryError
        self._bind_operations(operations)
        if self._choose_dots(False) > <Py_ssize_t>cgpt_last_cache():
            self._choose_dots(True)

    cdef int _bind_operations(self, operations) except -1:
        """Bind every operation, and place what it reads and writes."""
        cdef Py_ssize_t i, C = self._C, width = C, rows, next_layer = -1
        cdef int place = -1
        cdef Operation *one
        cdef const Projection *next_product = &self._head
        self._widths[0] = self._widths[1] = 0
        self._widest, self._elements = C, self._V * C
        for i in range(self._n):
            one = &self._operations[i]
            one.source, one.layer = place, -1
            place = 0 if place else 1
            if isinstance(operations[i], int):
                one.layer, width, rows = operations[i], 3 * C - width, C
                if width or one.layer < 0 or one.source < 0:
                    raise ValueError(f"operation {i}: attention reads the product before it, 3C "
                                     "wide, and writes a layer of the cache from 0 on")
                self._L = max(self._L, one.layer + 1)
            else:
                norm, matrix, bias, activation, adds = operations[i]
                rows = len(matrix[0]) if isinstance(matrix, tuple) else len(matrix)
                one.activation = {"": 0, "gelu": GELU, "relu": RELU}[activation]
                if adds:
                    if activation or one.source < 0:    # threads would read what others add to
                        raise ValueError(f"operation {i}: what is added is a product of what the "
                                         "branch holds, without an activation")
                    rows, place = C, -1
                bind_norm(&one.norm, norm, width)
                bind(&one.by, f"operation {i}", matrix, bias, rows, width)
                self._widest, self._elements = max(self._widest, width), (
                    self._elements + rows * width)
            one.target, width = place, rows
            if place >= 0:
                self._widths[place] = max(self._widths[place], rows)
        if place >= 0:
            raise ValueError("operations: the last one is not added to the stream")
        for i in range(self._n - 1, -1, -1):
            one = &self._operations[i]
            one.next_product, one.next_layer = next_product, next_layer
            if one.layer < 0:
                next_product = &one.by
            else:
                next_layer = one.layer
        return 0

    cdef Py_ssize_t _choose_dots(self, bint far):
        """Choose all products, from memory if `far`; the bytes of all weights."""
        cdef Py_ssize_t i, total = choose_dots(&self._head, far)
        for i in range(self._n):
            if self._operations[i].layer < 0:
                total += choose_dots(&self._operations[i].by, far)
        return total

    cdef const Projection *_first(self) noexcept nogil:
        """The first product of a pass."""
        return &self._operations[0].by if self._n else &self._head

    def run(self, const int[::1] ids, const int[::1] positions, const int[::1] sequences,
            float[:, :, :, :, ::1] keys, float[:, :, :, :, ::1] values, float[:, ::1] logits,
            position_ids=None, TokenSampler sampler=None, const double[::1] u=None,
            int[::1] tokens=None):
        """Append tokens to sequences; logits of the last rows of them, and the tokens sampled there.

        ids, positions, sequences  (R,) int32: token r goes to positions[r] of sequences[r].
                      Rows of one sequence stand in rising order of position, and its cache holds
                      what is before the first
        keys, values  (S, L, H, T, D), the caches of S sequences; the rows' positions are written
        logits        (n <= R, V), written: those behind the last n rows
        position_ids  (R,) int32 rows of the table of positions, by default `positions`
        sampler, u, tokens  how a token is sampled from each row of logits, and the other arguments
                      of TokenSampler.sample; None for no token
        Raises ValueError naming what is out of range; nothing is written then.
        """
        cdef Py_ssize_t R = ids.shape[0], n = logits.shape[0], start, own
        cdef const int[::1] embedded = positions if position_ids is None else position_ids
        cdef Rows rows
        expect("positions", positions.shape[0], R)
        expect("sequences", sequences.shape[0], R)
        expect("position_ids", embedded.shape[0], R)
        if n > R:
            raise ValueError(f"logits: found {n} rows, expected at most {R}")
        self._check(&rows, keys, values, logits)
        if sampler is not None:
            sampler.check(n, self._V, u, tokens)
            rows.settings = &sampler._settings
        if R == 0:
            return
        expect_range("ids", ids, 0, self._V)
        expect_range("positions", positions, 0, rows.T)
        expect_range("position_ids", embedded, 0, self._T)
        expect_range("sequences", sequences, 0, keys.shape[0])
        with nogil:
            for start from 0 <= start < R by PASS_ROWS:
                rows.R = smaller(PASS_ROWS, R - start)
                rows.ids, rows.positions = &ids[start], &positions[start]
                rows.sequences, rows.position_ids = &sequences[start], &embedded[start]
                rows.first = smaller(rows.R, max(0, R - n - start))
                if rows.first < rows.R:
                    own = start + rows.first - (R - n)      # of the rows with logits, the first
                    rows.logits = &logits[own, 0]
                    if rows.settings != NULL:
                        rows.tokens = &tokens[own]
                        if rows.settings.temperature != 0:
                            rows.u = &u[own]
                self._run(&rows, 1)

    def decode_n(self, int[::1] ids, const int[::1] positions, float[:, :, :, :, ::1] keys,
                 float[:, :, :, :, ::1] values, float[:, ::1] logits, TokenSampler sampler not None,
                 const double[::1] u=None):
        """Append a token to a sequence, sample the next, append that, and so on; how many tokens.

        ids           (n + 1,) int32: the first is given, behind it the sampled tokens are written
        positions     (n,) int32: where each but the last goes
        keys, values  (1, L, H, T, D), the caches of the sequence
        logits        (1, V), written: those behind the last token that was appended
        sampler, u    how each is sampled; u (n,) or None as for TokenSampler.sample
        Fewer than n only where nothing can be sampled, which is -1. Raises ValueError as run.
        """
        cdef Py_ssize_t n = positions.shape[0]
        cdef Rows rows
        cdef int sequence = 0
        expect("ids", ids.shape[0], n + 1)
        expect("logits", logits.shape[0], 1)
        expect("keys", keys.shape[0], 1)
        self._check(&rows, keys, values, logits)
        sampler.check(n, self._V, u, ids[1:])
        if n == 0:
            return 0
        expect_range("ids", ids[:1], 0, self._V)
        expect_range("positions", positions, 0, min(rows.T, self._T))
        rows.settings, rows.R, rows.first, rows.sequences = &sampler._settings, 1, 0, &sequence
        rows.ids, rows.tokens = &ids[0], &ids[1]
        rows.positions = rows.position_ids = &positions[0]
        rows.logits = &logits[0, 0]
        if rows.settings.temperature != 0:
            rows.u = &u[0]
        with nogil:
            n = self._run(&rows, n)
        return n

    cdef int _check(self, Rows *rows, float[:, :, :, :, ::1] keys, float[:, :, :, :, ::1] values,
                    float[:, ::1] logits) except -1:
        """Rows with these caches, from which nothing is sampled. Raises ValueError for shapes."""
        cdef int i
        if keys.shape[1] < self._L:
            raise ValueError(f"keys: layers: found {keys.shape[1]}, expected {self._L}")
        if self._L:     # a graph without attention leaves the caches as they are
            expect("keys: heads", keys.shape[2], self._H)
            expect("keys: width of a head", keys.shape[4], self._C // self._H)
        for i in range(5):
            expect("values", values.shape[i], keys.shape[i])
        if logits.shape[0]:
            expect("logits: vocabulary", logits.shape[1], self._V)
        rows.settings, rows.u, rows.tokens = NULL, NULL, NULL
        rows.L, rows.T = keys.shape[1], keys.shape[3]
        if keys.shape[0] and rows.L and rows.T:
            rows.keys, rows.values = &keys[0, 0, 0, 0, 0], &values[0, 0, 0, 0, 0]
        return 0

    cdef Py_ssize_t _run(self, Rows *rows, Py_ssize_t passes) noexcept nogil:
        """Some rows through all layers; after a pass that is not the last, one row becomes what was
        sampled behind it. How many passes there were."""
        cdef Py_ssize_t R = rows.R, C = self._C, prepared_size, done = 0
        cdef Py_ssize_t apart = smaller(R, REDUNDANT_ROWS)
        cdef Scratch *s = &rows.scratch
        cdef int threads = threads_for(2.0 * R * self._elements)
        s.prepared_size = prepared_floats(apart, self._widest)
        prepared_size = max(prepared_floats(R, self._widest), threads * s.prepared_size)
        s.x = cgpt_scratch(SLOT_SHARED, R * (C + self._widths[0] + self._widths[1]) + prepared_size)
        s.branch[0] = s.x + R * C
        s.branch[1] = s.branch[0] + R * self._widths[0]
        s.prepared = s.branch[1] + R * self._widths[1]
        with parallel(num_threads=threads):
            self._passes(rows, passes, &done, threadid(), team_size())
        return done

    cdef void _passes(self, const Rows *rows, Py_ssize_t passes, Py_ssize_t *done, int thread,
                      int threads) noexcept nogil:
        """One thread's part of all passes."""
        cdef Rows own = rows[0]
        cdef Py_ssize_t i
        for i in range(passes):
            self._layers(&own, thread, threads)
            if i + 1 == passes:
                break
            thread_barrier()
            if own.tokens[0] < 0:
                break
            own.ids, own.tokens = own.tokens, own.tokens + 1
            own.positions, own.position_ids = own.positions + 1, own.position_ids + 1
            if own.u != NULL:
                own.u = own.u + 1
        if thread == 0:
            done[0] = i + 1

    cdef void _layers(self, Rows *rows, int thread, int threads) noexcept nogil:
        """One thread's part of a pass; the waits are where all need what all have made."""
        cdef Py_ssize_t R = rows.R, r, i
        cdef Scratch *s = &rows.scratch
        cdef Target to
        cdef Operation *one
        cdef float *source
        cdef PrefetchQueue queue = PrefetchQueue(NULL, 0, 0)
        for r from thread <= r < R by threads:
            embed_row(&self._embedding.weight,
                      self._positions + rows.position_ids[r] * self._C, rows.ids[r],
                      s.x + r * self._C)
        thread_barrier()
        for i in range(self._n):
            one = &self._operations[i]
            source = s.x if one.source < 0 else s.branch[one.source]
            if one.layer >= 0:
                self._attention(rows, one.layer, source, s.branch[one.target], thread, threads)
                thread_barrier()
                queue = self._cache_of(rows, one.next_layer, thread, threads)
                continue
            if one.target < 0:
                to = Target(s.x, s.x, NULL, 0)
            elif one.activation:
                to = Target(NULL, NULL, s.branch[one.target], one.activation)
            else:
                to = Target(s.branch[one.target], NULL, NULL, 0)
            apply(rows, source, 0, &one.norm, &one.by, to, thread, threads, one.next_product,
                  &queue)
            thread_barrier()
        if rows.first < R:
            apply(rows, s.x, rows.first, &self._norm, &self._head,
                  Target(rows.logits, NULL, NULL, 0), thread, threads, self._first(), &queue)
            if rows.settings != NULL:
                thread_barrier()
                for r from thread <= r < R - rows.first by threads:
                    rows.tokens[r] = sample_token(rows.logits + r * self._V, self._V, rows.settings,
                                            rows.u[r] if rows.u != NULL else 0)

    cdef PrefetchQueue _cache_of(self, Rows *rows, Py_ssize_t layer, int thread,
                          int threads) noexcept nogil:
        """The keys and values that this thread's attention in a layer will read: of many rows they
        are as much as the weights, and the memory is idle while those are multiplied. Nothing
        behind the last layer, nor beside int8 products, which prefetch nothing else."""
        cdef Py_ssize_t D = self._C // self._H, tasks = rows.R * self._H, task, n = 0, place, bytes
        cdef MemoryRange *ranges
        if rows.R < MANY_ROWS or layer < 0 or self._head.weight.form == INT8:
            return PrefetchQueue(NULL, 0, 0)
        ranges = <MemoryRange *>cgpt_scratch(
            SLOT_PREFETCH, 2 * tasks * sizeof(MemoryRange) // sizeof(float))
        for task from thread <= task < tasks by threads:
            place = self._head_place(rows, task // self._H, layer, task % self._H)
            bytes = rows.positions[task // self._H] * D * sizeof(float)
            ranges[n] = MemoryRange(<const char *>(rows.keys + place), bytes)
            ranges[n + 1] = MemoryRange(<const char *>(rows.values + place), bytes)
            n += 2
        return PrefetchQueue(ranges, n, 0)

    cdef void _attention(self, Rows *rows, Py_ssize_t layer, const float *qkv, float *mixed,
                         int thread, int threads) noexcept nogil:
        """New keys and values into the caches, then some (row, head) pairs."""
        cdef Py_ssize_t C = self._C, D = C // self._H, r, h, task, tasks = rows.R * self._H
        cdef Py_ssize_t place, following
        for task from thread <= task < tasks by threads:
            r, h = task // self._H, task % self._H
            place = self._head_place(rows, r, layer, h) + rows.positions[r] * D
            memcpy(rows.keys + place, qkv + r * 3 * C + C + h * D, D * sizeof(float))
            memcpy(rows.values + place, qkv + r * 3 * C + 2 * C + h * D, D * sizeof(float))
        if rows.R > 1:      # one row's head needs nothing of another thread's
            thread_barrier()
        for task from thread <= task < tasks by threads:
            r, h = task // self._H, task % self._H
            place = self._head_place(rows, r, layer, h)
            following = smaller(task + threads, tasks - 1)
            following = self._head_place(rows, following // self._H, layer, following % self._H)
            attend_row(qkv + r * 3 * C + h * D, rows.keys + place, rows.values + place, D,
                       rows.positions[r] + 1, rows.keys + following,
                       mixed + r * C + h * D)

    cdef inline Py_ssize_t _head_place(self, Rows *rows, Py_ssize_t r, Py_ssize_t layer,
                                       Py_ssize_t head) noexcept nogil:
        """Where the keys of row r's sequence begin for a head of a layer."""
        return (((rows.sequences[r] * rows.L + layer) * self._H + head) * rows.T
                * (self._C // self._H))
