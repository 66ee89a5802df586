# A token for each of several rows, and the best few of one.


def pick_rows(const float[:, ::1] scores, double temperature, Py_ssize_t top_k, double top_p,
              double min_p, u, int[::1] tokens):
    """For each row what `argmax` (temperature 0) or `draw` would return.

    scores  (R, V)
    u       (R,) float64 in [0, 1), or None at temperature 0
    tokens  (R,) int32, written; -1 where there is nothing to choose
    Raises ValueError for a row without an element or a setting out of range.
    """
    cdef Py_ssize_t R = scores.shape[0], V = scores.shape[1], i
    cdef const double[::1] draws
    cdef int threads = threads_for(2.0 * R * V)
    expect("tokens", tokens.shape[0], R)
    check_draw(V, temperature if temperature != 0 else 1, top_k, top_p, min_p)
    if R == 0:
        return
    if temperature == 0:
        for i in prange(R, nogil=True, num_threads=threads, schedule="static"):
            tokens[i] = <int>argmax_span(&scores[i, 0], V)
        return
    draws = u
    expect("u", draws.shape[0], R)
    for i in range(R):
        if not 0 <= draws[i] < 1:
            raise ValueError(f"u: found {draws[i]}, expected at least 0 and below 1")
    threads = threads_for(100.0 * R * V)
    for i in prange(R, nogil=True, num_threads=threads, schedule="dynamic"):
        tokens[i] = <int>draw_span(&scores[i, 0], V, temperature, top_k, top_p, min_p, draws[i])


cdef Py_ssize_t gather_largest(const float *scores, Py_ssize_t V, Py_ssize_t k,
                               unsigned long long *ranks) noexcept nogil:
    """The k highest ranks, highest first; fewer where fewer scores are above -inf."""
    cdef float floor = max(floor_of(scores, V, k, ranks), -FLT_MAX)
    cdef Py_ssize_t i, j, n, place = 0
    cdef unsigned long long lowest = 0, rank
    n = gather(scores, scores, V, floor, floor, ranks)
    if n > k:
        lowest = last_kept(ranks, n, NULL, <double>k)
    for i in range(n):          # those that are kept, inserted in falling order
        rank = ranks[i]
        if rank >= lowest:
            j = place
            while j > 0 and ranks[j - 1] < rank:
                ranks[j] = ranks[j - 1]
                j -= 1
            ranks[j] = rank
            place += 1
    return place


cdef Py_ssize_t largest_span(const float *scores, Py_ssize_t V, int *ids, float *logprobs,
                             Py_ssize_t k) noexcept nogil:
    """See largest."""
    cdef vf check = vset1(0)
    cdef float most = strip_max(scores, V, &check)
    cdef Work work = work_for(V)
    cdef Py_ssize_t i, n
    cdef double logsum
    if vsum(check) != 0 or not isfinite(most):
        return -1
    logsum = log(weigh(scores, work.weights, work.sums, V, most, 1))
    n = gather_largest(scores, V, k, work.ranks)
    for i in range(k):
        ids[i] = <int>token_of(work.ranks[i]) if i < n else -1
        logprobs[i] = <float>(scores[ids[i]] - most - logsum) if i < n else -INFINITY
    return n


def largest(const float[::1] scores, int[::1] ids, float[::1] logprobs):
    """The k largest scores, largest first (equal scores: the lowest id), and log softmax there.

    scores    (V,)
    ids       (k,)  int32, written; 1 <= k <= V
    logprobs  (k,)  written, natural logarithm
    Returns how many there are: -inf is left out and what is behind them is -1 and -inf. -1 and
    nothing written where there is nothing to choose: NaN or infinity, or nothing but -inf.
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t V = scores.shape[0], k = ids.shape[0], found
    expect_length("logprobs", logprobs, k)
    if not 1 <= k <= V:
        raise ValueError(f"ids: found shape ({k},), expected 1 to {V} elements")
    with nogil:
        found = largest_span(&scores[0], V, &ids[0], &logprobs[0], k)
    return found
