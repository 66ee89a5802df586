# AdamW over the whole arena, and the sum of squares for the gradient norm.

cdef enum:
    ADAM_SPAN = 16384    # elements of one task


cdef void adamw_span(float *data, float *grad, float *m, float *v, Py_ssize_t n, float rate,
                     float decay, float beta1, float new1, float beta2, float new2, float eps,
                     float root2, float clip) noexcept nogil:
    """rate = lr / (1 - beta1^t), decay = 1 - lr * weight_decay, root2 = 1 / sqrt(1 - beta2^t),
    new1 = 1 - beta1 and new2 = 1 - beta2, rounded once."""
    cdef vf g, first, second
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        g = load(grad + i, n - i) * vset1(clip)
        first = load(m + i, n - i) * vset1(beta1) + g * vset1(new1)
        second = load(v + i, n - i) * vset1(beta2) + g * g * vset1(new2)
        store(m + i, first, n - i)
        store(v + i, second, n - i)
        store(data + i, load(data + i, n - i) * vset1(decay)
              - vset1(rate) * first / (vsqrt(second) * vset1(root2) + vset1(eps)), n - i)
    memset(grad, 0, n * sizeof(float))


def adamw(float[::1] data, float[::1] grad, float[::1] m, float[::1] v, double lr, double beta1,
          double beta2, double eps, double weight_decay, long step, double clip_factor,
          Py_ssize_t decay_end):
    """One AdamW step over flat arrays; the gradients are cleared in the same pass.

    data, grad, m, v  (n,)  all written
    step              1 for the first step
    clip_factor       multiplies the gradient (min(1, clip / norm), or 1)
    decay_end         elements before it decay by lr * weight_decay, those from it on do not
    Raises ValueError for arrays of unlike length or a step below 1.
    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; the decay is multiplied
    by lr alone, as PyTorch does.
    """
    cdef Py_ssize_t n = data.shape[0], part, parts, split, first, last
    expect_length("grad", grad, n)
    expect_length("m", m, n)
    expect_length("v", v, n)
    if step < 1:
        raise ValueError(f"step: found {step}, expected at least 1")
    split = max(0, min(decay_end, n))
    cdef float rate = <float>(lr / (1 - beta1 ** step))
    cdef float root2 = <float>(1 / sqrt(1 - beta2 ** step))
    cdef float shrink = <float>(1 - lr * weight_decay)
    cdef float b1 = <float>beta1, b2 = <float>beta2, e = <float>eps, clip = <float>clip_factor
    cdef float new1 = <float>(1 - beta1), new2 = <float>(1 - beta2)
    cdef int threads = threads_for(12.0 * n)
    cdef Py_ssize_t decayed = ceil_div(split, ADAM_SPAN)
    parts = decayed + ceil_div(n - split, ADAM_SPAN)
    for part in prange(parts, nogil=True, num_threads=threads, schedule="static"):
        first = part * ADAM_SPAN if part < decayed else split + (part - decayed) * ADAM_SPAN
        last = smaller(first + ADAM_SPAN, split if part < decayed else n)
        adamw_span(&data[first], &grad[first], &m[first], &v[first], last - first, rate,
                   shrink if part < decayed else 1, b1, new1, b2, new2, e, root2, clip)


cdef double squares_span(const float *x, Py_ssize_t n) noexcept nogil:
    cdef vf a = vset1(0), b = vset1(0), v
    cdef Py_ssize_t i = 0
    while i + 2 * VL <= n:
        v = vload(x + i)
        a = a + v * v
        v = vload(x + i + VL)
        b = b + v * v
        i += 2 * VL
    while i < n:
        v = load(x + i, n - i)
        a = a + v * v
        i += VL
    return vsum(a + b)


def sum_of_squares(const float[::1] x):
    """The sum of x * x; spans of 16,384 in float32, their sums in float64 in order.  x (n,)"""
    cdef Py_ssize_t n = x.shape[0], part, parts = ceil_div(n, ADAM_SPAN)
    cdef double total = 0
    cdef double *sums
    cdef int threads = threads_for(2.0 * n)
    with nogil:
        sums = <double *>cgpt_scratch(SLOT_SUMS, 2 * parts + 2)
        for part in prange(parts, num_threads=threads, schedule="static"):
            sums[part] = squares_span(&x[part * ADAM_SPAN],
                                      smaller(ADAM_SPAN, n - part * ADAM_SPAN))
        for part in range(parts):
            total += sums[part]
    return total
