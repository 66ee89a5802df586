# A str as characters, whichever of its three widths it has (PEP 393).
from libc.stdint cimport uint32_t
from libc.stdlib cimport malloc

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    uint32_t PyUnicode_READ(int kind, void *data, Py_ssize_t at) nogil


cdef struct Text:
    int kind
    void *data
    Py_ssize_t n


cdef Text *characters_of(list texts) except NULL:
    """Where the characters of each text lie, for as long as the list holds it; to be freed.

    Raises TypeError for what is no str, MemoryError.
    """
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts: found {type(text).__name__}, expected str")
    cdef Py_ssize_t i
    cdef Text *found = <Text *>malloc((len(texts) + 1) * sizeof(Text))
    if not found:
        raise MemoryError("no memory to encode texts")
    for i, text in enumerate(texts):
        found[i].kind, found[i].data = PyUnicode_KIND(text), PyUnicode_DATA(text)
        found[i].n = len(text)
    return found
