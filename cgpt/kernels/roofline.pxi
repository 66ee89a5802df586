# What this machine can do at the most: multiply-adds in registers, bytes read from memory.

cdef enum:
    CHAINS = 12         # two units of four cycles' latency need eight that do not wait
    CHAIN_STEPS = 256   # of one round
    STREAM = 8          # sums of one reader


cdef float multiply_add_chain(Py_ssize_t rounds, float factor, float term) noexcept nogil:
    """Twelve independent chains x = x * factor + term; their sum, so that none is left out."""
    cdef vf by = vset1(factor), plus = vset1(term)
    cdef vf x0 = vset1(0.0), x1 = vset1(0.1), x2 = vset1(0.2), x3 = vset1(0.3), x4 = vset1(0.4)
    cdef vf x5 = vset1(0.5), x6 = vset1(0.6), x7 = vset1(0.7), x8 = vset1(0.8), x9 = vset1(0.9)
    cdef vf x10 = vset1(1.0), x11 = vset1(1.1)
    cdef Py_ssize_t step
    for step in range(rounds * CHAIN_STEPS):
        x0 = x0 * by + plus
        x1 = x1 * by + plus
        x2 = x2 * by + plus
        x3 = x3 * by + plus
        x4 = x4 * by + plus
        x5 = x5 * by + plus
        x6 = x6 * by + plus
        x7 = x7 * by + plus
        x8 = x8 * by + plus
        x9 = x9 * by + plus
        x10 = x10 * by + plus
        x11 = x11 * by + plus
    return vsum(x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11)


def roofline_multiply_add(float[::1] ends, Py_ssize_t rounds, float factor=0.5, float term=1.0):
    """Multiply-adds in registers, one task an element of `ends`; the operations done, a float.

    ends          (tasks,)  written: the sum over the lanes of the twelve chains
                            x = x * factor + term from x = 0.0, 0.1, ... 1.1
    rounds        of 256 steps a task; an operation is a multiplication or an addition
    Raises ValueError for no task or fewer than one round.
    """
    cdef Py_ssize_t tasks = ends.shape[0], task
    if tasks < 1 or rounds < 1:
        raise ValueError(f"roofline_multiply_add: found {tasks} tasks of {rounds} rounds, "
                         "expected at least 1 of each")
    with nogil:
        for task in prange(tasks, schedule="static", num_threads=_threads):
            ends[task] = multiply_add_chain(rounds, factor, term)
    return 2.0 * CHAINS * VL * CHAIN_STEPS * rounds * tasks


cdef float read_span(const float *x, Py_ssize_t n) noexcept nogil:
    """Sum of n floats, in eight sums so that the additions keep up with the memory."""
    cdef vf s0 = vset1(0.0), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0
    cdef Py_ssize_t i = 0
    while i + STREAM * VL <= n:
        s0 = s0 + vload(x + i)
        s1 = s1 + vload(x + i + VL)
        s2 = s2 + vload(x + i + 2 * VL)
        s3 = s3 + vload(x + i + 3 * VL)
        s4 = s4 + vload(x + i + 4 * VL)
        s5 = s5 + vload(x + i + 5 * VL)
        s6 = s6 + vload(x + i + 6 * VL)
        s7 = s7 + vload(x + i + 7 * VL)
        i = i + STREAM * VL
    while i < n:
        s0 = s0 + load(x + i, n - i)
        i = i + VL
    return vsum(s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7)


def roofline_read(const float[::1] x, float[::1] sums):
    """Read every element of x once, in as many contiguous parts as `sums` has elements.

    x     (n,)
    sums  (parts,)  written: the sum of each part of ceil(n / parts) elements, 0 for an empty one
    Raises ValueError where there is nothing to read or no part.
    """
    cdef Py_ssize_t n = x.shape[0], parts = sums.shape[0], part, span
    if n < 1 or parts < 1:
        raise ValueError(f"roofline_read: found {n} elements in {parts} parts, "
                         "expected at least 1 of each")
    span = ceil_div(n, parts)
    with nogil:
        for part in prange(parts, schedule="static", num_threads=_threads):
            if part * span < n:
                sums[part] = read_span(&x[0] + part * span, smaller(span, n - part * span))
            else:
                sums[part] = 0.0
