/* Products of int8 values, summed by fours. */
#ifndef CGPT_DOT_INT8_H
#define CGPT_DOT_INT8_H

#include "simd.h"

#define BYTES (4 * VL)      /* int8 values in a vector */

/* d plus sums of four products each, lane by lane: weights w times values q, both int8; the weights
 * may be -128, the values may not. */
#if VL == 16
CGPT_INLINE vi add_products(vi d, const int8_t *w, const int8_t *q) {
    const __m512i weight = _mm512_loadu_si512(w);
    __m512i x = _mm512_loadu_si512(q);
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(weight), _mm512_setzero_si512(), x);
    x = _mm512_maddubs_epi16(_mm512_abs_epi8(weight), x);   /* at most 2 * 128 * 127 */
    return d + (vi)_mm512_madd_epi16(x, _mm512_set1_epi16(1));
}
/* VNNI multiplies unsigned by signed: w + 128 times q, and the correction takes 128 q away. */
#define ADD_VNNI(d, w, q)                                                                       \
    ((vi)_mm512_dpbusd_epi32((__m512i)(d),                                                      \
        _mm512_xor_si512(_mm512_loadu_si512(w), _mm512_set1_epi8(-128)), _mm512_loadu_si512(q)))
#elif VL == 8
CGPT_INLINE vi add_products(vi d, const int8_t *w, const int8_t *q) {
    const __m256i weight = _mm256_loadu_si256((const __m256i *)w);
    __m256i x = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)q), weight);
    x = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), x);
    return d + (vi)_mm256_madd_epi16(x, _mm256_set1_epi16(1));
}
#else
CGPT_INLINE vi add_products(vi d, const int8_t *w, const int8_t *q) {
    int32_t part[VL];
    vi sums;
    int i;
    for (i = 0; i < VL; i++)
        part[i] = w[4 * i] * q[4 * i] + w[4 * i + 1] * q[4 * i + 1] +
                  w[4 * i + 2] * q[4 * i + 2] + w[4 * i + 3] * q[4 * i + 3];
    memcpy(&sums, part, sizeof sums);
    return d + sums;
}
#endif

#endif
