# Attention of single rows over a cache of keys and values, each head's in one piece: (H, T, D).


cdef inline void prefetch_span(const float *x, Py_ssize_t n) noexcept nogil:
    """Prefetch n floats."""
    cdef Py_ssize_t i
    for i from 0 <= i < n by 16:
        PREFETCH_FAR(x + i)


cdef void attend_row(const float *q, const float *keys, const float *values, Py_ssize_t D,
                     Py_ssize_t n, const float *next, float *out) noexcept nogil:
    """out (D,) of one query (D,) of a head against n keys and values (n, D).

    As many floats as the keys have are prefetched from `next` on, the keys of a later query."""
    cdef Py_ssize_t t, padded_n = ceil_div(n, VL) * VL
    cdef float *scores = cgpt_scratch(SLOT_THREAD, padded_n)
    cdef vf most = vset1(-1e30), total = vset1(0), e
    cdef float top
    for t from 0 <= t < n by VL:
        prefetch_span(values + t * D, smaller(VL, n - t) * D)
        key_scores(q, keys + t * D, D, n - t, <float>(1 / sqrt(<double>D)), scores + t)
        most = vmax(most, vload(scores + t))
    top = vmax_lanes(most)
    for t from 0 <= t < n by VL:
        e = vexp(vload(scores + t) - vset1(top))
        vstore(scores + t, e)
        total = total + e
    weighted_sum(scores, values, D, n, 1 / vsum(total), next, out)


def attention_cached(const float[:, ::1] qkv, float[:, :, ::1] keys, float[:, :, ::1] values,
                     Py_ssize_t start, float[:, ::1] out):
    """Attention of n new rows over a cache: the rows' keys and values are put in first.

    qkv           (n, 3C)    rows at positions start .. start + n - 1
    keys, values  (H, T, D)  H D = C; places before `start` are read, those from it on are written
    out           (n, C)     written
    Raises ValueError naming the array whose shape is wrong, or a cache that is too short.
    """
    cdef Py_ssize_t n = qkv.shape[0], H = keys.shape[0], T = keys.shape[1], D = keys.shape[2]
    cdef Py_ssize_t C = H * D, i, h, task
    expect_shape("qkv", qkv, n, 3 * C)
    expect_shape("out", out, n, C)
    for i in range(3):
        expect("values", values.shape[i], keys.shape[i])
    if start < 0 or start + n > T:
        raise ValueError(f"start: rows {start} to {start + n} do not fit a cache of {T}")
    if n == 0 or C == 0:
        return
    cdef int threads = threads_for(4.0 * n * (start + n) * C)
    with nogil:
        for i in range(n):
            for h in range(H):
                memcpy(&keys[h, start + i, 0], &qkv[i, C + h * D], D * sizeof(float))
                memcpy(&values[h, start + i, 0], &qkv[i, 2 * C + h * D], D * sizeof(float))
        for task in prange(n * H, num_threads=threads, schedule="static"):
            attend_row(&qkv[task // H, (task % H) * D], &keys[task % H, 0, 0],
                       &values[task % H, 0, 0], D, start + task // H + 1,
                       &keys[(task + 1) % H, 0, 0],
                       &out[task // H, (task % H) * D])
