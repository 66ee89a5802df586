# Softmax cross-entropy: the loss of a row and its gradient in one pass over the logits.

cdef float mean_of(const float *x, Py_ssize_t n) noexcept nogil:
    cdef vf total = vset1(0)
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        total = total + load(x + i, n - i)
    return vsum(total) / n


cdef float cross_entropy_row(float *logits, Py_ssize_t V, Py_ssize_t target, float scale,
                             float smoothing, bint gradient) noexcept nogil:
    """The loss of a row; with `gradient` the logits become that of scale times the loss.

    Without smoothing the terms that it adds are exact zeros: the bits are those without them.
    """
    cdef vf most = vset1(logits[0]), total = vset1(0), shift, v, spread
    cdef Py_ssize_t j = 0
    cdef float highest, tail = 0, sum, certain = 1 - smoothing, wanted = certain * logits[target]
    if smoothing > 0:
        wanted += smoothing * mean_of(logits, V)
    while j + VL <= V:
        most = vmax(most, vload(logits + j))
        j += VL
    highest = vmax_lanes(most)
    while j < V:
        if not logits[j] <= highest:
            highest = logits[j]
        j += 1
    shift = vset1(highest)
    j = 0
    while j + VL <= V:
        v = vexp(vload(logits + j) - shift)
        if gradient:
            vstore(logits + j, v)
        total = total + v
        j += VL
    while j < V:
        v = vexp(vset1(logits[j] - highest))
        tail += vmax_lanes(v)
        if gradient:
            logits[j] = vmax_lanes(v)
        j += 1
    sum = vsum(total) + tail
    if gradient:
        shift = vset1(scale / sum)
        spread = vset1(scale * smoothing / V)
        for j from 0 <= j < V by VL:
            store(logits + j, load(logits + j, V - j) * shift - spread, V - j)
        logits[target] -= scale * certain
    return <float>log(sum) + (highest - wanted)


def cross_entropy(float[:, ::1] logits, const int[::1] targets, float[::1] losses, float scale,
                  bint gradient=True, double smoothing=0, weights=None):
    """losses[n] = -sum(wanted log softmax(logits[n])), 0 where the target is -1.

    wanted is 1 at targets[n] and 0 elsewhere; with smoothing e it is (1 - e) of that + e / V.
    logits   (N, V)  overwritten with scale * (softmax - wanted), zeros where ignored; left as
                     they are when `gradient` is false
    weights  (N,)    of the rows: that of row n is scale * weights[n] then; None for ones. The losses
                     are without them
    targets  (N,)    int32, -1 is ignored
    losses   (N,)    written, natural logarithm
    Raises ValueError naming the array whose shape is wrong, the target out of range, or a
    smoothing outside [0, 1).
    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    cdef Py_ssize_t N = logits.shape[0], V = logits.shape[1], n
    expect("targets", targets.shape[0], N)
    expect_length("losses", losses, N)
    expect_range("targets", targets, -1, V)
    cdef const float *weight = NULL
    if weights is not None:
        expect("weights", len(weights), N)
        if N > 0:
            weight = vector_of("weights", weights, N)
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing: found {smoothing}, expected at least 0 and below 1")
    cdef int threads = threads_for(20.0 * N * V)
    for n in prange(N, nogil=True, num_threads=threads, schedule="static"):
        if targets[n] >= 0:
            losses[n] = cross_entropy_row(&logits[n, 0], V, targets[n],
                                          scale if weight == NULL else scale * weight[n],
                                          <float>smoothing, gradient)
        else:
            losses[n] = 0
            if gradient:
                memset(&logits[n, 0], 0, V * sizeof(float))
