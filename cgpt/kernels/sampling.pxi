# Sampling of tokens: penalties, the most likely, a random one. No full sort anywhere.
#
# A token's rank is one number (rank_of), so that quickselect compares integers. Sampling walks in
# the order of the ids: instruction sets that differ in the last bit of a probability differ in
# the token only where u falls into that bit.

from libc.float cimport FLT_MAX
from libc.math cimport INFINITY

cdef enum:
    STRIP = 256         # scores whose largest, or weights whose sum, is found at once


cdef inline unsigned long long rank_of(float score, Py_ssize_t token) noexcept nogil:
    """Rises with the score and, among equal scores, as the id falls."""
    cdef unsigned int bits
    score = score + <float>0.0          # -0 is 0
    memcpy(&bits, &score, sizeof(float))
    bits = ~bits if bits >> 31 else bits | 0x80000000u
    return (<unsigned long long>bits << 32) | (0xffffffffu - <unsigned int>token)


cdef inline Py_ssize_t token_of(unsigned long long rank) noexcept nogil:
    return <Py_ssize_t>(0xffffffffu - <unsigned int>(rank & 0xffffffffu))


cdef inline float score_of(unsigned long long rank) noexcept nogil:
    cdef unsigned int bits = <unsigned int>(rank >> 32)
    cdef float score
    bits = bits & 0x7fffffffu if bits >> 31 else ~bits
    memcpy(&score, &bits, sizeof(float))
    return score


cdef float strip_max(const float *x, Py_ssize_t n, vf *check) noexcept nogil:
    """The largest of x; `check` gets NaN in a lane where there is NaN or infinity."""
    cdef vf most = vset1(-INFINITY), v
    cdef Py_ssize_t i = 0
    cdef float highest
    while i + VL <= n:
        v = vload(x + i)
        most = vmax(most, v)
        check[0] = check[0] + vmax(vset1(0), v) * vset1(0)
        i += VL
    highest = vmax_lanes(most)
    while i < n:
        v = vset1(x[i])
        check[0] = check[0] + vmax(vset1(0), v) * vset1(0)
        if not x[i] <= highest:
            highest = x[i]
        i += 1
    return highest


cdef Py_ssize_t argmax_span(const float *x, Py_ssize_t n) noexcept nogil:
    """See argmax."""
    cdef vf check = vset1(0)
    cdef float best = -INFINITY, most
    cdef Py_ssize_t start, where = 0
    for start from 0 <= start < n by STRIP:
        most = strip_max(x + start, smaller(STRIP, n - start), &check)
        if most > best:
            best = most
            where = start
    if vsum(check) != 0 or not isfinite(best):
        return -1
    while x[where] != best:
        where += 1
    return where


def argmax(const float[::1] x):
    """Index of the largest of x (V,), the lowest where several are; -inf is never chosen.

    Returns -1 where there is nothing to choose: NaN or infinity somewhere, or nothing but -inf.
    Raises ValueError for an empty array.
    """
    cdef Py_ssize_t found
    if x.shape[0] == 0:
        raise ValueError("x: found shape (0,), expected at least one element")
    with nogil:
        found = argmax_span(&x[0], x.shape[0])
    return found


def apply_penalties(float[::1] scores, const int[::1] ids, int[::1] counts, float repetition,
             float presence, float frequency):
    """Lower the scores of the tokens that occur in `ids`, each once however often it occurs.

    A score above 0 is divided, another multiplied by `repetition`; then presence and frequency
    times the number of occurrences are subtracted.
    scores  (V,)  changed at the tokens of ids alone
    ids     (n,)  int32
    counts  (V,)  int32 scratch, all zeros before and after
    Raises ValueError for a wrong shape, an id out of range or a repetition that is not above 0.
    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1, for the first.
    """
    cdef Py_ssize_t V = scores.shape[0], n = ids.shape[0], i
    cdef float score
    expect("counts", counts.shape[0], V)
    expect_range("ids", ids, 0, V)
    if not repetition > 0:
        raise ValueError(f"repetition: found {repetition}, expected above 0")
    for i in range(n):
        counts[ids[i]] += 1
    for i in range(n):
        if counts[ids[i]]:
            score = scores[ids[i]]
            score = score / repetition if score > 0 else score * repetition
            scores[ids[i]] = score - presence - frequency * counts[ids[i]]
            counts[ids[i]] = 0


cdef double exp_weights(const float *scores, float *weights, double *sums, Py_ssize_t V, float most,
                  float inverse) noexcept nogil:
    """weights = exp((scores - most) * inverse); their sum, NaN where a score is.

    sums: written, of each strip; vectors add up over a strip, strips in double, in this order.
    """
    cdef Py_ssize_t start, j, n
    cdef vf shift = vset1(most), rate = vset1(inverse), part, v
    cdef double total = 0, sum
    for start from 0 <= start < V by STRIP:
        n = smaller(STRIP, V - start)
        part = vset1(0)
        j = 0
        while j + VL <= n:
            v = vexp((vload(scores + start + j) - shift) * rate)
            vstore(weights + start + j, v)
            part = part + v
            j += VL
        sum = vsum(part)
        while j < n:
            weights[start + j] = vmax_lanes(vexp((vset1(scores[start + j]) - shift) * rate))
            sum += weights[start + j]
            j += 1
        sums[start // STRIP] = sum
        total += sum
    return total


cdef inline void swap(unsigned long long *a, unsigned long long *b) noexcept nogil:
    cdef unsigned long long old = a[0]
    a[0] = b[0]
    b[0] = old


cdef inline void median_of_three(unsigned long long *ranks, Py_ssize_t n) noexcept nogil:
    """Put the median of the first, middle and last of n ranks last, the largest in the middle."""
    cdef unsigned long long *first = ranks
    cdef unsigned long long *middle = ranks + n // 2
    cdef unsigned long long *last = ranks + n - 1
    if first[0] > middle[0]:
        swap(first, middle)
    if last[0] > middle[0]:
        swap(middle, last)
    if first[0] > last[0]:
        swap(first, last)


cdef unsigned long long lowest_kept(unsigned long long *ranks, Py_ssize_t n, const float *weights,
                                  double goal) noexcept nogil:
    """The lowest of the fewest highest ranks whose weights add up to `goal`, or of all n >= 1.

    The weight of a rank is that of its token, or 1 where `weights` is NULL. Reorders the ranks.
    Quickselect on both sums and ranks. Source: Hoare 1961, Algorithm 65 (Find).
    """
    cdef Py_ssize_t low = 0, high = n, i, place
    cdef unsigned long long pivot = ranks[0], rank
    cdef double mass, own
    cdef bint higher
    while low < high:
        median_of_three(ranks + low, high - low)
        pivot = ranks[high - 1]
        place, mass = low, 0
        for i in range(low, high - 1):      # branch-free: half of the guesses would be wrong
            rank = ranks[i]
            ranks[i] = ranks[place]
            ranks[place] = rank
            higher = rank > pivot
            place += higher
            mass += higher * (1 if weights == NULL else weights[token_of(rank)])
        swap(ranks + place, ranks + high - 1)
        if place > low and mass >= goal:
            high = place
            continue
        own = 1 if weights == NULL else weights[token_of(pivot)]
        if mass + own >= goal:
            return pivot
        goal -= mass + own
        low = place + 1
    return pivot


cdef float top_k_floor(const float *scores, Py_ssize_t V, Py_ssize_t k,
                    unsigned long long *ranks) noexcept nogil:
    """A score that the k largest reach: the k-th of the largest of at least k strips."""
    cdef Py_ssize_t size = V // (8 * k) + 1, strips = ceil_div(V, size), i
    cdef vf check = vset1(0)
    for i in range(strips):
        ranks[i] = rank_of(strip_max(scores + i * size, smaller(size, V - i * size), &check), i)
    return score_of(lowest_kept(ranks, strips, NULL, <double>k))


cdef struct SampleScratch:
    # Scratch of one call: weights (V,), sums of their strips, and twice room for V ranks.
    float *weights
    double *sums
    unsigned long long *ranks
    unsigned long long *spare


cdef SampleScratch sample_scratch(Py_ssize_t V) noexcept nogil:
    cdef SampleScratch work
    cdef Py_ssize_t room = (V + 15) // 16 * 16, strips = (ceil_div(V, STRIP) + 15) // 16 * 16
    work.weights = cgpt_scratch(SLOT_THREAD, 5 * room + 2 * strips)
    work.sums = <double *>(work.weights + room)
    work.ranks = <unsigned long long *>(work.sums + strips)
    work.spare = work.ranks + room
    return work


cdef Py_ssize_t gather(const float *scores, const float *weights, Py_ssize_t V, float least,
                       float floor, unsigned long long *ranks) noexcept nogil:
    """The ranks, by id, of scores from `floor` on with weights from `least` on; how many."""
    cdef Py_ssize_t i, n = 0
    for i in range(V):
        if weights[i] >= least and scores[i] >= floor:
            ranks[n] = rank_of(scores[i], i)
            n += 1
    return n


cdef Py_ssize_t invert_cdf(const SampleScratch *work, Py_ssize_t V, double goal) noexcept nogil:
    """The token where the sum of the weights passes `goal`; the last with a weight if none."""
    cdef Py_ssize_t i, strip = 0, last = (V - 1) // STRIP
    cdef Py_ssize_t chosen = -1
    cdef double sum = 0
    while strip < last and sum + work.sums[strip] <= goal:
        sum += work.sums[strip]
        strip += 1
    # A strip's own sum may be off by a rounding: then the walk goes on into the next.
    for i in range(strip * STRIP, V):
        if work.weights[i] > 0:
            chosen = i
            sum += work.weights[i]
            if sum > goal:
                break
    if chosen < 0:                  # nothing but zeros behind the goal, which a rounding passed
        chosen = strip * STRIP - 1
        while work.weights[chosen] == 0:
            chosen -= 1
    return chosen


cdef unsigned long long lowest_rank(const SampleScratch *work, Py_ssize_t n, Py_ssize_t top_k,
                                    double top_p, double total) noexcept nogil:
    """The lowest rank among the top_k (0: all) of n that together have top_p of their mass.

    Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1, for top_p.
    """
    cdef unsigned long long lowest = 0
    cdef unsigned long long *ranks = work.spare
    cdef Py_ssize_t i, kept = 0
    memcpy(ranks, work.ranks, n * sizeof(unsigned long long))
    if 0 < top_k < n:
        lowest = lowest_kept(ranks, n, NULL, <double>top_k)
    if top_k > 0:
        total = 0
        for i in range(n):
            if work.ranks[i] >= lowest:
                ranks[kept] = work.ranks[i]
                total += work.weights[token_of(ranks[kept])]
                kept += 1
        n = kept
    if top_p < 1:
        lowest = lowest_kept(ranks, n, work.weights, top_p * total)
    return lowest


cdef Py_ssize_t sample_span(const float *scores, Py_ssize_t V, double temperature, Py_ssize_t top_k,
                          double top_p, double min_p, double u) noexcept nogil:
    """See sample."""
    cdef vf check = vset1(0)
    cdef float most = strip_max(scores, V, &check), floor = -INFINITY, least = <float>1e-45
    cdef float inverse = <float>(1 / temperature) if temperature > 1e-30 else <float>1e30  # finite
    cdef SampleScratch work = sample_scratch(V)
    cdef double total, sum = 0
    cdef Py_ssize_t i, n = 0, kept = 0
    cdef unsigned long long lowest = 0
    if vsum(check) != 0 or not isfinite(most):
        return -1
    total = exp_weights(scores, work.weights, work.sums, V, most, inverse)
    if top_k >= V:
        top_k = 0
    if top_k == 0 and top_p == 1 and min_p == 0:
        return invert_cdf(&work, V, u * total)
    if top_k > 0:
        floor = top_k_floor(scores, V, top_k, work.ranks)
    elif top_p < 1:     # all that is below has half of 1 - top_p together and is never reached
        least = <float>((1 - top_p) * total / V / 2)
    else:
        least = <float>min_p
    n = gather(scores, work.weights, V, least, floor, work.ranks)
    if top_k > 0 or top_p < 1:
        lowest = lowest_rank(&work, n, top_k, top_p, total)
    total = 0
    for i in range(n):                      # what is kept, still in the order of the ids
        if work.ranks[i] >= lowest and work.weights[token_of(work.ranks[i])] >= min_p:
            work.ranks[kept] = work.ranks[i]
            total += work.weights[token_of(work.ranks[i])]
            kept += 1
    for i in range(kept):
        sum += work.weights[token_of(work.ranks[i])]
        if sum > u * total:
            break
    return token_of(work.ranks[smaller(i, kept - 1)])


cdef int check_sampling(Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                    double min_p) except -1:
    if not 0 < V <= 0xffffffff:
        raise ValueError(f"scores: found {V} to sample_token from, expected at least one element")
    for name, value, fits in (("temperature", temperature, temperature > 0),
                              ("top_k", top_k, top_k >= 0), ("top_p", top_p, 0 < top_p <= 1),
                              ("min_p", min_p, 0 <= min_p <= 1)):
        if not fits:
            raise ValueError(f"{name}: found {value}, expected another range")
    return 0


def sample(const float[::1] scores, double temperature, Py_ssize_t top_k, double top_p,
         double min_p, double u):
    """A token sampled from softmax(scores / temperature), cut to its most likely part.

    Of the tokens in order of their score (equal scores: of their id) are kept: the first top_k (0
    for all); of those the fewest that have top_p of their probability together; of those the ones
    whose probability is at least min_p of the largest. In the order of their ids they divide
    [0, 1) among them in proportion to their probabilities; `u` falls into the share of the result.
    scores  (V,)  -inf is never sampled
    Returns -1 where there is nothing to choose: NaN or infinity somewhere, or nothing but -inf.
    Raises ValueError for an empty array or a setting out of range.
    """
    cdef Py_ssize_t V = scores.shape[0], found
    check_sampling(V, temperature, top_k, top_p, min_p)
    if not 0 <= u < 1:
        raise ValueError(f"u: found {u}, expected at least 0 and below 1")
    with nogil:
        found = sample_span(&scores[0], V, temperature, top_k, top_p, min_p, u)
    return found


ctypedef struct SamplingSettings:
    # How a token is sampled: the most likely (temperature 0) or at random, none of `banned`
    double temperature
    Py_ssize_t top_k
    double top_p
    double min_p
    const int *banned
    Py_ssize_t n_banned


cdef int sample_token(float *scores, Py_ssize_t V, const SamplingSettings *settings,
                      double u) noexcept nogil:
    """The sampled token, -1 where there is none; the scores stay as they are."""
    cdef float *kept = cgpt_scratch(SLOT_SUMS, settings.n_banned + 1)
    cdef Py_ssize_t found, i
    for i in range(settings.n_banned):
        kept[i] = scores[settings.banned[i]]
        scores[settings.banned[i]] = -INFINITY
    if settings.temperature == 0:
        found = argmax_span(scores, V)
    else:
        found = sample_span(scores, V, settings.temperature, settings.top_k, settings.top_p,
                            settings.min_p, u)
    for i in range(settings.n_banned - 1, -1, -1):      # backwards, for what is named twice
        scores[settings.banned[i]] = kept[i]
    return <int>found


cdef class TokenSampler:
    """How tokens are sampled: the most likely of them (temperature 0), or as `sample` does.

    banned  (n,) int32: ids that are never sampled, each once
    Raises ValueError for a setting out of range.
    """

    cdef SamplingSettings _settings
    cdef Py_ssize_t _V
    cdef const int[::1] _banned

    def __init__(self, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                 double min_p, const int[::1] banned):
        check_sampling(V, temperature if temperature != 0 else 1, top_k, top_p, min_p)
        expect_range("banned", banned, 0, V)
        self._V, self._banned = V, banned
        self._settings = SamplingSettings(temperature, top_k, top_p, min_p, NULL, banned.shape[0])
        if banned.shape[0]:
            self._settings.banned = &banned[0]

    cdef int check(self, Py_ssize_t rows, Py_ssize_t V, const double[::1] u,
                   const int[::1] tokens) except -1:
        """Raises ValueError where rows of V scores cannot be sampled from, with these arrays."""
        cdef Py_ssize_t i
        expect("sampler: vocabulary", self._V, V)
        expect("tokens", tokens.shape[0], rows)
        if self._settings.temperature != 0:
            if u is None:
                raise ValueError("u: found None, expected a number for each row")
            expect("u", u.shape[0], rows)
            for i in range(rows):
                if not 0 <= u[i] < 1:
                    raise ValueError(f"u: found {u[i]}, expected at least 0 and below 1")
        return 0

    def sample(self, float[:, ::1] scores, const double[::1] u, int[::1] tokens):
        """A token for each row.

        scores  (R, V)   as they were before, afterwards
        u       (R,)     float64 in [0, 1), or None at temperature 0
        tokens  (R,)     int32, written; -1 where there is nothing to choose
        Raises ValueError naming what does not fit.
        """
        cdef Py_ssize_t R = scores.shape[0], V = scores.shape[1], i
        cdef bint drawn = self._settings.temperature != 0
        cdef int threads = threads_for((100.0 if drawn else 2.0) * R * V)
        self.check(R, V, u, tokens)
        for i in prange(R, nogil=True, num_threads=threads, schedule="dynamic"):
            tokens[i] = sample_token(&scores[i, 0], V, &self._settings, u[i] if drawn else 0)


cdef Py_ssize_t gather_top_k(const float *scores, Py_ssize_t V, Py_ssize_t k,
                               unsigned long long *ranks) noexcept nogil:
    """The k highest ranks, highest first; fewer where fewer scores are above -inf."""
    cdef float floor = max(top_k_floor(scores, V, k, ranks), -FLT_MAX)
    cdef Py_ssize_t i, j, n, place = 0
    cdef unsigned long long lowest = 0, rank
    n = gather(scores, scores, V, floor, floor, ranks)
    if n > k:
        lowest = lowest_kept(ranks, n, NULL, <double>k)
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


cdef Py_ssize_t top_logprobs_span(const float *scores, Py_ssize_t V, int *ids, float *logprobs,
                             Py_ssize_t k) noexcept nogil:
    """See top_logprobs."""
    cdef vf check = vset1(0)
    cdef float most = strip_max(scores, V, &check)
    cdef SampleScratch work = sample_scratch(V)
    cdef Py_ssize_t i, n
    cdef double logsum
    if vsum(check) != 0 or not isfinite(most):
        return -1
    logsum = log(exp_weights(scores, work.weights, work.sums, V, most, 1))
    n = gather_top_k(scores, V, k, work.ranks)
    for i in range(k):
        ids[i] = <int>token_of(work.ranks[i]) if i < n else -1
        logprobs[i] = <float>(scores[ids[i]] - most - logsum) if i < n else -INFINITY
    return n


def top_logprobs(const float[::1] scores, int[::1] ids, float[::1] logprobs):
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
        found = top_logprobs_span(&scores[0], V, &ids[0], &logprobs[0], k)
    return found
