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

ctypedef struct DecodeBlock:
    Norm norm1
    Projection c_attn
    Projection c_proj
    Norm norm2
    Projection c_fc
    Projection mlp_proj


cdef class Decoder:
    """The layers of a GPT-2 graph, bound to weights that stay where they are.

    n_head     heads
    wte        (V, C) float32 or float16, or (int8 (V, C), float32 scales, group): the embedding
               and the head
    wpe        (T, C) float32
    ln_f       (weight, bias), (C,) each
    layers     for each block (norm 1, c_attn, c_proj, norm 2, c_fc, mlp c_proj); a norm is
               (weight, bias), a projection (matrix as wte, bias (M,))
    Arrays are C-contiguous, and read anew in every call. Raises ValueError naming what does not
    fit.
    """

    cdef DecodeBlock *_blocks
    cdef Projection _head
    cdef const float *_positions
    cdef Norm _norm
    cdef Py_ssize_t _L, _H, _C, _F, _V, _T
    cdef object _kept

    def __cinit__(self):
        self._blocks = NULL

    def __dealloc__(self):
        free(self._blocks)

    def __init__(self, int n_head, wte, const float[:, ::1] wpe, ln_f, layers):
        cdef const float[:, ::1] positions = wpe
        cdef DecodeBlock *block
        cdef Py_ssize_t i, C = positions.shape[1]
        self._kept = (wte, wpe, ln_f, layers)
        self._L, self._H, self._C, self._T = len(layers), n_head, C, positions.shape[0]
        self._V = len(wte[0]) if isinstance(wte, tuple) else len(wte)
        self._F = 0
        if self._T < 1 or C < 1 or self._V < 1 or n_head < 1 or C % n_head:
            raise ValueError(f"Decoder: found V, T, C, heads = {self._V}, {self._T}, {C}, "
                             f"{n_head}, expected at least 1 of each and heads that divide C")
        self._positions = &positions[0, 0]
        bind(&self._head, "wte", wte, None, self._V, C)
        self._norm = Norm(vector_of("ln_f.weight", ln_f[0], C), vector_of("ln_f.bias", ln_f[1], C))
        free(self._blocks)
        self._blocks = <DecodeBlock *>calloc(max(self._L, 1), sizeof(DecodeBlock))
        if self._blocks == NULL:
            raise MemoryError
        for i in range(self._L):
            block, (norm1, c_attn, c_proj, norm2, c_fc, mlp_proj) = &self._blocks[i], layers[i]
            self._F = len(c_fc[1])
            block.norm1 = Norm(vector_of("norm 1", norm1[0], C), vector_of("norm 1", norm1[1], C))
            block.norm2 = Norm(vector_of("norm 2", norm2[0], C), vector_of("norm 2", norm2[1], C))
            bind(&block.c_attn, "c_attn", c_attn[0], c_attn[1], 3 * C, C)
            bind(&block.c_proj, "c_proj", c_proj[0], c_proj[1], C, C)
            bind(&block.c_fc, "c_fc", c_fc[0], c_fc[1], self._F, C)
            bind(&block.mlp_proj, "mlp.c_proj", mlp_proj[0], mlp_proj[1], C, self._F)
        if self._choose_dots(False) > <Py_ssize_t>cgpt_last_cache():
            self._choose_dots(True)

    cdef Py_ssize_t _choose_dots(self, bint far):
        """Choose all products, from memory if `far`; the bytes of all weights."""
        cdef Py_ssize_t i, total = choose_dots(&self._head, far)
        cdef DecodeBlock *block
        for i in range(self._L):
            block = &self._blocks[i]
            total += (choose_dots(&block.c_attn, far) + choose_dots(&block.c_proj, far)
                      + choose_dots(&block.c_fc, far) + choose_dots(&block.mlp_proj, far))
        return total

    def run(self, const int[::1] ids, const int[::1] places, const int[::1] slots,
            float[:, :, :, :, ::1] keys, float[:, :, :, :, ::1] values, float[:, ::1] logits,
            positions=None, Picking picking=None, const double[::1] u=None,
            int[::1] tokens=None):
        """Append tokens to sequences; logits of the last rows of them, and what is picked there.

        ids, places, slots  (R,) int32: token r goes to position places[r] of sequence slots[r].
                      Rows of one sequence stand in rising order of position, and its cache holds
                      what is before the first
        keys, values  (S, L, H, T, D), the caches of S sequences; the rows' places are written
        logits        (n <= R, V), written: those behind the last n rows
        positions     (R,) int32 rows of the table of positions, by default `places`
        picking, u, tokens  how a token is picked from each row of logits, and Picking.pick's other
                      arguments for them; None for no token
        Raises ValueError naming what is out of range; nothing is written then.
        """
        cdef Py_ssize_t R = ids.shape[0], n = logits.shape[0], start, own
        cdef const int[::1] embedded = places if positions is None else positions
        cdef Rows rows
        expect("places", places.shape[0], R)
        expect("slots", slots.shape[0], R)
        expect("positions", embedded.shape[0], R)
        if n > R:
            raise ValueError(f"logits: found {n} rows, expected at most {R}")
        self._check(&rows, keys, values, logits)
        if picking is not None:
            picking.check(n, self._V, u, tokens)
            rows.choice = &picking._choice
        if R == 0:
            return
        expect_range("ids", ids, 0, self._V)
        expect_range("places", places, 0, rows.T)
        expect_range("positions", embedded, 0, self._T)
        expect_range("slots", slots, 0, keys.shape[0])
        with nogil:
            for start from 0 <= start < R by PASS:
                rows.R = smaller(PASS, R - start)
                rows.ids, rows.places = &ids[start], &places[start]
                rows.slots, rows.positions = &slots[start], &embedded[start]
                rows.first = smaller(rows.R, max(0, R - n - start))
                if rows.first < rows.R:
                    own = start + rows.first - (R - n)      # of the rows with logits, the first
                    rows.logits = &logits[own, 0]
                    if rows.choice != NULL:
                        rows.tokens = &tokens[own]
                        if rows.choice.temperature != 0:
                            rows.u = &u[own]
                self._run(&rows, 1)

    def go_on(self, int[::1] ids, const int[::1] places, float[:, :, :, :, ::1] keys,
              float[:, :, :, :, ::1] values, float[:, ::1] logits, Picking picking not None,
              const double[::1] u=None):
        """Append a token to a sequence, pick the next, append that, and so on; how many tokens.

        ids           (n + 1,) int32: the first is given, behind it is written what is picked
        places        (n,) int32: where each but the last goes
        keys, values  (1, L, H, T, D), the caches of the sequence
        logits        (1, V), written: those behind the last token that was appended
        picking, u    how each is picked; u (n,) or None as for Picking.pick
        Fewer than n only where nothing can be picked, which is -1. Raises ValueError as run.
        """
        cdef Py_ssize_t n = places.shape[0]
        cdef Rows rows
        cdef int slot = 0
        expect("ids", ids.shape[0], n + 1)
        expect("logits", logits.shape[0], 1)
        expect("keys", keys.shape[0], 1)
        self._check(&rows, keys, values, logits)
        picking.check(n, self._V, u, ids[1:])
        if n == 0:
            return 0
        expect_range("ids", ids[:1], 0, self._V)
        expect_range("places", places, 0, min(rows.T, self._T))
        rows.choice, rows.R, rows.first, rows.slots = &picking._choice, 1, 0, &slot
        rows.ids, rows.tokens, rows.places, rows.positions = &ids[0], &ids[1], &places[0], &places[0]
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
        expect("keys: layers", keys.shape[1], self._L)
        expect("keys: heads", keys.shape[2], self._H)
        expect("keys: width of a head", keys.shape[4], self._C // self._H)
        for i in range(5):
            expect("values", values.shape[i], keys.shape[i])
        if logits.shape[0]:
            expect("logits: vocabulary", logits.shape[1], self._V)
        rows.choice, rows.u, rows.tokens = NULL, NULL, NULL
        rows.T = keys.shape[3]
        if keys.shape[0] and rows.T:
            rows.keys, rows.values = &keys[0, 0, 0, 0, 0], &values[0, 0, 0, 0, 0]
        return 0

    cdef Py_ssize_t _run(self, Rows *rows, Py_ssize_t passes) noexcept nogil:
        """Some rows through all layers; after a pass that is not the last, one row becomes what was
        picked behind it. How many passes there were."""
        cdef Py_ssize_t R = rows.R, C = self._C, F = self._F, room, apart, done = 0
        cdef Scratch *s = &rows.scratch
        cdef int threads = threads_for(2.0 * R * (self._V * C + self._L * C * (4 * C + 2 * F)))
        apart = smaller(R, ALONE)
        room = max(prepared_room(R, max(C, F)), threads * prepared_room(apart, max(C, F)))
        s.x = cgpt_scratch(SLOT_SHARED, R * (5 * C + F) + room)
        s.qkv = s.x + R * C
        s.mixed = s.qkv + 3 * R * C
        s.hidden = s.mixed + R * C
        s.prepared = s.hidden + R * F
        s.room = prepared_room(apart, max(C, F))
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
            own.places, own.positions = own.places + 1, own.positions + 1
            if own.u != NULL:
                own.u = own.u + 1
        if thread == 0:
            done[0] = i + 1

    cdef void _layers(self, Rows *rows, int thread, int threads) noexcept nogil:
        """One thread's part of a pass; the waits are where all need what all have made."""
        cdef Py_ssize_t R = rows.R, r, i
        cdef Scratch *s = &rows.scratch
        cdef Target onto = Target(s.x, s.x, NULL)
        cdef DecodeBlock *block
        cdef Errand errand = Errand(NULL, 0, 0)
        for r from thread <= r < R by threads:
            embed_row(&self._head.weight, self._positions + rows.positions[r] * self._C,
                      rows.ids[r],
                      s.x + r * self._C)
        wait_for_all()
        for i in range(self._L):
            block = &self._blocks[i]
            apply(rows, s.x, 0, &block.norm1, &block.c_attn, Target(s.qkv, NULL, NULL), thread,
                  threads, &block.c_proj, &errand)
            wait_for_all()
            self._attention(rows, i, thread, threads)
            wait_for_all()
            errand = self._cache_of(rows, i + 1, thread, threads)
            apply(rows, s.mixed, 0, NULL, &block.c_proj, onto, thread, threads, &block.c_fc,
                  &errand)
            wait_for_all()
            apply(rows, s.x, 0, &block.norm2, &block.c_fc, Target(NULL, NULL, s.hidden), thread,
                  threads, &block.mlp_proj, &errand)
            wait_for_all()
            apply(rows, s.hidden, 0, NULL, &block.mlp_proj, onto, thread, threads,
                  &self._head if i + 1 == self._L else &self._blocks[i + 1].c_attn, &errand)
            wait_for_all()
        if rows.first < R:
            apply(rows, s.x, rows.first, &self._norm, &self._head,
                  Target(rows.logits, NULL, NULL), thread, threads,
                  &self._blocks[0].c_attn if self._L else &self._head, &errand)
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
        if rows.R < MANY or layer == self._L or self._head.weight.form == INT8:
            return Errand(NULL, 0, 0)
        pieces = <Piece *>cgpt_scratch(SLOT_ERRAND, 2 * tasks * sizeof(Piece) // sizeof(float))
        for task from thread <= task < tasks by threads:
            place = self._head_place(rows, task // self._H, layer, task % self._H)
            bytes = rows.places[task // self._H] * D * sizeof(float)
            pieces[n] = Piece(<const char *>(rows.keys + place), bytes)
            pieces[n + 1] = Piece(<const char *>(rows.values + place), bytes)
            n += 2
        return Errand(pieces, n, 0)

    cdef void _attention(self, Rows *rows, Py_ssize_t layer, int thread,
                         int threads) noexcept nogil:
        """New keys and values into the caches, then some (row, head) pairs."""
        cdef Py_ssize_t C = self._C, D = C // self._H, r, h, task, tasks = rows.R * self._H
        cdef Py_ssize_t place, coming
        cdef float *qkv = rows.scratch.qkv
        for task from thread <= task < tasks by threads:
            r, h = task // self._H, task % self._H
            place = self._head_place(rows, r, layer, h) + rows.places[r] * D
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
                       rows.places[r] + 1, rows.keys + coming,
                       rows.scratch.mixed + r * C + h * D)

    cdef inline Py_ssize_t _head_place(self, Rows *rows, Py_ssize_t r, Py_ssize_t layer,
                                       Py_ssize_t head) noexcept nogil:
        """Where the keys of row r's sequence begin for a head of a layer."""
        return (((rows.slots[r] * self._L + layer) * self._H + head) * rows.T
                * (self._C // self._H))
