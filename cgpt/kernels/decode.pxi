# Inference: all layers for a few rows in one call, each row a token of some sequence's cache.
#
# One parallel region for the whole call: every thread makes some columns of each product, and
# waits for the others between two of them. A row's numbers depend on its own sequence alone, not
# on the rows beside it nor on the threads, so that a token is the same whether it was fed by
# itself, with the rest of its prompt or beside other sequences.

from libc.stdlib cimport calloc, free

cdef enum:
    PASS = 64       # rows that go through all layers together
cdef enum:
    MANY = 24       # from so many rows on, the arithmetic leaves the memory idle

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
    const Projection *then  # the product that comes next


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
        cdef const Projection *then = &self._head
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
            one.then, one.next_layer = then, next_layer
            if one.layer < 0:
                then = &one.by
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
            position_ids=None, Picking picking=None, const double[::1] u=None,
            int[::1] tokens=None):
        """Append tokens to sequences; logits of the last rows of them, and what is picked there.

        ids, positions, sequences  (R,) int32: token r goes to positions[r] of sequences[r].
                      Rows of one sequence stand in rising order of position, and its cache holds
                      what is before the first
        keys, values  (S, L, H, T, D), the caches of S sequences; the rows' positions are written
        logits        (n <= R, V), written: those behind the last n rows
        position_ids  (R,) int32 rows of the table of positions, by default `positions`
        picking, u, tokens  how a token is picked from each row of logits, and Picking.pick's other
                      arguments for them; None for no token
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
        if picking is not None:
            picking.check(n, self._V, u, tokens)
            rows.choice = &picking._choice
        if R == 0:
            return
        expect_range("ids", ids, 0, self._V)
        expect_range("positions", positions, 0, rows.T)
        expect_range("position_ids", embedded, 0, self._T)
        expect_range("sequences", sequences, 0, keys.shape[0])
        with nogil:
            for start from 0 <= start < R by PASS:
                rows.R = smaller(PASS, R - start)
                rows.ids, rows.positions = &ids[start], &positions[start]
                rows.sequences, rows.position_ids = &sequences[start], &embedded[start]
                rows.first = smaller(rows.R, max(0, R - n - start))
                if rows.first < rows.R:
                    own = start + rows.first - (R - n)      # of the rows with logits, the first
                    rows.logits = &logits[own, 0]
                    if rows.choice != NULL:
                        rows.tokens = &tokens[own]
                        if rows.choice.temperature != 0:
                            rows.u = &u[own]
                self._run(&rows, 1)

    def decode_n(self, int[::1] ids, const int[::1] positions, float[:, :, :, :, ::1] keys,
                 float[:, :, :, :, ::1] values, float[:, ::1] logits, Picking picking not None,
                 const double[::1] u=None):
        """Append a token to a sequence, pick the next, append that, and so on; how many tokens.

        ids           (n + 1,) int32: the first is given, behind it is written what is picked
        positions     (n,) int32: where each but the last goes
        keys, values  (1, L, H, T, D), the caches of the sequence
        logits        (1, V), written: those behind the last token that was appended
        picking, u    how each is picked; u (n,) or None as for Picking.pick
        Fewer than n only where nothing can be picked, which is -1. Raises ValueError as run.
        """
        cdef Py_ssize_t n = positions.shape[0]
        cdef Rows rows
        cdef int sequence = 0
        expect("ids", ids.shape[0], n + 1)
        expect("logits", logits.shape[0], 1)
        expect("keys", keys.shape[0], 1)
        self._check(&rows, keys, values, logits)
        picking.check(n, self._V, u, ids[1:])
        if n == 0:
            return 0
        expect_range("ids", ids[:1], 0, self._V)
        expect_range("positions", positions, 0, min(rows.T, self._T))
        rows.choice, rows.R, rows.first, rows.sequences = &picking._choice, 1, 0, &sequence
        rows.ids, rows.tokens, rows.positions, rows.position_ids = &ids[0], &ids[1], &positions[0], &positions[0]
        rows.logits = &logits[0, 0]
        if rows.choice.temperature != 0:
            rows.u = &u[0]
        with nogil:
            n = self._run(&rows, n)
        return n

    cdef int _check(self, Rows *rows, float[:, :, :, :, ::1] keys, float[:, :, :, :, ::1] values,
                    float[:, ::1] logits) except -1:
        """Rows with these caches, from which nothing is picked. Raises ValueError for shapes."""
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
        rows.choice, rows.u, rows.tokens = NULL, NULL, NULL
        rows.L, rows.T = keys.shape[1], keys.shape[3]
        if keys.shape[0] and rows.L and rows.T:
            rows.keys, rows.values = &keys[0, 0, 0, 0, 0], &values[0, 0, 0, 0, 0]
        return 0

    cdef Py_ssize_t _run(self, Rows *rows, Py_ssize_t passes) noexcept nogil:
        """Some rows through all layers; after a pass that is not the last, one row becomes what was
        picked behind it. How many passes there were."""
        cdef Py_ssize_t R = rows.R, C = self._C, room, apart = smaller(R, ALONE), done = 0
        cdef Scratch *s = &rows.scratch
        cdef int threads = threads_for(2.0 * R * self._elements)
        s.room = prepared_room(apart, self._widest)
        room = max(prepared_room(R, self._widest), threads * s.room)
        s.x = cgpt_scratch(SLOT_SHARED, R * (C + self._widths[0] + self._widths[1]) + room)
        s.branch[0] = s.x + R * C
        s.branch[1] = s.branch[0] + R * self._widths[0]
        s.prepared = s.branch[1] + R * self._widths[1]
        with parallel(num_threads=threads):
            self._passes(rows, passes, &done, threadid(), threads_here())
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
            wait_for_all()
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
        cdef Errand errand = Errand(NULL, 0, 0)
        for r from thread <= r < R by threads:
            embed_row(&self._embedding.weight,
                      self._positions + rows.position_ids[r] * self._C, rows.ids[r],
                      s.x + r * self._C)
        wait_for_all()
        for i in range(self._n):
            one = &self._operations[i]
            source = s.x if one.source < 0 else s.branch[one.source]
            if one.layer >= 0:
                self._attention(rows, one.layer, source, s.branch[one.target], thread, threads)
                wait_for_all()
                errand = self._cache_of(rows, one.next_layer, thread, threads)
                continue
            if one.target < 0:
                to = Target(s.x, s.x, NULL, 0)
            elif one.activation:
                to = Target(NULL, NULL, s.branch[one.target], one.activation)
            else:
                to = Target(s.branch[one.target], NULL, NULL, 0)
            apply(rows, source, 0, &one.norm, &one.by, to, thread, threads, one.then, &errand)
            wait_for_all()
        if rows.first < R:
            apply(rows, s.x, rows.first, &self._norm, &self._head,
                  Target(rows.logits, NULL, NULL, 0), thread, threads, self._first(), &errand)
            if rows.choice != NULL:
                wait_for_all()
                for r from thread <= r < R - rows.first by threads:
                    rows.tokens[r] = choose(rows.logits + r * self._V, self._V, rows.choice,
                                            rows.u[r] if rows.u != NULL else 0)

    cdef Errand _cache_of(self, Rows *rows, Py_ssize_t layer, int thread,
                          int threads) noexcept nogil:
        """The keys and values that this thread's attention in a layer will read: of many rows they
        are as much as the weights, and the memory is idle while those are multiplied. Nothing
        behind the last layer, nor beside int8 products, which run no errands."""
        cdef Py_ssize_t D = self._C // self._H, tasks = rows.R * self._H, task, n = 0, place, bytes
        cdef Piece *pieces
        if rows.R < MANY or layer < 0 or self._head.weight.form == INT8:
            return Errand(NULL, 0, 0)
        pieces = <Piece *>cgpt_scratch(SLOT_ERRAND, 2 * tasks * sizeof(Piece) // sizeof(float))
        for task from thread <= task < tasks by threads:
            place = self._head_place(rows, task // self._H, layer, task % self._H)
            bytes = rows.positions[task // self._H] * D * sizeof(float)
            pieces[n] = Piece(<const char *>(rows.keys + place), bytes)
            pieces[n + 1] = Piece(<const char *>(rows.values + place), bytes)
            n += 2
        return Errand(pieces, n, 0)

    cdef void _attention(self, Rows *rows, Py_ssize_t layer, const float *qkv, float *mixed,
                         int thread, int threads) noexcept nogil:
        """New keys and values into the caches, then some (row, head) pairs."""
        cdef Py_ssize_t C = self._C, D = C // self._H, r, h, task, tasks = rows.R * self._H
        cdef Py_ssize_t place, coming
        for task from thread <= task < tasks by threads:
            r, h = task // self._H, task % self._H
            place = self._head_place(rows, r, layer, h) + rows.positions[r] * D
            memcpy(rows.keys + place, qkv + r * 3 * C + C + h * D, D * sizeof(float))
            memcpy(rows.values + place, qkv + r * 3 * C + 2 * C + h * D, D * sizeof(float))
        if rows.R > 1:      # one row's head needs nothing of another thread's
            wait_for_all()
        for task from thread <= task < tasks by threads:
            r, h = task // self._H, task % self._H
            place = self._head_place(rows, r, layer, h)
            coming = smaller(task + threads, tasks - 1)
            coming = self._head_place(rows, coming // self._H, layer, coming % self._H)
            attend_row(qkv + r * 3 * C + h * D, rows.keys + place, rows.values + place, D,
                       rows.positions[r] + 1, rows.keys + coming,
                       mixed + r * C + h * D)

    cdef inline Py_ssize_t _head_place(self, Rows *rows, Py_ssize_t r, Py_ssize_t layer,
                                       Py_ssize_t head) noexcept nogil:
        """Where the keys of row r's sequence begin for a head of a layer."""
        return (((rows.sequences[r] * rows.L + layer) * self._H + head) * rows.T
                * (self._C // self._H))
