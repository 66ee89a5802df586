/* Rows of activations as int8, to be multiplied with int8 weights. */
#ifndef CGPT_QUANTIZE_H
#define CGPT_QUANTIZE_H

#include "dot_int8.h"

#define QUANTUM 64          /* values of a row that share a scale; whole vectors of bytes */

#if VL > 1
typedef int8_t vbytes __attribute__((vector_size(VL)));
#endif

/* VL numbers, each as the nearest int8, away from 0 from the middle. */
CGPT_INLINE void nearest_bytes(vf x, int8_t *to) {
    const vf half = vselect(vless(x, vset1(0.0f)), vset1(-0.5f), vset1(0.5f));
#if VL > 1
    const vbytes bytes = __builtin_convertvector(__builtin_convertvector(x + half, vi), vbytes);
    memcpy(to, &bytes, sizeof bytes);
#else
    *to = (int8_t)(x + half);
#endif
}

/* correction (VL) = -128 times the sums of four of the BYTES values q. */
CGPT_INLINE void correct(const int8_t *q, int32_t *correction) {
    int8_t minus[BYTES];
    vi sums;
    memset(minus, -1, BYTES);
    sums = add_products((vi)(vset1(0.0f)), q, minus) * 128;
    memcpy(correction, &sums, sizeof sums);
}

/* A row of x (K) as int8 with a scale for each QUANTUM values: max |x| / 127, rounded to nearest.
 * A value that is not finite makes its scale NaN, so that it is seen in every product. */
static void quantize_row(const float *x, Py_ssize_t K, int8_t *q, float *scales,
                         int32_t *correction) {
    Py_ssize_t k, i;
    for (k = 0; k < K; k += QUANTUM) {
        float part[QUANTUM] = {0}, most, nonfinite, inverse;
        int8_t *to = q + k;
        const Py_ssize_t n = K - k < QUANTUM ? K - k : QUANTUM;
        memcpy(part, x + k, (size_t)n * 4);
        {
            vf top = vset1(0.0f), zero = vset1(0.0f);
            for (i = 0; i < QUANTUM; i += VL) {
                vf v = vload(part + i), minus = vset1(0.0f) - v;
                top = vmax(top, vselect(vless(v, minus), minus, v));
                zero += v - v;
            }
            most = vmax_lanes(top);
            nonfinite = vsum(zero);      /* 0, or NaN */
        }
        if (nonfinite != 0.0f) {
            memset(to, 0, QUANTUM);
            scales[k / QUANTUM] = nonfinite;
        } else {
            inverse = most > 0.0f ? 127.0f / most : 0.0f;
            if (!(inverse < INFINITY)) inverse = 0.0f;      /* most is next to nothing */
            for (i = 0; i < QUANTUM; i += VL)
                nearest_bytes(vload(part + i) * vset1(inverse), to + i);
            scales[k / QUANTUM] = most / 127.0f;
        }
        for (i = 0; i < QUANTUM; i += BYTES) correct(to + i, correction + (k + i) / 4);
    }
}

#endif
