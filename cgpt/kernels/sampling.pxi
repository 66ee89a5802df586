# The choice of a token: penalties, the likeliest, a draw. No full sort anywhere.
#
# A token's rank is one number (rank_of), so that quickselect compares integers. A draw walks in
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


def penalise(float[::1] scores, const int[::1] ids, int[::1] counts, float repetition,
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


cdef double weigh(const float *scores, float *weights, double *sums, Py_ssize_t V, float most,
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


cdef inline void exchange(unsigned long long *a, unsigned long long *b) noexcept nogil:
    cdef unsigned long long old = a[0]
    a[0] = b[0]
    b[0] = old


cdef inline void middle_last(unsigned long long *ranks, Py_ssize_t n) noexcept nogil:
    """Put the median of the first, middle and last of n ranks last, the largest in the middle."""
    cdef unsigned long long *first = ranks
    cdef unsigned long long *middle = ranks + n // 2
    cdef unsigned long long *last = ranks + n - 1
    if first[0] > middle[0]:
        exchange(first, middle)
    if last[0] > middle[0]:
        exchange(middle, last)
    if first[0] > last[0]:
        exchange(first, last)


cdef unsigned long long last_kept(unsigned long long *ranks, Py_ssize_t n, const float *weights,
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
        middle_last(ranks + low, high - low)
        pivot = ranks[high - 1]
        place, mass = low, 0
        for i in range(low, high - 1):      # no branch: a guess would be wrong half of the time
            rank = ranks[i]
            ranks[i] = ranks[place]
            ranks[place] = rank
            higher = rank > pivot
            place += higher
            mass += higher * (1 if weights == NULL else weights[token_of(rank)])
        exchange(ranks + place, ranks + high - 1)
        if place > low and mass >= goal:
            high = place
            continue
        own = 1 if weights == NULL else weights[token_of(pivot)]
        if mass + own >= goal:
            return pivot
        goal -= mass + own
        low = place + 1
    return pivot


cdef float floor_of(const float *scores, Py_ssize_t V, Py_ssize_t k,
                    unsigned long long *ranks) noexcept nogil:
    """A score that the k largest reach: the k-th of the largest of at least k strips."""
    cdef Py_ssize_t size = V // (8 * k) + 1, strips = blocks(V, size), i
    cdef vf check = vset1(0)
    for i in range(strips):
        ranks[i] = rank_of(strip_max(scores + i * size, smaller(size, V - i * size), &check), i)
    return score_of(last_kept(ranks, strips, NULL, <double>k))


cdef struct Work:
    # Scratch of one call: weights (V,), sums of their strips, and twice room for V ranks.
    float *weights
    double *sums
    unsigned long long *ranks
    unsigned long long *spare


cdef Work work_for(Py_ssize_t V) noexcept nogil:
    cdef Work work
    cdef Py_ssize_t room = (V + 15) // 16 * 16, strips = (blocks(V, STRIP) + 15) // 16 * 16
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


cdef Py_ssize_t walk_all(const Work *work, Py_ssize_t V, double goal) noexcept nogil:
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


cdef unsigned long long lowest_rank(const Work *work, Py_ssize_t n, Py_ssize_t top_k,
                                    double top_p, double total) noexcept nogil:
    """The lowest rank among the top_k (0: all) of n that together have top_p of their mass.

    Source: Holtzman et al. 2020, arXiv:1904.09751, section 3.1, for top_p.
    """
    cdef unsigned long long lowest = 0
    cdef unsigned long long *ranks = work.spare
    cdef Py_ssize_t i, kept = 0
    memcpy(ranks, work.ranks, n * sizeof(unsigned long long))
    if 0 < top_k < n:
        lowest = last_kept(ranks, n, NULL, <double>top_k)
    if top_k > 0:
        total = 0
        for i in range(n):
            if work.ranks[i] >= lowest:
                ranks[kept] = work.ranks[i]
                total += work.weights[token_of(ranks[kept])]
                kept += 1
        n = kept
    if top_p < 1:
        lowest = last_kept(ranks, n, work.weights, top_p * total)
    return lowest


cdef Py_ssize_t draw_span(const float *scores, Py_ssize_t V, double temperature, Py_ssize_t top_k,
                          double top_p, double min_p, double u) noexcept nogil:
    """See draw."""
    cdef vf check = vset1(0)
    cdef float most = strip_max(scores, V, &check), floor = -INFINITY, least = <float>1e-45
    cdef float inverse = <float>(1 / temperature) if temperature > 1e-30 else <float>1e30  # finite
    cdef Work work = work_for(V)
    cdef double total, sum = 0
    cdef Py_ssize_t i, n = 0, kept = 0
    cdef unsigned long long lowest = 0
    if vsum(check) != 0 or not isfinite(most):
        return -1
    total = weigh(scores, work.weights, work.sums, V, most, inverse)
    if top_k >= V:
        top_k = 0
    if top_k == 0 and top_p == 1 and min_p == 0:
        return walk_all(&work, V, u * total)
    if top_k > 0:
        floor = floor_of(scores, V, top_k, work.ranks)
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


cdef int check_draw(Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                    double min_p) except -1:
    if not 0 < V <= 0xffffffff:
        raise ValueError(f"scores: found {V} to choose from, expected at least one element")
    for name, value, fits in (("temperature", temperature, temperature > 0),
                              ("top_k", top_k, top_k >= 0), ("top_p", top_p, 0 < top_p <= 1),
                              ("min_p", min_p, 0 <= min_p <= 1)):
        if not fits:
            raise ValueError(f"{name}: found {value}, expected another range")
    return 0


def draw(const float[::1] scores, double temperature, Py_ssize_t top_k, double top_p,
         double min_p, double u):
    """A token drawn from softmax(scores / temperature), cut to its likeliest part.

    Of the tokens in order of their score (equal scores: of their id) are kept: the first top_k (0
    for all); of those the fewest that have top_p of their probability together; of those the ones
    whose probability is at least min_p of the largest. In the order of their ids they divide
    [0, 1) among them in proportion to their probabilities; `u` falls into the share of the result.
    scores  (V,)  -inf is never drawn
    Returns -1 where there is nothing to choose: NaN or infinity somewhere, or nothing but -inf.
    Raises ValueError for an empty array or a setting out of range.
    """
    cdef Py_ssize_t V = scores.shape[0], found
    check_draw(V, temperature, top_k, top_p, min_p)
    if not 0 <= u < 1:
        raise ValueError(f"u: found {u}, expected at least 0 and below 1")
    with nogil:
        found = draw_span(&scores[0], V, temperature, top_k, top_p, min_p, u)
    return found
