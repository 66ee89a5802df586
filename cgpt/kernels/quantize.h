/* Rows of activations as int8, to be multiplied with int8 weights. */
#ifndef CGPT_QUANTIZE_H
#define CGPT_QUANTIZE_H

#include "simd.h"

#define QUANTUM 64          /* values of a row that share a scale; whole vectors of bytes */

/* A row of x (K) as int8 with a scale for each QUANTUM values: max |x| / 127, rounded to nearest.
 * A value that is not finite makes its scale NaN, so that it is seen in every product. */
static void quantize_row(const float *x, Py_ssize_t K, int8_t *q, float *scales,
                         int32_t *correction) {
    Py_ssize_t k, i;
    for (k = 0; k < K; k += QUANTUM) {
        float part[QUANTUM] = {0}, most, unfinite, inverse;
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
            unfinite = vsum(zero);      /* 0, or NaN */
        }
        if (unfinite != 0.0f) {
            memset(to, 0, QUANTUM);
            scales[k / QUANTUM] = unfinite;
        } else {
            inverse = most > 0.0f ? 127.0f / most : 0.0f;
            if (!(inverse < INFINITY)) inverse = 0.0f;      /* most is next to nothing */
            for (i = 0; i < QUANTUM; i++) {
                float v = part[i] * inverse;
                to[i] = (int8_t)(int)(v < 0.0f ? v - 0.5f : v + 0.5f);
            }
            scales[k / QUANTUM] = most / 127.0f;
        }
        for (i = 0; i < QUANTUM; i += 4)
            correction[(k + i) / 4] = -128 * (to[i] + to[i + 1] + to[i + 2] + to[i + 3]);
    }
}

#endif
