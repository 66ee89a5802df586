/* Attention of one query over a cache: scores of the keys, and the values' sum by their weights. */
#ifndef CGPT_ATTENTION_CACHED_H
#define CGPT_ATTENTION_CACHED_H

#include "dot_products.h"

/* Dot products of q (D) with VL rows of k; where there are fewer, with the last one again. */
CGPT_INLINE vf dots_of_keys(const float *q, const float *k, Py_ssize_t D, Py_ssize_t rows) {
    vf sum[VL];
    Py_ssize_t d;
    int t;
    UNROLL(16)
    for (t = 0; t < VL; t++) sum[t] = vset1(0.0f);
    for (d = 0; d + VL <= D; d += VL) {
        const vf qd = vload(q + d);
        UNROLL(16)
        for (t = 0; t < VL; t++) sum[t] += qd * vload(k + (t < rows ? t : rows - 1) * D + d);
    }
    if (d < D) {
        const vf qd = vload_part(q + d, D - d);
        for (t = 0; t < VL; t++)
            sum[t] += qd * vload_part(k + (t < rows ? t : rows - 1) * D + d, D - d);
    }
    return vsums(sum);
}

/* scores = scale * q times each of the first VL of `keys` keys (keys, D); where there are fewer,
 * -1e30 behind them. */
static void key_scores(const float *q, const float *k, Py_ssize_t D, Py_ssize_t keys, float scale,
                       float *scores) {
    vstore(scores, vset1(scale) * (keys >= VL ? dots_of_keys(q, k, D, VL)
                                              : dots_of_keys(q, k, D, keys)));
    for (; keys < VL; keys++) scores[keys] = -1e30f;
}

/* scale * (weights (n) times x (n, stride)) of 1, 2 or 4 vectors, in eight sums, of every so many
 * rows: none waits for the one before. n * lines lines from `next` on are prefetched meanwhile. */
CGPT_INLINE void weighted_sum_vectors(int vectors, const float *weights, const float *x,
                               Py_ssize_t stride, Py_ssize_t n, float scale, const float *next,
                               Py_ssize_t lines, float *out) {
    const int apart = 8 / vectors;
    vf sum[8];
    Py_ssize_t t = 0, line;
    int i, v, width;
    UNROLL(8)
    for (i = 0; i < 8; i++) sum[i] = vset1(0.0f);
    for (; t + apart <= n; t += apart) {
        for (line = t * lines; line < (t + apart) * lines; line++) PREFETCH_FAR(next + line * 16);
        UNROLL(8)
        for (i = 0; i < apart; i++) {
            const vf weight = vset1(weights[t + i]);
            UNROLL(4)
            for (v = 0; v < vectors; v++)
                sum[i * vectors + v] += weight * vload(x + (t + i) * stride + v * VL);
        }
    }
    for (; t < n; t++) {
        const vf weight = vset1(weights[t]);
        UNROLL(4)
        for (v = 0; v < vectors; v++) sum[v] += weight * vload(x + t * stride + v * VL);
    }
    UNROLL(3)
    for (width = 4; width >= vectors; width /= 2) {
        UNROLL(4)
        for (i = 0; i < width; i++) sum[i] += sum[i + width];
    }
    UNROLL(4)
    for (v = 0; v < vectors; v++) vstore(out + v * VL, sum[v] * vset1(scale));
}

/* out (D) = scale * weights (n) times x (n, D); the (n, D) floats from `next` on are prefetched. */
static void weighted_sum(const float *weights, const float *x, Py_ssize_t D, Py_ssize_t n,
                       float scale, const float *next, float *out) {
    Py_ssize_t d = 0, t, lines = (D + 15) / 16;
#define WEIGHTED_SUM(vectors)                                                                   \
    for (; d + vectors * VL <= D; d += vectors * VL, lines = 0)                                 \
        weighted_sum_vectors(vectors, weights, x + d, D, n, scale, next, lines, out + d)
    WEIGHTED_SUM(4);
    WEIGHTED_SUM(2);
    WEIGHTED_SUM(1);
    if (d < D) {
        vf sum = vset1(0.0f);
        for (t = 0; t < n; t++) sum += vset1(weights[t]) * vload_part(x + t * D + d, D - d);
        vstore_part(out + d, sum * vset1(scale), D - d);
    }
}

#endif
