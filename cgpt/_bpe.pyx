"""Byte-level byte-pair encoding: texts into pieces, pieces into tokens, and which pairs to merge.

Source: Sennrich, Haddow, Birch 2016, arXiv:1508.07909; over bytes: Radford et al. 2019, section 2.2.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

include "unicode.pxi"

cdef enum:
    BLANK, DIGIT, LETTER, SIGN          # classes of characters
    LONGEST = 32                        # characters of a piece
    DIGITS = 3                          # of a piece of digits
    ROOM = 4 * LONGEST + 4              # bytes of a piece


cdef inline int class_of(uint32_t c) noexcept nogil:
    """By fixed ranges, so that no release of Unicode changes what was trained.

    Beyond ASCII: spaces; punctuation, symbols, full-width signs; everything else is a letter.
    """
    if c < 0x80:
        if c == 32 or 9 <= c <= 13:
            return BLANK
        if 48 <= c <= 57:
            return DIGIT
        return LETTER if 65 <= (c & 0xDF) <= 90 else SIGN
    if c == 0x3000 or c == 0xA0 or 0x2000 <= c <= 0x200A or 0x2028 <= c <= 0x2029 or c == 0x85:
        return BLANK
    if (c < 0xC0 or 0x200B <= c <= 0x2BFF or 0x3001 <= c <= 0x303F or 0xFE10 <= c <= 0xFE6F
            or 0xFF01 <= c <= 0xFF0F or 0xFF1A <= c <= 0xFF20 or 0xFF3B <= c <= 0xFF40
            or 0xFF5B <= c <= 0xFF65 or 0x1F000 <= c <= 0x1FAFF):
        return SIGN
    return LETTER


cdef Py_ssize_t piece_end(int kind, void *data, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Where the piece that begins at `start` ends.

    A piece is a run of one class, with the one space (U+0020) before it; of blanks before
    something else the last one, where it is a space, belongs to what follows.
    """
    cdef Py_ssize_t at = start
    cdef uint32_t c = PyUnicode_READ(kind, data, at)
    cdef int found = class_of(c)
    cdef Py_ssize_t most = LONGEST
    if found == BLANK:
        while at < n and at - start < LONGEST and class_of(
                PyUnicode_READ(kind, data, at)) == BLANK:
            at += 1
        if at == n or at - start == LONGEST or PyUnicode_READ(kind, data, at - 1) != 32:
            return at
        if at - 1 > start:
            return at - 1
        found = class_of(PyUnicode_READ(kind, data, at))
        start += 1
    if found == DIGIT:
        most = DIGITS
    while at < n and at - start < most and class_of(PyUnicode_READ(kind, data, at)) == found:
        at += 1
    return at


cdef int put_utf8(int kind, void *data, Py_ssize_t start, Py_ssize_t end,
                  uint8_t *target) noexcept nogil:
    """The UTF-8 of text[start:end], lone surrogates too; its length."""
    cdef int size = 0
    cdef uint32_t c
    cdef Py_ssize_t i
    for i in range(start, end):
        c = PyUnicode_READ(kind, data, i)
        if c < 0x80:
            target[size] = <uint8_t>c
            size += 1
            continue
        if c < 0x800:
            target[size] = <uint8_t>(0xC0 | c >> 6)
            size += 1
        else:
            if c < 0x10000:
                target[size] = <uint8_t>(0xE0 | c >> 12)
                size += 1
            else:
                target[size] = <uint8_t>(0xF0 | c >> 18)
                target[size + 1] = <uint8_t>(0x80 | (c >> 12 & 0x3F))
                size += 2
            target[size] = <uint8_t>(0x80 | (c >> 6 & 0x3F))
            size += 1
        target[size] = <uint8_t>(0x80 | (c & 0x3F))
        size += 1
    return size


def pieces(str text not None):
    """The pieces of a text, as a list of their UTF-8; no token reaches over their borders."""
    cdef int kind = PyUnicode_KIND(text)
    cdef void *data = PyUnicode_DATA(text)
    cdef Py_ssize_t at = 0, end, n = len(text)
    cdef uint8_t room[ROOM]
    found = []
    while at < n:
        end = piece_end(kind, data, at, n)
        found.append(PyBytes_FromStringAndSize(<char *>room,
                                               put_utf8(kind, data, at, end, room)))
        at = end
    return found


cdef struct Run:
    int32_t *ids            # tokens found so far
    Py_ssize_t n_ids, room


cdef struct Pair:
    uint64_t key            # (left << 32 | right) + 1, or 0 where the slot is free
    int32_t merged


cdef class BytePairs:
    """Tokens in the order of their merging, and a text in them.

    tokens  byte strings of at least two bytes, distinct; tokens[i] has the id first_word + i
    first_byte  id of the byte 0
    In each piece, of all neighbours that together are a token, those of the lowest id are put
    together first, the left ones first, until there are none.
    Raises ValueError for a token shorter than two bytes, MemoryError.
    """

    cdef Pair *pairs
    cdef uint64_t mask
    cdef int shift
    cdef int32_t first_byte

    def __cinit__(self, tokens, int32_t first_byte=0, int32_t first_word=256):
        cdef uint64_t slots = 64, at
        cdef Py_ssize_t total = sum(map(len, tokens))
        self.shift, self.first_byte = 58, first_byte
        while slots < 2 * <uint64_t>total:
            slots *= 2
            self.shift -= 1
        self.mask = slots - 1
        self.pairs = <Pair *>calloc(slots, sizeof(Pair))
        if not self.pairs:
            raise MemoryError("no memory for a vocabulary")
        ids = {bytes([byte]): first_byte + byte for byte in range(256)}
        ids.update((token, number) for number, token in enumerate(tokens, first_word))
        for number, token in enumerate(tokens, first_word):
            if len(token) < 2:
                raise ValueError(f"tokens: found {token!r}, expected at least two bytes")
            for cut in range(1, len(token)):
                left, right = ids.get(token[:cut]), ids.get(token[cut:])
                if left is not None and right is not None:
                    at = self.slot(self.key(left, right))
                    self.pairs[at].key = self.key(left, right)
                    self.pairs[at].merged = number

    def __dealloc__(self):
        free(self.pairs)

    cdef inline uint64_t key(self, int32_t left, int32_t right) noexcept nogil:
        return (<uint64_t>left << 32 | <uint32_t>right) + 1

    cdef inline uint64_t slot(self, uint64_t key) noexcept nogil:
        cdef uint64_t at = key * <uint64_t>0x9E3779B97F4A7C15 >> self.shift
        while self.pairs[at].key and self.pairs[at].key != key:
            at = (at + 1) & self.mask
        return at

    cdef inline int32_t merged(self, int32_t left, int32_t right) noexcept nogil:
        """The token of two neighbours, or the largest number."""
        cdef Pair *found = &self.pairs[self.slot(self.key(left, right))]
        return found.merged if found.key else 0x7FFFFFFF

    def encode(self, str text not None):
        """The ids of a text, as the bytes of native int32."""
        return self.encode_many([text])[0]

    def encode_many(self, list texts not None):
        """The ids of all texts end to end, and how many each has: bytes of int32, of int64.

        The GIL is released once for all of them.
        """
        cdef Py_ssize_t n = len(texts), i, before
        cdef Text *given = characters_of(texts)
        cdef Run run
        cdef int failed = 0
        counts = bytearray(n * sizeof(int64_t))
        cdef int64_t *sizes = <int64_t *>PyByteArray_AS_STRING(counts)
        run.n_ids, run.room = 0, 8 * ROOM
        run.ids = <int32_t *>malloc(run.room * sizeof(int32_t))
        try:
            if not run.ids:
                raise MemoryError("no memory to encode texts")
            with nogil:
                for i in range(n):
                    before = run.n_ids
                    failed = self.walk(given[i].kind, given[i].data, given[i].n, &run)
                    if failed:
                        break
                    sizes[i] = run.n_ids - before
            if failed:
                raise MemoryError("no memory to encode texts")
            return (PyBytes_FromStringAndSize(<char *>run.ids, run.n_ids * sizeof(int32_t)),
                    bytes(counts))
        finally:
            free(given)
            free(run.ids)

    cdef int walk(self, int kind, void *data, Py_ssize_t n, Run *run) noexcept nogil:
        """Encode piece by piece into run.ids, which grows; 1 where memory ends."""
        cdef Py_ssize_t at = 0, end
        cdef uint8_t text[ROOM]
        cdef int32_t *grown
        cdef int size
        while at < n:
            end = piece_end(kind, data, at, n)
            size = put_utf8(kind, data, at, end, text)
            if run.n_ids + size > run.room:
                grown = <int32_t *>realloc(run.ids, 2 * run.room * sizeof(int32_t))
                if not grown:
                    return 1
                run.ids, run.room = grown, 2 * run.room
            run.n_ids += self.merge(text, size, run.ids + run.n_ids)
            at = end
        return 0

    cdef int merge(self, uint8_t *text, int size, int32_t *ids) noexcept nogil:
        """The tokens of a piece of `size` bytes; their number."""
        cdef int32_t ahead[ROOM]    # what ids[i] and ids[i + 1] would become
        cdef int i, best, n = size
        for i in range(size):
            ids[i] = self.first_byte + text[i]
        for i in range(size - 1):
            ahead[i] = self.merged(ids[i], ids[i + 1])
        while n > 1:
            best = 0
            for i in range(1, n - 1):
                if ahead[i] < ahead[best]:
                    best = i
            if ahead[best] == 0x7FFFFFFF:
                break
            ids[best] = ahead[best]
            n -= 1
            for i in range(best + 1, n):
                ids[i] = ids[i + 1]
            for i in range(best, n - 1):
                ahead[i] = ahead[i + 1]
            if best + 1 < n:
                ahead[best] = self.merged(ids[best], ids[best + 1])
            if best:
                ahead[best - 1] = self.merged(ids[best - 1], ids[best])
        return n
