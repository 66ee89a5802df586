# A str as characters, whichever of its three widths it has (PEP 393).
from libc.stdint cimport uint32_t

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    uint32_t PyUnicode_READ(int kind, void *data, Py_ssize_t at) nogil
