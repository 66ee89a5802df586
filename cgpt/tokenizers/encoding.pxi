# What the encoders share: texts as characters, whichever of its three widths a str has (PEP 393),
# UTF-8, ids that grow in number, and the way through many texts.
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    uint32_t PyUnicode_READ(int kind, void *data, Py_ssize_t at) nogil


cdef enum:
    LEAST = 256             # ids that there is room for at first: most texts have fewer

cdef struct Text:
    int kind
    void *data
    Py_ssize_t n


cdef struct Tokens:
    int32_t *ids            # found so far; to be freed
    Py_ssize_t n, room


cdef inline Text characters_of(str text):
    """Where the characters of a text lie, for as long as it lives."""
    return Text(PyUnicode_KIND(text), PyUnicode_DATA(text), len(text))


cdef inline uint32_t character(Text text, Py_ssize_t at) noexcept nogil:
    return PyUnicode_READ(text.kind, text.data, at)


cdef inline int utf8_length(uint32_t char) noexcept nogil:
    return 1 + (char > 0x7F) + (char > 0x7FF) + (char > 0xFFFF)


cdef inline int utf8(uint32_t char, uint8_t *target) noexcept nogil:
    """The character's UTF-8, a lone surrogate's too; its length."""
    cdef int size = utf8_length(char), i
    cdef uint32_t code = char, lead = 0xF00
    if size == 1:
        target[0] = <uint8_t>code
        return 1
    for i in range(size - 1, 0, -1):
        target[i] = <uint8_t>(0x80 | (code & 0x3F))
        code >>= 6
    target[0] = <uint8_t>(lead >> size | code)
    return size


cdef int32_t *room_for(Tokens *tokens, Py_ssize_t more) noexcept nogil:
    """Where `more` ids can follow those found so far; NULL where memory ends."""
    cdef int32_t *grown
    cdef Py_ssize_t room
    if tokens.n + more > tokens.room:
        room = 2 * tokens.room + more + LEAST
        grown = <int32_t *>realloc(tokens.ids, room * sizeof(int32_t))
        if not grown:
            return NULL
        tokens.ids, tokens.room = grown, room
    return tokens.ids + tokens.n


cdef class Encoder:
    """Texts as ids of tokens; a subclass says how those of one text follow those before."""

    cdef int append(self, Text text, Tokens *tokens) noexcept nogil:
        """1 where memory ends."""
        return 1

    def encode(self, str text not None):
        """The ids of a text, as the bytes of native int32."""
        cdef Text given = characters_of(text)
        cdef Tokens tokens = Tokens(NULL, 0, 0)
        cdef int failed
        try:
            if given.n < LEAST:     # quicker than to let go of the GIL
                failed = self.append(given, &tokens)
            else:
                with nogil:
                    failed = self.append(given, &tokens)
            if failed:
                raise MemoryError("no memory to encode a text")
            return PyBytes_FromStringAndSize(<char *>tokens.ids, tokens.n * sizeof(int32_t))
        finally:
            free(tokens.ids)

    def encode_many(self, list texts not None):
        """The ids of all texts end to end, and how many each has: bytes of int32, of int64.

        The GIL is released once for all of them.
        Raises TypeError for what is no str, MemoryError.
        """
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"texts: found {type(text).__name__}, expected str")
        cdef Py_ssize_t i, before, n = len(texts)
        cdef Tokens tokens = Tokens(NULL, 0, 0)
        cdef int failed = 0
        cdef Text *given = <Text *>malloc((n + 1) * sizeof(Text))
        counts = bytearray(n * sizeof(int64_t))
        cdef int64_t *sizes = <int64_t *>PyByteArray_AS_STRING(counts)
        try:
            if not given:
                raise MemoryError("no memory to encode texts")
            for i in range(n):
                given[i] = characters_of(texts[i])
            with nogil:
                for i in range(n):
                    before = tokens.n
                    failed = self.append(given[i], &tokens)
                    if failed:
                        break
                    sizes[i] = tokens.n - before
            if failed:
                raise MemoryError("no memory to encode texts")
            return (PyBytes_FromStringAndSize(<char *>tokens.ids, tokens.n * sizeof(int32_t)),
                    bytes(counts))
        finally:
            free(given)
            free(tokens.ids)
