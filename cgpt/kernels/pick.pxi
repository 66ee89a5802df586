# A token for each of several rows, and the best few of one.


ctypedef struct Choice:
    # How a token is picked: the likeliest (temperature 0) or a draw, but none of `banned`
    double temperature
    Py_ssize_t top_k
    double top_p
    double min_p
    const int *banned
    Py_ssize_t bans


cdef int choose(float *scores, Py_ssize_t V, const Choice *choice, double u) noexcept nogil:
    """The token that is picked, -1 where there is nothing to choose; the scores stay as they are."""
    cdef float *kept = cgpt_scratch(SLOT_SUMS, choice.bans + 1)
    cdef Py_ssize_t found, i
    for i in range(choice.bans):
        kept[i] = scores[choice.banned[i]]
        scores[choice.banned[i]] = -INFINITY
    if choice.temperature == 0:
        found = argmax_span(scores, V)
    else:
        found = draw_span(scores, V, choice.temperature, choice.top_k, choice.top_p, choice.min_p,
                          u)
    for i in range(choice.bans - 1, -1, -1):      # backwards, for what is named twice
        scores[choice.banned[i]] = kept[i]
    return <int>found


cdef class Picking:
    """How tokens are picked: the likeliest of them (temperature 0), or as `draw` says.

    banned  (n,) int32: ids that are never picked, each once
    Raises ValueError for a setting out of range.
    """

    cdef Choice _choice
    cdef Py_ssize_t _V
    cdef const int[::1] _banned

    def __init__(self, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                 double min_p, const int[::1] banned):
        check_draw(V, temperature if temperature != 0 else 1, top_k, top_p, min_p)
        expect_range("banned", banned, 0, V)
        self._V, self._banned = V, banned
        self._choice = Choice(temperature, top_k, top_p, min_p, NULL, banned.shape[0])
        if banned.shape[0]:
            self._choice.banned = &banned[0]

    cdef int check(self, Py_ssize_t rows, Py_ssize_t V, const double[::1] u,
                   const int[::1] tokens) except -1:
        """Raises ValueError where rows of V scores cannot be picked from, with these arrays."""
        cdef Py_ssize_t i
        expect("picking: vocabulary", self._V, V)
        expect("tokens", tokens.shape[0], rows)
        if self._choice.temperature != 0:
            if u is None:
                raise ValueError("u: found None, expected a number for each row")
            expect("u", u.shape[0], rows)
            for i in range(rows):
                if not 0 <= u[i] < 1:
                    raise ValueError(f"u: found {u[i]}, expected at least 0 and below 1")
        return 0

    def pick(self, float[:, ::1] scores, const double[::1] u, int[::1] tokens):
        """A token for each row.

        scores  (R, V)   as they were before, afterwards
        u       (R,)     float64 in [0, 1), or None at temperature 0
        tokens  (R,)     int32, written; -1 where there is nothing to choose
        Raises ValueError naming what does not fit.
        """
        cdef Py_ssize_t R = scores.shape[0], V = scores.shape[1], i
        cdef bint drawn = self._choice.temperature != 0
        cdef int threads = threads_for((100.0 if drawn else 2.0) * R * V)
        self.check(R, V, u, tokens)
        for i in prange(R, nogil=True, num_threads=threads, schedule="dynamic"):
            tokens[i] = choose(&scores[i, 0], V, &self._choice, u[i] if drawn else 0)


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
