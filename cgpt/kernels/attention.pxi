# Causal multi-head attention, forward and backward, without ever holding a (T, T) matrix.
#
# A task is one head of one document. Scores are kept transposed, keys down and a strip
# of NR queries across, so that the softmax runs along whole vectors. The strip is then the
# left-hand side of the next product without packing, its rows being the queries or the keys; D is
# always across, where its usual sizes fill whole vectors. Blocks of keys behind the last query of
# a strip are never touched.
# Source: Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax); Dao et al. 2022,
# arXiv:2205.14135 (blocks, and the backward from the log-sum-exp).

cdef enum:
    CONSECUTIVE = 4     # most consecutive tasks of a thread, which prefetches the next one's rows

ctypedef struct AttentionTasks:
    # All heads of all documents: a task each, of which a thread takes `consecutive` in turn.
    const float *qkv
    const int *offsets
    Py_ssize_t N
    Py_ssize_t C
    Py_ssize_t n_head
    Py_ssize_t tasks
    Py_ssize_t consecutive

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


cdef AttentionTasks attention_tasks(const float[:, ::1] qkv, const int[::1] offsets, int n_head,
                                    int threads) noexcept:
    cdef AttentionTasks all
    all.qkv = &qkv[0, 0]
    all.offsets = &offsets[0]
    all.N = qkv.shape[0]
    all.C = qkv.shape[1] // 3
    all.n_head = n_head
    all.tasks = (offsets.shape[0] - 1) * n_head
    all.consecutive = max(1, smaller(CONSECUTIVE, all.tasks // (4 * threads)))
    return all


cdef Head head_of(const AttentionTasks *all, Py_ssize_t task) noexcept nogil:
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


cdef void prefetch_next_task(const AttentionTasks *all, Py_ssize_t task, const float *dout,
                             const float *out, Prefetch *prefetch) noexcept nogil:
    """What the thread of `task` reads next: q, k, v and, where they are not NULL, dout and out."""
    cdef Head head
    cdef Py_ssize_t first
    if task + 1 == all.tasks or (task + 1) % all.consecutive == 0:
        return
    head = head_of(all, task + 1)
    first = head.row * all.C + head.column
    add_prefetch(prefetch, head.q, head.stride, head.T)
    add_prefetch(prefetch, head.k, head.stride, head.T)
    add_prefetch(prefetch, head.v, head.stride, head.T)
    if dout != NULL:
        add_prefetch(prefetch, dout + first, all.C, head.T)
        add_prefetch(prefetch, out + first, all.C, head.T)


cdef inline int prefetch_rate(Head head, int parts) noexcept nogil:
    """Rows of each call of prefetch_rows with which `parts` matrices are through when the head is.

    About T (T + NR) / NR vectors of scores are gone over, with a call each.
    """
    return ceil_div(parts * NR, head.T + NR)


cdef enum:
    KEYS = 168      # keys of a block, a multiple of every MR


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


cdef inline Py_ssize_t padded(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    return ceil_div(n, size) * size


cdef inline void scores_of_strip(Py_ssize_t keys, Py_ssize_t D, const float *panels,
                                 const float *strip, float *scores) noexcept nogil:
    """scores (keys padded to MR, NR) = packed rows (keys, D) times a strip (D, NR)."""
    cdef Py_ssize_t i
    for i from 0 <= i < keys by MR:
        tile_of_panel(keys - i, D, panels + i * D, strip, scores + i * NR, NR, STORE, NULL)


cdef inline void add_to_queries(const float *scores, Py_ssize_t keys, const float *rows,
                                Py_ssize_t D, Py_ssize_t ld_panel, float *c,
                                Py_ssize_t ldc) noexcept nogil:
    """c (NR padded to MR, D) += scores^T (NR, keys) times rows (keys, D).

    rows are packed NR columns of D at a time, each `ld_panel` floats behind the one before.
    """
    cdef Py_ssize_t i, j
    for j from 0 <= j < D by NR:
        for i from 0 <= i < NR by MR:
            tile_of_strip(NR - i, keys, scores + i, rows + j // NR * ld_panel, c + i * ldc + j,
                          ldc, ACCUMULATE, NULL)


cdef inline void add_to_keys(const float *scores, Py_ssize_t keys, Py_ssize_t queries,
                             const float *rows, Py_ssize_t D, Py_ssize_t ld_panel, float *c,
                             Py_ssize_t ldc) noexcept nogil:
    """c (keys padded to MR, D) += scores (keys, queries <= NR) times rows (queries, D)."""
    cdef Py_ssize_t i, j
    for j from 0 <= j < D by NR:
        for i from 0 <= i < keys by MR:
            tile_of_block(keys - i, queries, scores + i * NR, rows + j // NR * ld_panel,
                          c + i * ldc + j, ldc, ACCUMULATE, NULL)


cdef void pack_across(const float *x, Py_ssize_t stride, Py_ssize_t T, Py_ssize_t D,
                      float *panels) noexcept nogil:
    """x (T, D) as [d / NR][row][NR], zeros behind the last d."""
    pack_panels(x, 1, stride, D, T, NR, 1.0, panels)


cdef inline void apply_causal_mask(float *scores, Py_ssize_t first_key, Py_ssize_t keys,
                               Py_ssize_t first_query, float fill) noexcept nogil:
    """scores[key][query] = hidden where the key comes after the query."""
    cdef Py_ssize_t key, half
    cdef float *row
    for key in range(max(0, first_query + 1 - first_key), keys):
        for half from 0 <= half < NR by VL:
            row = scores + key * NR + half
            vstore(row, vmask_before(vload(row), first_key + key - first_query - half, fill))


cdef void softmax_block(float *scores, Py_ssize_t keys, vf *most, vf *total,
                        float *factors, Prefetch *prefetch) noexcept nogil:
    """scores -> exp(scores - running maximum); factors (NR,) bring older sums to the new one."""
    cdef vf highest, factor, sum, e
    cdef Py_ssize_t half, key
    for half in range(2):
        highest = most[half]
        for key in range(keys):
            highest = vmax(highest, vload(scores + key * NR + half * VL))
        factor = vexp(most[half] - highest)
        most[half] = highest
        sum = total[half] * factor
        for key in range(keys):
            e = vexp(vload(scores + key * NR + half * VL) - highest)
            vstore(scores + key * NR + half * VL, e)
            sum = sum + e
            prefetch_rows(prefetch)
        total[half] = sum
        vstore(factors + half * VL, factor)


cdef inline void scale_row(const float *x, float factor, float *y, Py_ssize_t D) noexcept nogil:
    cdef Py_ssize_t d
    for d from 0 <= d < D by VL:
        store(y + d, load(x + d, D - d) * vset1(factor), D - d)


cdef void head_forward(Head head, float *out, Py_ssize_t ldo, float *lse,
                       Prefetch *prefetch) noexcept nogil:
    """out (T, D; row stride ldo) and lse (T,) of one head of one document."""
    cdef Py_ssize_t T = head.T, D = head.D, q0, k0, keys, i
    cdef Py_ssize_t Dn = padded(D, NR), Tm = padded(T, MR), n_keys
    cdef float *k_panels = cgpt_scratch(
        SLOT_THREAD, Tm * D + T * Dn + KEYS * NR + D * NR + padded(NR, MR) * Dn)
    cdef float *v_panels = k_panels + Tm * D
    cdef float *scores = v_panels + T * Dn
    cdef float *strip = scores + KEYS * NR
    cdef float *sums = strip + D * NR
    cdef vf most[2]
    cdef vf total[2]
    cdef float lanes[NR]
    cdef float tops[NR]
    cdef float factors[NR]
    cdef float scale = <float>(1 / sqrt(<double>D))
    pack_panels(head.k, head.stride, 1, T, D, MR, 1.0, k_panels)
    pack_across(head.v, head.stride, T, D, v_panels)
    for q0 from 0 <= q0 < T by NR:
        pack_panels(head.q + q0 * head.stride, head.stride, 1, smaller(NR, T - q0), D, NR, scale,
                    strip)
        n_keys = smaller(T, q0 + NR)
        memset(sums, 0, padded(NR, MR) * Dn * sizeof(float))
        most[0] = most[1] = vset1(-1e30)
        total[0] = total[1] = vset1(0)
        for k0 from 0 <= k0 < n_keys by KEYS:
            keys = smaller(KEYS, n_keys - k0)
            scores_of_strip(keys, D, k_panels + k0 * D, strip, scores)
            apply_causal_mask(scores, k0, keys, q0, -1e30)
            softmax_block(scores, keys, most, total, factors, prefetch)
            if k0 > 0:
                for i in range(NR):
                    scale_row(sums + i * Dn, factors[i], sums + i * Dn, Dn)
            add_to_queries(scores, keys, v_panels + k0 * NR, D, T * NR, sums, Dn)
        for i in range(2):
            vstore(lanes + i * VL, total[i])
            vstore(tops + i * VL, most[i])
        for i in range(smaller(NR, T - q0)):
            lse[q0 + i] = tops[i] + logf(lanes[i])
            scale_row(sums + i * Dn, 1 / lanes[i], out + (q0 + i) * ldo, D)


cdef void attend(const AttentionTasks *all, Py_ssize_t task, float *out, float *lse) noexcept nogil:
    cdef Head head = head_of(all, task)
    cdef Prefetch prefetch = new_prefetch(head.D, prefetch_rate(head, 4))
    cdef float *o = out + head.row * all.C + head.column
    add_prefetch(&prefetch, o, all.C, head.T)
    prefetch_next_task(all, task, NULL, NULL, &prefetch)
    head_forward(head, o, all.C, lse + task % all.n_head * all.N + head.row, &prefetch)


def attention_forward(const float[:, ::1] qkv, const int[::1] offsets, int n_head,
                      float[:, ::1] out, float[:, ::1] lse):
    """out = softmax(q k^T / sqrt(D), causal) v for every head of every document.

    qkv      (N, 3C)  queries, keys, values side by side, each n_head x D wide
    offsets  (documents + 1,) int32 borders of the documents in the N rows; none sees another
    out      (N, C)   written
    lse      (H, N)   written: log-sum-exp of each query's scores, which backward reads
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t task
    check_attention(qkv, offsets, n_head, out, lse)
    cdef int threads = threads_for(attention_work(offsets, out.shape[1]))
    cdef AttentionTasks all = attention_tasks(qkv, offsets, n_head, threads)
    for task in prange(all.tasks, nogil=True, num_threads=threads, schedule="dynamic",
                       chunksize=all.consecutive):
        attend(&all, task, &out[0, 0], &lse[0, 0])


cdef double attention_work(const int[::1] offsets, Py_ssize_t C) noexcept nogil:
    """About the float operations of the forward pass."""
    cdef double work = 0
    cdef Py_ssize_t i
    for i in range(offsets.shape[0] - 1):
        work += 2.0 * C * <double>(offsets[i + 1] - offsets[i]) ** 2
    return work


cdef int check_attention(const float[:, ::1] qkv, const int[::1] offsets, int n_head,
                         const float[:, ::1] out, const float[:, ::1] lse) except -1:
    cdef Py_ssize_t N = qkv.shape[0], C = out.shape[1]
    if n_head < 1 or C % n_head:
        raise ValueError(f"n_head: found {n_head}, which does not divide the width {C}")
    expect_shape("qkv", qkv, N, 3 * C)
    expect_shape("out", out, N, C)
    expect_shape("lse", lse, n_head, N)
    expect_offsets(offsets, N)
    return 0


ctypedef struct Backward:
    # Scratch of one task of the backward pass.
    float *k_panels        # K in panels: [key / MR][d][MR]
    float *v_panels        # V in panels
    float *q_strips        # Q^T, scaled: [query / NR][d][NR]
    float *g_strips        # dO^T: [query / NR][d][NR]
    float *k_rows          # K: [d / NR][key][NR]
    float *q_rows          # Q: [d / NR][query][NR]
    float *g_rows          # dO: [d / NR][query][NR]
    float *delta           # [query], rows of dO * O summed
    float *lse             # [query], padded
    float *p               # P^T of a strip and a block: [key][NR]
    float *ds              # dS^T of the same
    float *dq              # [query][Dn]
    float *dk              # [key of the block][Dn]
    float *dv              # [key of the block][Dn]
    Py_ssize_t Dn


cdef Backward backward_scratch(Py_ssize_t T, Py_ssize_t D) noexcept nogil:
    cdef Backward s
    cdef Py_ssize_t Tm = padded(T, MR), Tn = padded(T, NR)
    s.Dn = padded(D, NR)
    s.k_panels = cgpt_scratch(
        SLOT_THREAD, 2 * Tm * D + 2 * Tn * D + 3 * T * s.Dn + 2 * Tn + 2 * KEYS * NR
        + (Tn + MR) * s.Dn + 2 * KEYS * s.Dn)
    s.v_panels = s.k_panels + Tm * D
    s.q_strips = s.v_panels + Tm * D
    s.g_strips = s.q_strips + Tn * D
    s.k_rows = s.g_strips + Tn * D
    s.q_rows = s.k_rows + T * s.Dn
    s.g_rows = s.q_rows + T * s.Dn
    s.delta = s.g_rows + T * s.Dn
    s.lse = s.delta + Tn
    s.p = s.lse + Tn
    s.ds = s.p + KEYS * NR
    s.dq = s.ds + KEYS * NR
    s.dk = s.dq + (Tn + MR) * s.Dn
    s.dv = s.dk + KEYS * s.Dn
    return s


cdef void strip_scores(Backward s, Py_ssize_t D, Py_ssize_t q0, Py_ssize_t k0,
                       Py_ssize_t keys, Prefetch *prefetch) noexcept nogil:
    """P^T and dS^T = P^T (dP^T - delta) of a strip of queries and a block of keys.

    Zeros in the rows up to a whole panel: the tiles of the next product reach into them.
    """
    cdef Py_ssize_t key, half
    cdef vf lse, delta, e
    keys = padded(keys, MR)
    scores_of_strip(keys, D, s.k_panels + k0 * D, s.q_strips + q0 * D, s.p)
    scores_of_strip(keys, D, s.v_panels + k0 * D, s.g_strips + q0 * D, s.ds)
    apply_causal_mask(s.p, k0, keys, q0, -1e30)
    for half from 0 <= half < NR by VL:
        lse = vload(s.lse + q0 + half)
        delta = vload(s.delta + q0 + half)
        for key in range(keys):
            e = vexp(vload(s.p + key * NR + half) - lse)
            vstore(s.p + key * NR + half, e)
            vstore(s.ds + key * NR + half, e * (vload(s.ds + key * NR + half) - delta))
            prefetch_rows(prefetch)


cdef void prepare_backward(Backward s, Head head, const float *dout, const float *out,
                           Py_ssize_t ldo, const float *lse, float scale) noexcept nogil:
    cdef Py_ssize_t T = head.T, D = head.D, i
    pack_panels(head.k, head.stride, 1, T, D, MR, 1.0, s.k_panels)
    pack_panels(head.v, head.stride, 1, T, D, MR, 1.0, s.v_panels)
    pack_panels(head.q, head.stride, 1, T, D, NR, scale, s.q_strips)
    pack_panels(dout, ldo, 1, T, D, NR, 1.0, s.g_strips)
    pack_across(head.k, head.stride, T, D, s.k_rows)
    pack_across(head.q, head.stride, T, D, s.q_rows)
    pack_across(dout, ldo, T, D, s.g_rows)
    memset(s.dq, 0, (padded(T, NR) + MR) * s.Dn * sizeof(float))
    for i in range(padded(T, NR)):
        s.delta[i] = dot(dout + i * ldo, out + i * ldo, D) if i < T else 0
        s.lse[i] = lse[i] if i < T else 0


cdef void head_backward(Head head, const float *dout, const float *out, Py_ssize_t ldo,
                        const float *lse, float *dq, float *dk, float *dv,
                        Prefetch *prefetch) noexcept nogil:
    """dq, dk, dv (T, D; row stride head.stride) of one head of one document."""
    cdef Py_ssize_t T = head.T, D = head.D, k0, q0, keys, queries, i
    cdef float scale = <float>(1 / sqrt(<double>D))
    cdef Backward s = backward_scratch(T, D)
    prepare_backward(s, head, dout, out, ldo, lse, scale)
    for k0 from 0 <= k0 < T by KEYS:
        memset(s.dk, 0, 2 * KEYS * s.Dn * sizeof(float))
        for q0 from k0 // NR * NR <= q0 < T by NR:
            queries = smaller(NR, T - q0)
            keys = smaller(KEYS, smaller(T, q0 + NR) - k0)      # none behind the last query
            strip_scores(s, D, q0, k0, keys, prefetch)
            add_to_queries(s.ds, keys, s.k_rows + k0 * NR, D, T * NR, s.dq + q0 * s.Dn, s.Dn)
            add_to_keys(s.p, keys, queries, s.g_rows + q0 * NR, D, T * NR, s.dv, s.Dn)
            add_to_keys(s.ds, keys, queries, s.q_rows + q0 * NR, D, T * NR, s.dk, s.Dn)
        for i in range(smaller(KEYS, T - k0)):
            scale_row(s.dk + i * s.Dn, scale, dk + (k0 + i) * head.stride, D)
            memcpy(dv + (k0 + i) * head.stride, s.dv + i * s.Dn, D * sizeof(float))
    for i in range(T):
        scale_row(s.dq + i * s.Dn, scale, dq + i * head.stride, D)


cdef void attend_backward(const AttentionTasks *all, Py_ssize_t task, const float *dout,
                          const float *out, const float *lse, float *dqkv) noexcept nogil:
    cdef Head head = head_of(all, task)
    cdef Prefetch prefetch = new_prefetch(head.D, prefetch_rate(head, 8))
    cdef Py_ssize_t first = head.row * all.C + head.column
    cdef float *dq = dqkv + head.row * head.stride + head.column
    add_prefetch(&prefetch, dq, head.stride, head.T)
    add_prefetch(&prefetch, dq + all.C, head.stride, head.T)
    add_prefetch(&prefetch, dq + 2 * all.C, head.stride, head.T)
    prefetch_next_task(all, task, dout, out, &prefetch)
    head_backward(head, dout + first, out + first, all.C,
                  lse + task % all.n_head * all.N + head.row, dq, dq + all.C, dq + 2 * all.C,
                  &prefetch)


def attention_backward(const float[:, ::1] dout, const float[:, ::1] qkv,
                       const float[:, ::1] out, const float[:, ::1] lse, const int[::1] offsets,
                       int n_head, float[:, ::1] dqkv):
    """dqkv from dout, overwriting dqkv; the scores are recomputed from qkv and lse.

    dout, out  (N, C)   out and lse as written by attention_forward
    qkv, dqkv  (N, 3C)
    lse        (H, N)
    offsets    (documents + 1,) int32
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t task
    check_attention(qkv, offsets, n_head, out, lse)
    expect_shape("dout", dout, out.shape[0], out.shape[1])
    expect_shape("dqkv", dqkv, qkv.shape[0], qkv.shape[1])
    cdef int threads = threads_for(3 * attention_work(offsets, out.shape[1]))
    cdef AttentionTasks all = attention_tasks(qkv, offsets, n_head, threads)
    for task in prange(all.tasks, nogil=True, num_threads=threads, schedule="dynamic",
                       chunksize=all.consecutive):
        attend_backward(&all, task, &dout[0, 0], &out[0, 0], &lse[0, 0], &dqkv[0, 0])
