# Rows of a pass of the decoder, and what a product wants of them.

cdef enum:
    ALONE = 4       # up to so many rows, each thread prepares all rows for itself and waits less

ctypedef struct Scratch:
    # What rows become on their way; `room` floats of `prepared` belong to one thread, or else to all
    float *x              # (R, C) the stream
    float *branch[2]      # (R, width) what the operations of a branch write in turn
    float *prepared       # (threads, room)
    Py_ssize_t room

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
    const Choice *choice  # how the next tokens are picked, or NULL
    const double *u       # (R - first,) for draws
    int *tokens           # (R - first,) what is picked
    Scratch scratch


cdef inline Py_ssize_t padded_columns(Py_ssize_t columns) noexcept nogil:
    return blocks(columns, QUANTUM) * QUANTUM


cdef inline Py_ssize_t prepared_room(Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    """Floats for rows of an operand: their floats, and either interleaved or as int8 values with
    scales and corrections."""
    cdef Py_ssize_t P = padded_columns(columns)
    return rows * columns + max(blocks(rows, ROWS) * quads_stride(columns),
                                rows * (P // 4 + P // QUANTUM + P // 4)) + 64


cdef Operand prepare(Rows *rows, const float *x, Py_ssize_t first, Norm *norm, Projection *to,
                     int thread, int threads, Errand *errand) noexcept nogil:
    """Rows of x from `first` on, normalised where there is a norm, as the product `to` wants them.

    For a few rows every thread does it for itself; else each does some and all wait."""
    cdef Py_ssize_t C = to.weight.columns, P = padded_columns(C), R = rows.R - first, r, part
    cdef bint alone = R <= ALONE or threads == 1, quantized = to.weight.form == INT8
    cdef float *room = rows.scratch.prepared + (thread * rows.scratch.room if alone else 0)
    cdef float *quads = room + R * C
    cdef signed char *q = <signed char *>quads
    cdef float *scales = quads + R * P // 4
    cdef int *correction = <int *>(scales + R * (P // QUANTUM))
    cdef const float *row
    cdef float mean, rstd
    x = x + first * C
    for part from (0 if alone else thread) <= part < blocks(R, ROWS) by (1 if alone else threads):
        for r in range(part * ROWS, (part + 1) * ROWS):
            row = x + r * C if r < R else NULL
            if norm.weight != NULL and row != NULL:
                layernorm_row(row, norm.weight, norm.bias, room + r * C, &mean, &rstd, C,
                              norm.eps)
                row = room + r * C
            if not quantized and R > 1:
                interleave_row(row, C, r, quads)
            elif quantized and row != NULL:
                quantize_row(row, C, q + r * P, scales + r * (P // QUANTUM),
                             correction + r * (P // 4))
    if not alone:
        wait_for_all()
    if norm.weight != NULL:
        x = room
    return Operand(x, quads, q, scales, correction, P, errand)


cdef void apply(Rows *rows, const float *x, Py_ssize_t first, Norm *norm, Projection *by,
                Target to, int thread, int threads, const Projection *then,
                Errand *errand) noexcept nogil:
    """This thread's columns of a product of the rows of x from `first` on, normalised. The product
    `then` comes next: its first weights are on their way while threads wait."""
    project(by, prepare(rows, x, first, norm, by, thread, threads, errand), rows.R - first, to,
            first_unit(&by.weight, thread, threads), first_unit(&by.weight, thread + 1, threads),
            first_weights(&then.weight, thread, threads))


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
        groups = blocks(C, wte.group)
        for c in range(C):
            x[c] = values[c] * wte.scales[id * groups + c // wte.group] + position[c]
    else:
        for c from 0 <= c < C by VL:
            memcpy(part, halves + c, 2 * smaller(VL, C - c))
            store(x + c, vload_half(part) + load(position + c, C - c), C - c)
