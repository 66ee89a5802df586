# What Muon does element by element; its products are those of matmul.pxi.

cdef void momentum_span(float *grad, float *m, float *u, Py_ssize_t n, float beta,
                        float clip) noexcept nogil:
    cdef vf g, moment
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        g = load(grad + i, n - i) * vset1(clip)
        moment = load(m + i, n - i) * vset1(beta) + g
        store(m + i, moment, n - i)
        store(u + i, g + moment * vset1(beta), n - i)
    memset(grad, 0, n * sizeof(float))


def momentum(float[::1] grad, float[::1] m, float[::1] u, double beta, double clip_factor):
    """m = beta m + g and u = g + beta m (Nesterov) with g = clip_factor grad; clears grad.

    grad, m, u  (n,)  all written; u must not overlap the others
    Raises ValueError for arrays of unlike length.
    Source: Sutskever et al. 2013, ICML 28(3), equations 3 and 4, in the form that PyTorch uses.
    """
    cdef Py_ssize_t n = grad.shape[0], part
    expect_length("m", m, n)
    expect_length("u", u, n)
    for part in prange(blocks(n, ADAM_SPAN), nogil=True, num_threads=threads_for(6.0 * n),
                       schedule="static"):
        momentum_span(&grad[part * ADAM_SPAN], &m[part * ADAM_SPAN], &u[part * ADAM_SPAN],
                      smaller(ADAM_SPAN, n - part * ADAM_SPAN), <float>beta, <float>clip_factor)


cdef void descend_span(float *data, const float *u, Py_ssize_t n, float rate,
                       float decay) noexcept nogil:
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        store(data + i, load(data + i, n - i) * vset1(decay)
              - load(u + i, n - i) * vset1(rate), n - i)


def descend(float[::1] data, const float[::1] u, double rate, double decay):
    """data = decay data - rate u.

    data  (n,)  written;  u  (n,)
    Raises ValueError for arrays of unlike length.
    """
    cdef Py_ssize_t n = data.shape[0], part
    expect_length("u", u, n)
    for part in prange(blocks(n, ADAM_SPAN), nogil=True, num_threads=threads_for(3.0 * n),
                       schedule="static"):
        descend_span(&data[part * ADAM_SPAN], &u[part * ADAM_SPAN],
                     smaller(ADAM_SPAN, n - part * ADAM_SPAN), <float>rate, <float>decay)
