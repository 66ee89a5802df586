"""Byte-level byte-pair encoding: texts into pieces, pieces into tokens, and which pairs to merge.

Source: Sennrich, Haddow, Birch 2016, arXiv:1508.07909; over bytes: Radford et al. 2019, section 2.2.
"""

include "encoding.pxi"

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


cdef Py_ssize_t piece_end(Text text, Py_ssize_t start) noexcept nogil:
    """Where the piece that begins at `start` ends.

    A piece is a run of one class, with the one space (U+0020) before it; of blanks before
    something else the last one, where it is a space, belongs to what follows.
    """
    cdef Py_ssize_t at = start
    cdef uint32_t c = character(text, at)
    cdef int found = class_of(c)
    cdef Py_ssize_t most = LONGEST
    if found == BLANK:
        while at < text.n and at - start < LONGEST and class_of(character(text, at)) == BLANK:
            at += 1
        if at == text.n or at - start == LONGEST or character(text, at - 1) != 32:
            return at
        if at - 1 > start:
            return at - 1
        found = class_of(character(text, at))
        start += 1
    if found == DIGIT:
        most = DIGITS
    while at < text.n and at - start < most and class_of(character(text, at)) == found:
        at += 1
    return at


cdef int put_utf8(Text text, Py_ssize_t start, Py_ssize_t end, uint8_t *target) noexcept nogil:
    """The UTF-8 of text[start:end], lone surrogates too; its length."""
    cdef int size = 0
    cdef Py_ssize_t i
    for i in range(start, end):
        size += utf8(character(text, i), target + size)
    return size


def pieces(str text not None):
    """The pieces of a text, as a list of their UTF-8; no token reaches over their borders."""
    cdef Text given = characters_of(text)
    cdef Py_ssize_t at = 0, end
    cdef uint8_t room[ROOM]
    found = []
    while at < given.n:
        end = piece_end(given, at)
        found.append(PyBytes_FromStringAndSize(<char *>room, put_utf8(given, at, end, room)))
        at = end
    return found


cdef struct Pair:
    uint64_t key            # (left << 32 | right) + 1, or 0 where the slot is free
    int32_t merged


cdef class BytePairs(Encoder):
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

    cdef int append(self, Text text, Tokens *tokens) noexcept nogil:
        """Piece by piece; 1 where memory ends."""
        cdef Py_ssize_t at = 0, end
        cdef uint8_t piece[ROOM]
        cdef int32_t *ids
        cdef int size
        while at < text.n:
            end = piece_end(text, at)
            size = put_utf8(text, at, end, piece)
            ids = room_for(tokens, size)
            if not ids:
                return 1
            tokens.n += self.merge(piece, size, ids)
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
