# What simd.h gives: `vf` is a vector of VL floats and takes + - * / like a float.
cdef extern from "simd.h" nogil:
    enum: VL
    enum: MR
    enum: MR_MID
    enum: MR_LOW
    enum: NR
    enum: SLOT_SHARED
    enum: SLOT_THREAD
    enum: SLOT_SUMS
    enum: SLOT_PREFETCH
    ctypedef float vf
    vf vset1(float x)
    vf vload(const float *p)
    vf vload_part(const float *p, Py_ssize_t n)
    void vstore(float *p, vf x)
    void vstore_part(float *p, vf x, Py_ssize_t n)
    vf vmax(vf a, vf b)
    vf vexp(vf x)
    vf vmask_before(vf x, float n, float fill)
    vf vsqrt(vf x)
    float vsum(vf x)
    float vmax_lanes(vf x)
    void PREFETCH_FAR(const void *p)
    float *cgpt_scratch(int slot, size_t floats)

cdef extern from "cpu.h" nogil:
    int cgpt_cpu_level()
    int cgpt_has_openmp()
    size_t cgpt_last_cache()

cdef extern from "attention_cached.h" nogil:
    void key_scores(const float *q, const float *k, Py_ssize_t D, Py_ssize_t keys, float scale,
                    float *scores)
    void weighted_sum(const float *weights, const float *x, Py_ssize_t D, Py_ssize_t n, float scale,
                    const float *next, float *out)

cdef extern from "microkernel.h" nogil:
    enum: STORE
    enum: ACCUMULATE
    enum: ADD_BIAS
    void tile_of_panel(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b,
                       float *c, Py_ssize_t ldc, int add, const float *bias)
    void tile_prefetch(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b, float *c,
                    Py_ssize_t ldc, int add, const float *bias, const float *next)
    void tile_unpacked(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b,
                         float *c, Py_ssize_t ldc, int add, const float *bias, Py_ssize_t b_k,
                         const float *next)
    int PREFETCH_FLOATS
    int READ_UNPACKED
    void tile_of_strip(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b,
                       float *c, Py_ssize_t ldc, int add, const float *bias)
    void tile_of_block(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b,
                       float *c, Py_ssize_t ldc, int add, const float *bias)

cdef extern from "symmetric.h" nogil:
    void symmetrize(float *c, const float *plus, Py_ssize_t n, float scale, float factor,
                    float shift)

cdef extern from "pack.h" nogil:
    void pack_panels(const float *x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows,
                     Py_ssize_t depth, int width, float scale, float *panel)

from libc.math cimport isfinite, log, logf, sqrt
from libc.string cimport memcpy, memset


cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Py_ssize_t ceil_div(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many blocks of `size` cover n."""
    return (n + size - 1) // size


cdef inline vf load(const float *p, Py_ssize_t left) noexcept nogil:
    """A vector from p, of which `left` floats exist; zeros behind them."""
    return vload(p) if left >= VL else vload_part(p, left)


cdef inline void store(float *p, vf x, Py_ssize_t left) noexcept nogil:
    if left >= VL:
        vstore(p, x)
    else:
        vstore_part(p, x, left)
