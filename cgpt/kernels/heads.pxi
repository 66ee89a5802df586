# The tasks of attention: a head of a document each, where its rows lie, and what is asked for
# ahead while it is computed.

cdef enum:
    IN_TURN = 4     # most tasks that a thread takes in turn: it asks for the next one's rows ahead

ctypedef struct Heads:
    # All heads of all documents: a task each, of which a thread takes `in_turn` in turn.
    const float *qkv
    const int *offsets
    Py_ssize_t N
    Py_ssize_t C
    Py_ssize_t n_head
    Py_ssize_t tasks
    Py_ssize_t in_turn

ctypedef struct Head:
    # One head of one document: T rows of its q, k, v, with `stride` floats between rows. In
    # matrices of C columns it is D columns wide, from `row` and `column` on.
    const float *q
    const float *k
    const float *v
    Py_ssize_t stride
    Py_ssize_t T
    Py_ssize_t D
    Py_ssize_t row
    Py_ssize_t column


cdef Heads heads_of(const float[:, ::1] qkv, const int[::1] offsets, int n_head,
                    int threads) noexcept:
    cdef Heads all
    all.qkv = &qkv[0, 0]
    all.offsets = &offsets[0]
    all.N = qkv.shape[0]
    all.C = qkv.shape[1] // 3
    all.n_head = n_head
    all.tasks = (offsets.shape[0] - 1) * n_head
    all.in_turn = max(1, smaller(IN_TURN, all.tasks // (4 * threads)))
    return all


cdef Head head_of(const Heads *all, Py_ssize_t task) noexcept nogil:
    cdef Head head
    cdef Py_ssize_t document = task // all.n_head
    head.D = all.C // all.n_head
    head.row = all.offsets[document]
    head.column = task % all.n_head * head.D
    head.T = all.offsets[document + 1] - head.row
    head.stride = 3 * all.C
    head.q = all.qkv + head.row * head.stride + head.column
    head.k = head.q + all.C
    head.v = head.k + all.C
    return head


cdef void also_next(const Heads *all, Py_ssize_t task, const float *dout, const float *out,
                    Ahead *ahead) noexcept nogil:
    """What the thread of `task` reads next: q, k, v and, where they are not NULL, dout and out."""
    cdef Head head
    cdef Py_ssize_t first
    if task + 1 == all.tasks or (task + 1) % all.in_turn == 0:
        return
    head = head_of(all, task + 1)
    first = head.row * all.C + head.column
    also_ahead(ahead, head.q, head.stride, head.T)
    also_ahead(ahead, head.k, head.stride, head.T)
    also_ahead(ahead, head.v, head.stride, head.T)
    if dout != NULL:
        also_ahead(ahead, dout + first, all.C, head.T)
        also_ahead(ahead, out + first, all.C, head.T)


cdef inline int pace(Head head, int parts) noexcept nogil:
    """Rows of each call of ask_ahead with which `parts` matrices are through when the head is.

    About T (T + NR) / NR vectors of scores are gone over, with a call each.
    """
    return blocks(parts * NR, head.T + NR)
