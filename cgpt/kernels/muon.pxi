# Muon: each matrix by one thread, which keeps all of it in its own caches.

cdef enum:
    ROUNDS = 5
cdef float QUINTIC_A = 3.4445, QUINTIC_B = -4.7750, QUINTIC_C = 2.0315
cdef double UPDATE_RMS = 0.2        # of an AdamW update, about: so one learning rate serves both
cdef double LEAST_SQUARES = 1e-30   # squared norm below which there is no direction


cdef void momentum_span(float *grad, float *m, float *u, Py_ssize_t n, float beta,
                        float clip) noexcept nogil:
    """m = beta m + g and u = g + beta m (Nesterov) with g = clip grad; clears grad."""
    cdef vf g, moment
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        g = load(grad + i, n - i) * vset1(clip)
        moment = load(m + i, n - i) * vset1(beta) + g
        store(m + i, moment, n - i)
        store(u + i, g + moment * vset1(beta), n - i)
    memset(grad, 0, n * sizeof(float))


cdef void axpby_span(float *data, const float *u, Py_ssize_t n, float rate,
                       float decay) noexcept nogil:
    cdef Py_ssize_t i
    for i from 0 <= i < n by VL:
        store(data + i, load(data + i, n - i) * vset1(decay)
              - load(u + i, n - i) * vset1(rate), n - i)


def axpby(float[::1] data, const float[::1] u, double rate, double decay):
    """data = decay data - rate u.

    data  (n,)  written;  u  (n,)
    Raises ValueError for arrays of unlike length.
    """
    cdef Py_ssize_t n = data.shape[0], part
    expect_length("u", u, n)
    for part in prange(ceil_div(n, ADAM_SPAN), nogil=True, num_threads=threads_for(3.0 * n),
                       schedule="static"):
        axpby_span(&data[part * ADAM_SPAN], &u[part * ADAM_SPAN],
                     smaller(ADAM_SPAN, n - part * ADAM_SPAN), <float>rate, <float>decay)


cdef void product_of(Matrix a, Matrix b, float *c, Py_ssize_t M, Py_ssize_t N, Py_ssize_t K,
                     bint accumulate, bint upper) noexcept nogil:
    """c (M, N) = a b, or += , on the calling thread alone."""
    cdef Product p
    p.a, p.b, p.c, p.M, p.N, p.K = a, b, c, M, N, K
    p.accumulate, p.upper = accumulate, upper
    p.epilogue = Epilogue(NULL, NULL, NULL, NULL, NULL, NULL)
    gemm(&p, 1)


cdef void symmetric_product(const float *a, const float *b, float *c, Py_ssize_t n,
                            float scale) noexcept nogil:
    """c = scale a b of symmetric (n, n) matrices that are polynomials of one, as c is then."""
    product_of(Matrix(a, n, 1), Matrix(b, n, 1), c, n, n, n, False, True)
    symmetrize(c, NULL, n, scale, 0, 0)


cdef float *orthogonalizer(Matrix x, Matrix x_transposed, Py_ssize_t n, Py_ssize_t depth,
                           double squares, double scale, float *work) noexcept nogil:
    """P (n, n) of which P x is `scale` times about the orthogonal factor of x (n, depth).

    Newton-Schulz, x := S x with S = a + b G + c G^2 and G = x x^T, from x / |x| on: S and G are
    polynomials of the first G, so that the rounds need nothing else, and x is read twice in all.
    x_transposed is x^T, squares |x|^2; work holds 4 n^2 floats, P among them.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.
    """
    cdef float *g = work
    cdef float *s
    cdef float *turn = work + n * n
    cdef float *spare = work + 2 * n * n
    cdef float *swap
    cdef int number
    product_of(x, x_transposed, g, n, n, depth, False, True)
    symmetrize(g, NULL, n, <float>(1 / squares), 0, 0)
    for number in range(ROUNDS):
        s = work + 3 * n * n if number > 0 else turn
        product_of(Matrix(g, n, 1), Matrix(g, n, 1), s, n, n, n, False, True)
        symmetrize(s, g, n, QUINTIC_C, QUINTIC_B, QUINTIC_A)
        if number > 0:
            symmetric_product(s, turn, spare, n, <float>(scale / sqrt(squares))
                              if number == ROUNDS - 1 else 1)
            swap, turn, spare = turn, spare, turn
        if number < ROUNDS - 1:
            symmetric_product(s, g, spare, n, 1)
            symmetric_product(spare, s, g, n, 1)
    return turn


cdef void muon_matrix(float *data, float *grad, float *m, Py_ssize_t rows, Py_ssize_t columns,
                      double lr, float beta, double weight_decay, float clip) noexcept nogil:
    cdef Py_ssize_t size = rows * columns, n = smaller(rows, columns), i
    cdef float *u = cgpt_scratch(SLOT_SUMS, ceil_div(size, 16) * 16 + 4 * n * n)
    cdef Matrix u_rows = Matrix(u, columns, 1), u_columns = Matrix(u, 1, columns)
    cdef double squares = 0, rate = -lr * UPDATE_RMS * sqrt(<double>(rows + columns - n))
    cdef float *turn = u + ceil_div(size, 16) * 16
    momentum_span(grad, m, u, size, beta, clip)
    for i from 0 <= i < size by ADAM_SPAN:
        squares += squares_span(u + i, smaller(ADAM_SPAN, size - i))
    squares = squares if squares > LEAST_SQUARES else LEAST_SQUARES
    axpby_span(data, u, size, 0, <float>(1 - lr * weight_decay))
    if rows <= columns:
        turn = orthogonalizer(u_rows, u_columns, n, columns, squares, rate, turn)
        product_of(Matrix(turn, n, 1), u_rows, data, rows, columns, n, True, False)
    else:
        turn = orthogonalizer(u_columns, u_rows, n, rows, squares, rate, turn)
        product_of(u_rows, Matrix(turn, n, 1), data, rows, columns, n, True, False)


def muon(float[::1] data, float[::1] grad, float[::1] m, const long long[:, ::1] matrices,
         double lr, double beta, double weight_decay, double clip_factor):
    """One Muon step of some matrices in flat arrays; their gradients are cleared.

    data, grad, m  (n,)    written where the matrices lie
    matrices       (R, 3)  offset, rows and columns of each; they must not overlap
    clip_factor    multiplies the gradient g before m = beta m + g and u = g + beta m
    W = (1 - lr weight_decay) W - lr 0.2 sqrt(max(rows, columns)) orthogonal(u); the factor gives
    an update the size of AdamW's. The singular values of u go to about 1 (0.7 to 1.2), small ones
    among them. Each matrix is one task, so bits do not depend on the threads.
    Raises ValueError for arrays of unlike length or a matrix that reaches past their end.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982, equation 4; the momentum is that of Sutskever et al. 2013, ICML 28(3).
    """
    cdef Py_ssize_t n = data.shape[0], count = matrices.shape[0], i, rows, columns, start
    cdef double work = 0
    expect_length("grad", grad, n)
    expect_length("m", m, n)
    if matrices.shape[1] != 3:
        raise ValueError(f"matrices: found {matrices.shape[1]} columns, expected 3")
    for i in range(count):
        start, rows, columns = matrices[i, 0], matrices[i, 1], matrices[i, 2]
        if min(start, rows, columns) < 0 or (rows and columns > (n - start) // rows):
            raise ValueError(f"matrices: row {i} is ({start}, {rows}, {columns}), which must lie "
                             f"inside {n} numbers")
        work += 40.0 * rows * columns * min(rows, columns)
    for i in prange(count, nogil=True, num_threads=threads_for(work), schedule="dynamic"):
        if matrices[i, 1] > 0 and matrices[i, 2] > 0:
            muon_matrix(&data[matrices[i, 0]], &grad[matrices[i, 0]], &m[matrices[i, 0]],
                        matrices[i, 1], matrices[i, 2], lr, <float>beta, weight_decay,
                        <float>clip_factor)
