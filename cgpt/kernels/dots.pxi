# What dots.h gives: dot products of a few rows with a matrix as it is stored.
cdef extern from "dots.h" nogil:
    enum: FLOAT32
    enum: FLOAT16
    enum: INT8
    enum: QUANTUM
    enum: TILE_ROWS
    ctypedef struct Weights:
        const void *data
        const float *scales
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t group
        int form
    ctypedef struct Operand:
        const float *x
        const signed char *q
        const float *scales
        const int *correction
        Py_ssize_t columns
        Py_ssize_t padded
    ctypedef void (*Dots)(const Weights *m, const Operand *o, Py_ssize_t rows, Py_ssize_t j0,
                          Py_ssize_t next, float *out) noexcept nogil
    Dots dots_for(const Weights *m)
    vf vsums(vf *x)
    vf vload_half(const unsigned short *p)
    void quantize_row(const float *x, Py_ssize_t K, signed char *q, float *scales,
                      int *correction)
    Weights widened(const Weights *m, void *room)
    void wait_for_all()
    int threads_here()
