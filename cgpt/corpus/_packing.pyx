"""Where groups and batches begin: one walk over the lengths of an epoch's samples."""

from libc.stdint cimport int64_t, uint8_t


def batch_borders(const int64_t[::1] lengths not None, int64_t most, int64_t[::1] borders not None):
    """Fill in where each batch of at most `most` tokens begins, and the end; the number of batches.

    lengths  (n,) none above `most`
    borders  (n + 1,) written: borders[0] = 0, borders[number] = n
    Raises ValueError where borders is too short.
    """
    cdef Py_ssize_t n = lengths.shape[0], i, count = 0
    cdef int64_t room = 0
    if borders.shape[0] <= n:
        raise ValueError(f"borders: found {borders.shape[0]} places, expected {n + 1}")
    for i in range(n):
        if i == 0 or lengths[i] > room:
            borders[count] = i
            count += 1
            room = most
        room -= lengths[i]
    borders[count] = n
    return count


def group_borders(const uint8_t[::1] joinable not None, const int64_t[::1] drawn not None,
                  const int64_t[::1] lengths not None, int64_t longest,
                  int64_t[::1] borders not None):
    """Fill in where each group of neighbours begins, and the end; the number of groups.

    A sample that is not joinable is a group of its own. Where a joinable one begins, the next of
    `drawn` says how many neighbours are joined, as far as they are joinable; what is longer than
    `longest` tokens together falls into several groups, each as long as can be.

    joinable, drawn, lengths  (n,)
    borders  (n + 1,) written: borders[0] = 0, borders[number] = n
    Raises ValueError where one of them has another length.
    """
    cdef Py_ssize_t n = lengths.shape[0], i, count = 0, draws = 0
    cdef int64_t room = 0, left = 0
    if joinable.shape[0] != n or drawn.shape[0] != n or borders.shape[0] <= n:
        raise ValueError(f"joinable, drawn, borders: expected {n}, {n} and {n + 1} places")
    for i in range(n):
        if left == 0 or not joinable[i] or lengths[i] > room:
            borders[count] = i
            count += 1
            room = longest
        room -= lengths[i]
        if not joinable[i]:
            left = 0
        elif left == 0:
            left = drawn[draws] - 1
            draws += 1
        else:
            left -= 1
    borders[count] = n
    return count
