# Element by element: GELU, ReLU, the residual sum, dropout.

cdef enum:
    SPAN = 4096    # elements of one task


cdef inline vf gelu_gate(vf x) noexcept nogil:
    """0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3)."""
    cdef vf u = x * (vset1(0.7978845608) + vset1(0.0356774081) * x * x)
    return vset1(1) / (vset1(1) + vexp(vset1(-2) * u))


cdef void gelu_span(const float *x, float *y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    cdef vf v
    for i from 0 <= i < n by VL:
        v = load(x + i, n - i)
        store(y + i, v * gelu_gate(v), n - i)


cdef void gelu_span_backward(const float *dy, const float *x, float *dx, Py_ssize_t n,
                             float *y) noexcept nogil:
    """Also y = gelu(x), which costs next to nothing here, where y is not NULL."""
    cdef Py_ssize_t i
    cdef vf v, gate, slope
    for i from 0 <= i < n by VL:
        v = load(x + i, n - i)
        gate = gelu_gate(v)
        if y != NULL:
            store(y + i, v * gate, n - i)
        slope = vset1(1.5957691216) + vset1(0.2140644488) * v * v     # 2 du/dx
        store(dx + i, load(dy + i, n - i) * (gate + v * gate * (vset1(1) - gate) * slope), n - i)


def gelu_forward(const float[::1] x, float[::1] y):
    """y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    x, y  (n,)  y may be x. Raises ValueError naming the array whose shape is wrong.
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("y", y, n)
    cdef int threads = threads_for(20.0 * n)
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        gelu_span(&x[part * SPAN], &y[part * SPAN], smaller(SPAN, n - part * SPAN))


def gelu_backward(const float[::1] dy, const float[::1] x, float[::1] dx):
    """dx = dy * gelu'(x), overwriting dx, which may be dy. All (n,); x is gelu_forward's input.

    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("dy", dy, n)
    expect_length("dx", dx, n)
    cdef int threads = threads_for(30.0 * n)
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        gelu_span_backward(&dy[part * SPAN], &x[part * SPAN], &dx[part * SPAN],
                           smaller(SPAN, n - part * SPAN), NULL)


cdef void relu_span(const float *x, float *y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = 0 if x[i] < 0 else x[i]


cdef void relu_span_backward(const float *dy, const float *x, float *dx,
                             Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        # Products with 0, so that NaN and infinity of either reach dx.
        dx[i] = dy[i] * <float>(x[i] > 0) + 0 * x[i]


def relu_forward(const float[::1] x, float[::1] y):
    """y = max(x, 0); a NaN stays one.

    x, y  (n,)  y may be x. Raises ValueError naming the array whose shape is wrong.
    Source: Nair and Hinton 2010, "Rectified Linear Units Improve Restricted Boltzmann Machines".
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("y", y, n)
    cdef int threads = threads_for(1.0 * n)
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        relu_span(&x[part * SPAN], &y[part * SPAN], smaller(SPAN, n - part * SPAN))


def relu_backward(const float[::1] dy, const float[::1] x, float[::1] dx):
    """dx = dy where x > 0, else 0. All (n,); dx may be dy; x is relu_forward's input.

    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("dy", dy, n)
    expect_length("dx", dx, n)
    cdef int threads = threads_for(1.0 * n)
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        relu_span_backward(&dy[part * SPAN], &x[part * SPAN], &dx[part * SPAN],
                           smaller(SPAN, n - part * SPAN))


cdef void add_span(const float *a, const float *b, float *y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        store(y + i, load(a + i, n - i) + load(b + i, n - i), n - i)


def residual_forward(const float[::1] x, const float[::1] branch, float[::1] y):
    """y = x + branch. All (n,); y may be either of them.

    Raises ValueError naming the array whose shape is wrong. Backward is the same sum.
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("branch", branch, n)
    expect_length("y", y, n)
    cdef int threads = threads_for(1.0 * n)
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        add_span(&x[part * SPAN], &branch[part * SPAN], &y[part * SPAN],
                 smaller(SPAN, n - part * SPAN))


cdef inline unsigned int mix(unsigned int h) noexcept nogil:
    """Every bit of h reaches every bit of the result. Source: MurmurHash3's 32-bit finaliser."""
    h ^= h >> 16
    h *= 0x85ebca6bu
    h ^= h >> 13
    h *= 0xc2b2ae35u
    return h ^ (h >> 16)


cdef void dropout_span(const float *x, float *y, Py_ssize_t n, unsigned int key,
                       unsigned int threshold, float scale) noexcept nogil:
    """Element i is kept where its random number, made of key and i alone, reaches threshold."""
    cdef unsigned int i
    for i in range(<unsigned int>n):
        y[i] = scale * x[i] if mix((i + 1) * 0x9e3779b9u ^ key) >= threshold else 0


def dropout(const float[::1] x, float[::1] y, double p, unsigned long long key):
    """y = x / (1 - p) where kept, 0 where dropped; each element is dropped with probability p.

    x, y  (n,)  y may be x
    p     probability of a zero, 0 <= p < 1
    key   names the mask: the same key gives the same mask, for any number of threads, so that
          the gradient is the same call on dy
    Raises ValueError for a wrong shape or p. Source: Srivastava et al. 2014.
    """
    cdef Py_ssize_t n = x.shape[0], part
    expect_length("y", y, n)
    if not 0 <= p < 1:
        raise ValueError(f"p: found {p}, expected 0 <= p < 1")
    cdef int threads = threads_for(8.0 * n)
    cdef unsigned int threshold = <unsigned int>(p * 4294967296.0)
    cdef unsigned int low = mix(<unsigned int>key), high = <unsigned int>(key >> 32)
    cdef float scale = <float>(1 / (1 - p))
    for part in prange(ceil_div(n, SPAN), nogil=True, num_threads=threads, schedule="static"):
        dropout_span(&x[part * SPAN], &y[part * SPAN], smaller(SPAN, n - part * SPAN),
                     mix(mix(low ^ <unsigned int>part) + high), threshold, scale)
