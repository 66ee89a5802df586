"""Which pairs byte-pair encoding merges: counts are kept, not counted anew after each merge.

Every place of the training text where two symbols meet is in the list of its pair, and a merge
touches the places of that pair and their neighbours alone.
"""

import heapq

from libc.stdint cimport int32_t, int64_t


cdef class Merging:
    """Distinct pieces with their numbers of occurrences, as symbols that merges replace.

    symbols  (n,) int32: the pieces' bytes one behind the other, each piece followed by -1; written
    owner    (n,) int32: the number of the piece that each place belongs to
    times    (pieces,) int64: how often each piece occurs
    links    (5, n) int32: scratch
    Raises ValueError where lengths differ or a piece is not closed by -1.
    """

    cdef int32_t[::1] symbols, owner, after, before, pair, later, earlier
    cdef int64_t[::1] times
    cdef dict numbers       # left << 32 | right -> the pair's number
    cdef list keys, counts, heads
    cdef set touched        # pairs that became more frequent since they were last in the heap
    cdef list heap

    def __init__(self, int32_t[::1] symbols not None, int32_t[::1] owner not None,
                 int64_t[::1] times not None, int32_t[:, ::1] links not None):
        cdef Py_ssize_t n = symbols.shape[0], i
        if owner.shape[0] != n or links.shape[0] != 5 or links.shape[1] != n:
            raise ValueError(f"owner, links: expected {n} places")
        if n and symbols[n - 1] >= 0:
            raise ValueError("symbols: the last piece is not closed by -1")
        for i in range(n):
            if not 0 <= owner[i] < times.shape[0]:
                raise ValueError(f"owner: found {owner[i]}, expected 0 to {times.shape[0] - 1}")
        self.symbols, self.owner, self.times = symbols, owner, times
        self.after, self.before, self.pair = links[0], links[1], links[2]
        self.later, self.earlier = links[3], links[4]
        self.numbers, self.keys, self.counts, self.heads = {}, [], [], []
        self.touched, self.heap = set(), []
        for i in range(n):
            self.pair[i] = -1
            self.after[i] = <int32_t>(i + 1) if symbols[i] >= 0 and symbols[i + 1] >= 0 else -1
            self.before[i] = <int32_t>(i - 1) if i and symbols[i] >= 0 and symbols[i - 1] >= 0 \
                else -1
        for i in range(n):
            if self.after[i] >= 0:
                self.link(<int32_t>i)

    def most_frequent(self):
        """(occurrences, left, right) of the most frequent pair, equal ones by their symbols.

        None where there is no pair. The pair is not offered again until it is more frequent.
        """
        for number in self.touched:
            key = self.keys[number]
            heapq.heappush(self.heap, (-self.counts[number], key, number))
        self.touched.clear()
        while self.heap:
            count, key, number = heapq.heappop(self.heap)
            now = self.counts[number]
            if -count == now and now:
                return now, key >> 32, key & 0xFFFFFFFF
            if now and now < -count:
                heapq.heappush(self.heap, (-now, key, number))
        return None

    def merge(self, int32_t left, int32_t right, int32_t merged):
        """Replace the pair by the symbol `merged` wherever it occurs, from left to right."""
        cdef int32_t at, second, third, first
        number = self.numbers.get(<int64_t>left << 32 | right)
        if number is None:
            return
        places = []
        at = self.heads[number]
        while at >= 0:
            places.append(at)
            at = self.later[at]
        if left == right:
            places.sort()
        for place in places:
            at = place
            second = self.after[at]
            if self.symbols[at] != left or second < 0 or self.symbols[second] != right:
                continue        # the place before it was of the same pair
            first, third = self.before[at], self.after[second]
            self.unlink(at)
            if first >= 0:
                self.unlink(first)
            if third >= 0:
                self.unlink(second)
                self.before[third] = at
            self.symbols[at], self.after[at] = merged, third
            self.symbols[second] = -1
            self.after[second] = self.before[second] = -1
            if first >= 0:
                self.link(first)
            if third >= 0:
                self.link(at)

    cdef link(self, int32_t at):
        """Put the place into the list of the pair that begins there."""
        cdef int64_t key = <int64_t>self.symbols[at] << 32 | self.symbols[self.after[at]]
        cdef int32_t head
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.keys)
            self.keys.append(key)
            self.counts.append(0)
            self.heads.append(-1)
        self.counts[number] += self.times[self.owner[at]]
        head = self.heads[number]
        self.pair[at], self.later[at], self.earlier[at] = number, head, -1
        if head >= 0:
            self.earlier[head] = at
        self.heads[number] = at
        self.touched.add(number)

    cdef unlink(self, int32_t at):
        """Take the place out of its pair's list."""
        cdef int32_t number = self.pair[at], later = self.later[at], earlier = self.earlier[at]
        if number < 0:
            return
        self.counts[number] -= self.times[self.owner[at]]
        if earlier >= 0:
            self.later[earlier] = later
        else:
            self.heads[number] = later
        if later >= 0:
            self.earlier[later] = earlier
        self.pair[at] = -1
