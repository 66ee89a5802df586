# Layer normalisation. Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, section 3.

cdef enum:
    NORM_ROWS = 64    # rows whose parameter gradients are summed before they are added up


cdef inline void normalize_row(const float *x, const float *weight, const float *bias, float *y,
                               float mean, float rstd, Py_ssize_t C) noexcept nogil:
    cdef vf centre = vset1(mean), scale = vset1(rstd)
    cdef Py_ssize_t j
    for j from 0 <= j < C by VL:
        store(y + j, (load(x + j, C - j) - centre) * scale * load(weight + j, C - j)
              + load(bias + j, C - j), C - j)


cdef void layernorm_row(const float *x, const float *weight, const float *bias, float *y,
                        float *mean, float *rstd, Py_ssize_t C, float eps) noexcept nogil:
    cdef vf total = vset1(0), centre, difference
    cdef Py_ssize_t j
    cdef float m, spread = 0
    for j from 0 <= j < C by VL:
        total = total + load(x + j, C - j)
    m = vsum(total) / C
    centre = vset1(m)
    total = vset1(0)
    j = 0
    while j + VL <= C:
        difference = vload(x + j) - centre
        total = total + difference * difference
        j += VL
    while j < C:
        spread += (x[j] - m) * (x[j] - m)
        j += 1
    mean[0] = m
    rstd[0] = <float>(1 / sqrt((vsum(total) + spread) / C + eps))
    normalize_row(x, weight, bias, y, m, rstd[0], C)


def layernorm_forward(const float[:, ::1] x, const float[::1] weight, const float[::1] bias,
                      float[:, ::1] y, float[::1] mean, float[::1] rstd, float eps=1e-5):
    """y = (x - mean) * rstd * weight + bias, row by row.

    x, y          (N, C)  y is written and must not overlap x (backward reads x)
    weight, bias  (C,)
    mean, rstd    (N,)    written; rstd = 1 / sqrt(biased variance + eps)
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], i
    expect_shape("y", y, N, C)
    expect_length("weight", weight, C)
    expect_length("bias", bias, C)
    expect_length("mean", mean, N)
    expect_length("rstd", rstd, N)
    cdef int threads = threads_for(8.0 * N * C)
    for i in prange(N, nogil=True, num_threads=threads, schedule="static"):
        layernorm_row(&x[i, 0], &weight[0], &bias[0], &y[i, 0], &mean[i], &rstd[i], C, eps)


def layernorm_recompute(const float[:, ::1] x, const float[::1] weight, const float[::1] bias,
                    const float[::1] mean, const float[::1] rstd, float[:, ::1] y):
    """The y of layernorm_forward, bit for bit, from the mean and rstd that it wrote.

    x, y          (N, C)  y is written
    weight, bias  (C,)
    mean, rstd    (N,)
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], i
    expect_shape("y", y, N, C)
    expect_length("weight", weight, C)
    expect_length("bias", bias, C)
    expect_length("mean", mean, N)
    expect_length("rstd", rstd, N)
    cdef int threads = threads_for(4.0 * N * C)
    for i in prange(N, nogil=True, num_threads=threads, schedule="static"):
        normalize_row(&x[i, 0], &weight[0], &bias[0], &y[i, 0], mean[i], rstd[i], C)


cdef void layernorm_row_backward(const float *dy, const float *x, const float *weight, float mean,
                                 float rstd, float *dx, float *dweight, float *dbias,
                                 Py_ssize_t C, bint add) noexcept nogil:
    """One row; dweight and dbias are added to."""
    cdef vf sum_g = vset1(0), sum_gx = vset1(0), g, normal, d, mean_g, mean_gx
    cdef vf centre = vset1(mean), scale = vset1(rstd)
    cdef Py_ssize_t j
    for j from 0 <= j < C by VL:
        d = load(dy + j, C - j)
        normal = (load(x + j, C - j) - centre) * scale
        g = d * load(weight + j, C - j)
        sum_g = sum_g + g
        sum_gx = sum_gx + g * normal
        store(dweight + j, load(dweight + j, C - j) + d * normal, C - j)
        store(dbias + j, load(dbias + j, C - j) + d, C - j)
    mean_g = vset1(vsum(sum_g) / C)
    mean_gx = vset1(vsum(sum_gx) / C)
    for j from 0 <= j < C by VL:
        normal = (load(x + j, C - j) - centre) * scale
        g = load(dy + j, C - j) * load(weight + j, C - j)
        g = (g - mean_g - normal * mean_gx) * scale
        store(dx + j, g + load(dx + j, C - j) if add else g, C - j)


cdef void layernorm_rows_backward(const float *dy, const float *x, const float *weight,
                                  const float *mean, const float *rstd, float *dx, float *sums,
                                  Py_ssize_t rows, Py_ssize_t C, bint add) noexcept nogil:
    cdef Py_ssize_t i
    memset(sums, 0, 2 * C * sizeof(float))
    for i in range(rows):
        layernorm_row_backward(dy + i * C, x + i * C, weight, mean[i], rstd[i], dx + i * C,
                               sums, sums + C, C, add)


def layernorm_backward(const float[:, ::1] dy, const float[:, ::1] x, const float[::1] weight,
                       const float[::1] mean, const float[::1] rstd, float[:, ::1] dx,
                       float[::1] dweight, float[::1] dbias, bint add=False):
    """Gradient of layernorm_forward: dx overwritten, or with `add` added to; dweight and dbias
    added to.

    dy, x, dx               (N, C)  dx may be dy, but not with `add`
    weight, dweight, dbias  (C,)
    mean, rstd              (N,)    as written by layernorm_forward
    Raises ValueError naming the array whose shape is wrong.
    """
    cdef Py_ssize_t N = x.shape[0], C = x.shape[1], part, parts = ceil_div(N, NORM_ROWS), j
    expect_shape("dy", dy, N, C)
    expect_shape("dx", dx, N, C)
    expect_length("weight", weight, C)
    expect_length("mean", mean, N)
    expect_length("rstd", rstd, N)
    expect_length("dweight", dweight, C)
    expect_length("dbias", dbias, C)
    cdef int threads = threads_for(16.0 * N * C)
    cdef float *sums
    with nogil:
        sums = cgpt_scratch(SLOT_SUMS, parts * 2 * C)
        for part in prange(parts, num_threads=threads, schedule="static"):
            layernorm_rows_backward(&dy[part * NORM_ROWS, 0], &x[part * NORM_ROWS, 0], &weight[0],
                                    &mean[part * NORM_ROWS], &rstd[part * NORM_ROWS],
                                    &dx[part * NORM_ROWS, 0], sums + part * 2 * C,
                                    smaller(NORM_ROWS, N - part * NORM_ROWS), C, add)
        for part in range(parts):
            for j in range(C):
                dweight[j] += sums[part * 2 * C + j]
                dbias[j] += sums[part * 2 * C + C + j]
