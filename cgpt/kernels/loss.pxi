# Softmax cross-entropy: the loss of a row and its gradient in one pass over the logits.

cdef float cross_entropy_row(float *logits, Py_ssize_t V, Py_ssize_t target, float scale,
                             bint gradient) noexcept nogil:
    """-log softmax(logits)[target]; with `gradient` the logits become scale * (softmax - onehot)."""
    cdef vf most = vset1(logits[0]), total = vset1(0), shift, v
    cdef Py_ssize_t j = 0
    cdef float highest, tail = 0, sum, picked = logits[target]
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
        for j from 0 <= j < V by VL:
            store(logits + j, load(logits + j, V - j) * shift, V - j)
        logits[target] -= scale
    return <float>log(sum) + (highest - picked)


def cross_entropy(float[:, ::1] logits, const int[::1] targets, float[::1] losses, float scale,
                  bint gradient=True):
    """losses[n] = -log softmax(logits[n])[targets[n]], 0 where the target is -1.

    logits   (N, V)  overwritten with scale * (softmax - onehot), zeros where ignored; left as
                     they are when `gradient` is false
    targets  (N,)    int32, -1 is ignored
    losses   (N,)    written, natural logarithm
    Raises ValueError naming the array whose shape is wrong or the target out of range.
    """
    cdef Py_ssize_t N = logits.shape[0], V = logits.shape[1], n
    expect("targets", targets.shape[0], N)
    expect_length("losses", losses, N)
    expect_range("targets", targets, -1, V)
    cdef int threads = threads_for(20.0 * N * V)
    for n in prange(N, nogil=True, num_threads=threads, schedule="static"):
        if targets[n] >= 0:
            losses[n] = cross_entropy_row(&logits[n, 0], V, targets[n], scale, gradient)
        else:
            losses[n] = 0
            if gradient:
                memset(&logits[n, 0], 0, V * sizeof(float))
