/* Products of a few rows with an unpacked matrix: every element is one dot product.
 *
 * y (R, M) = x (R, K) W^T, where W (M, K) is float32, float16 or int8 and read once, without
 * being packed first: for a few rows its bytes are the time. A tile is some rows of x with some
 * rows of W (of int8: VL dot products, of 1, 2 or 4 rows of x); whatever the tile, an element's
 * sum runs along K in the same order, so its bits do not depend on the other rows.
 */
#ifndef CGPT_DOT_PRODUCTS_H
#define CGPT_DOT_PRODUCTS_H

#include "dot_float.h"
#include "quantize.h"
#include "simd.h"

/* W (rows, columns) as it is stored: see Storage in cgpt/checkpoint/storage.py. */
typedef struct {
    const void *data;
    const float *scales;    /* of int8: (rows, ceil(columns / group)) */
    Py_ssize_t rows, columns, group;
    int form;
} Weights;

/* Rows of x, which more than one of are interleaved too (interleave_row): quads. Where W is int8
 * they are int8 instead: q (rows, padded), zeros behind the last column; scales (rows, padded /
 * QUANTUM); correction (rows, padded / 4), -128 times the sum of four q. */
typedef struct {
    const float *x;
    const float *quads;
    const int8_t *q;
    const float *scales;
    const int32_t *correction;
    Py_ssize_t padded;
    PrefetchQueue *queue;             /* prefetched meanwhile */
} Operand;

/* Lane i of the result is the sum of the lanes of x[i], added in the order of vsum. */
#if VL == 16
#define FOLD8(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +    \
                     SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define FOLD4(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +  \
                     SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
#define FOLD2(a, b) (SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +  \
                     SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31))
#define FOLD1(a, b) (SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) + \
                     SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31))
#elif VL == 8
#define FOLD4(a, b) (SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +                                  \
                     SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define FOLD2(a, b) (SHUFFLE(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +                                  \
                     SHUFFLE(a, b, 2, 3, 6, 7, 10, 11, 14, 15))
#define FOLD1(a, b) (SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +                                 \
                     SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15))
#elif VL == 4
#define FOLD2(a, b) (SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7))
#define FOLD1(a, b) (SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7))
#endif
#define FOLD_ALL(fold, n)                                                                       \
    UNROLL(8)                                                                                   \
    for (i = 0; i < (n); i++) x[i] = fold(x[2 * i], x[2 * i + 1]);

CGPT_INLINE vf vsums(vf *x) {
#if VL > 1
    int i;
#endif
#if VL == 16
    FOLD_ALL(FOLD8, 8)
#endif
#if VL >= 8
    FOLD_ALL(FOLD4, 4)
#endif
#if VL >= 4
    FOLD_ALL(FOLD2, 2)
    FOLD_ALL(FOLD1, 1)
#endif
    return x[0];
}

#if VL > 1
#define AS_FLOATS(d) __builtin_convertvector(d, vf)
#else
#define AS_FLOATS(d) ((float)(d))
#endif

/* The scales of the weights of a vector that begins group g; it may hold two groups. */
CGPT_INLINE vf scales_at(const float *scales, int group, Py_ssize_t g, Py_ssize_t groups) {
#if VL == 16
    if (group < BYTES) {
        float second = g + 1 < groups ? scales[g + 1] : 0.0f;
        return (vf)_mm512_mask_blend_ps(0xff00, _mm512_set1_ps(scales[g]), _mm512_set1_ps(second));
    }
#endif
    (void)group;
    (void)groups;
    return vset1(scales[g]);
}

/* Rows of W that pass by `rt` rows of x together: what the registers hold. */
#define ROWS_AT_ONCE(rt) (VL < 4 ? 1 : VL == 8 && (rt) == 1 ? 4 : VL / 4)

/* Dot products of `rt` int8 rows of x from `row` on with VL / rt rows of W; lane [row][column].
 * Those are the rows from j0 on, or where `apart` is not 1 the next ones of ROWS_AT_ONCE streams
 * that are so many rows apart. Integers are summed as far as a scale goes. Meanwhile as many bytes
 * are prefetched from `prefetch` on, unless NULL. NAME is compiled for each way to multiply; START
 * is what a
 * sum begins with. */
#define TILE_OF_BYTES(NAME, FUNCTION, ADD, START)                                               \
    FUNCTION void NAME##_step(int rt, int group, const Operand *o, Py_ssize_t row,              \
                              const Weights *m, const int8_t *w, Py_ssize_t w_apart,            \
                              const float *scales, Py_ssize_t apart, Py_ssize_t k, vf *sum) {   \
        const int span = group < BYTES ? BYTES : group, at = ROWS_AT_ONCE(rt);                  \
        const Py_ssize_t P = o->padded, groups = (m->columns + group - 1) / group;              \
        const int8_t *q = o->q + row * P + k;                                                   \
        const float *own = o->scales + (row * P + k) / QUANTUM;                                 \
        const int32_t *correction = o->correction + (row * P + k) / 4;                          \
        int r, j, i;                                                                            \
        (void)correction;                                                                       \
        UNROLL(4)                                                                               \
        for (j = 0; j < at; j++) {                                                              \
            const int8_t *wj = w + j * w_apart;                                                 \
            const vf scale = scales_at(scales + j * apart * groups, group, k / group, groups);  \
            UNROLL(4)                                                                           \
            for (r = 0; r < rt; r++) {                                                          \
                vi d = START(correction + r * (P / 4));                                         \
                UNROLL(4)                                                                       \
                for (i = 0; i < span; i += BYTES) d = ADD(d, wj + i, q + r * P + i);            \
                sum[r * at + j] += AS_FLOATS(d) * (scale * vset1(own[r * (P / QUANTUM)]));      \
            }                                                                                   \
        }                                                                                       \
    }                                                                                           \
    FUNCTION vf NAME(int rt, int group, const Operand *o, Py_ssize_t row, const Weights *m,     \
                     Py_ssize_t j0, Py_ssize_t apart, const char *prefetch) {                   \
        const int span = group < BYTES ? BYTES : group, jt = VL / rt, at = ROWS_AT_ONCE(rt);    \
        const Py_ssize_t K = m->columns, groups = (K + group - 1) / group;                      \
        vf sums[VL];                                                                            \
        Py_ssize_t k;                                                                           \
        int j, i, r;                                                                            \
        for (j = 0; j < jt; j += at) {                                                          \
            const Py_ssize_t first = j0 + (apart == 1 ? j : j / at);                            \
            const int8_t *w = (const int8_t *)m->data + first * K;                              \
            const float *scales = m->scales + first * groups;                                   \
            vf sum[VL];                                                                         \
            UNROLL(16)                                                                          \
            for (i = 0; i < rt * at; i++) sum[i] = vset1(0.0f);                                 \
            for (k = 0; k + span <= K; k += span) {                                             \
                UNROLL(4)                                                                       \
                for (i = 0; prefetch && rt < 4 && i < at; i++)                                  \
                    PREFETCH_FAR(prefetch + j * K + k * at + i * span);                         \
                NAME##_step(rt, group, o, row, m, w + k, apart * K, scales, apart, k, sum);     \
            }                                                                                   \
            if (k < K) {    /* rows end here, and after the last maybe the memory does */       \
                int8_t part[4 * 64] = {0};                                                      \
                for (i = 0; i < at; i++)                                                        \
                    memcpy(part + i * 64, w + i * apart * K + k, (size_t)(K - k));              \
                NAME##_step(rt, group, o, row, m, part, 64, scales, apart, k, sum);             \
            }                                                                                   \
            UNROLL(4)                                                                           \
            for (r = 0; r < rt; r++)                                                            \
                UNROLL(4)                                                                       \
                for (i = 0; i < at; i++) sums[r * jt + j + i] = sum[r * at + i];                \
        }                                                                                       \
        return vsums(sums);                                                                     \
    }
#define FROM_ZERO(correction) ((vi)(vset1(0.0f)))
TILE_OF_BYTES(tile_of_bytes, CGPT_INLINE, add_products, FROM_ZERO)

/* Prefetch part `part` of `parts` of n bytes: where many rows of x share them, the products are
 * compute-bound and the memory would be idle. */
CGPT_INLINE void prefetch_part(const char *from, Py_ssize_t n, Py_ssize_t part, Py_ssize_t parts) {
    const Py_ssize_t size = n / parts + 1;
    const char *p = from + size * part, *end = from + n;
    if (end > p + size) end = p + size;
    for (; p < end; p += 64) PREFETCH_FAR(p);
}

/* Lanes [row][column] of a tile to rows that are VL apart. */
CGPT_INLINE void scatter(int rt, vf sums, float *out) {
    float part[VL];
    int r, j;
    vstore(part, sums);
    for (r = 0; r < rt; r++)
        for (j = 0; j < VL / rt; j++) out[r * VL + j] = part[r * (VL / rt) + j];
}

/* out[row][0 .. VL) = dot products of `rows` rows with the VL rows of W from j0 on, all of which
 * exist. Meanwhile as many bytes are prefetched from `prefetch` on, where the next weights
 * lie. Four rows of W stay in the first cache while all rows of x pass by. */
#define DOTS_INT8(NAME, FUNCTION, TILE, group)                                                  \
    FUNCTION void NAME(const Weights *m, const Operand *o, Py_ssize_t rows, Py_ssize_t j0,      \
                       const char *prefetch, float *out) {                                      \
        const Py_ssize_t whole = VL >= 4 ? rows / 4 * 4 : 0;                                    \
        Py_ssize_t r;                                                                           \
        int j;                                                                                  \
        if (VL >= 4)                                                                            \
            for (j = 0; j < VL; j += ROWS_AT_ONCE(4))                                           \
                for (r = 0; r < whole; r += 4) {                                                \
                    prefetch_part(prefetch, VL * m->columns,                                    \
                                  j / ROWS_AT_ONCE(4) * (whole / 4) + r / 4, whole);            \
                    scatter(4, TILE(4, group, o, r, m, j0 + j, 1, prefetch), out + r * VL + j); \
                }                                                                               \
        r = whole;                                                                              \
        if (VL >= 2)                                                                            \
            for (; r + 2 <= rows; r += 2)                                                       \
                for (j = 0; j < VL; j += VL / 2)                                                \
                    scatter(2, TILE(2, group, o, r, m, j0 + j, 1, prefetch + j * m->columns),   \
                            out + r * VL + j);                                                  \
        for (j = 0; r < rows; r++)                                                              \
            scatter(1, TILE(1, group, o, r, m, j0 + j, 1, prefetch), out + r * VL);             \
    }
DOTS_INT8(dots_int8_by_32, static, tile_of_bytes, 32)
DOTS_INT8(dots_int8_by_64, static, tile_of_bytes, 64)

#if VL == 16 && defined(__GNUC__)
#define CGPT_VNNI __attribute__((target("avx512vnni")))
#define FROM_CORRECTION(correction) ((vi)_mm512_loadu_si512(correction))
TILE_OF_BYTES(tile_of_bytes_vnni, CGPT_INLINE CGPT_VNNI, ADD_VNNI, FROM_CORRECTION)
DOTS_INT8(dots_vnni_by_32, static CGPT_VNNI, tile_of_bytes_vnni, 32)
DOTS_INT8(dots_vnni_by_64, static CGPT_VNNI, tile_of_bytes_vnni, 64)
#endif

/* As those, of float32 or float16. Where many rows share them, halves become floats first, which
 * stay in the second cache for so long. */
CGPT_INLINE void dots_floats(int form, int far, const Weights *m, const Operand *o,
                             Py_ssize_t rows, Py_ssize_t j0, const char *prefetch, float *out) {
    const Py_ssize_t K = m->columns, stride = quads_stride(K), vectors = (rows + ROWS - 1) / ROWS;
    const Py_ssize_t size = form == FLOAT32 ? 4 : 2;
    const Py_ssize_t parts = (vectors + TILE_VECTORS - 1) / TILE_VECTORS * (VL / TILE_COLUMNS);
    const Py_ssize_t bytes = (VL * size + parts - 1) / parts;
    const char *from = (const char *)m->data + j0 * K * size;
    const float *w = (const float *)from;
    Py_ssize_t v, k;
    int j, width;
    if (rows == 1) {
        vstore(out, dots_of_row(form, o->x, from, K, K, far ? prefetch : NULL));
        return;
    }
    if (form == FLOAT16) {
        float *floats = cgpt_scratch(SLOT_SUMS, (size_t)(VL * K));
        for (k = 0; k < VL * K; k += VL) vstore(floats + k, weights_at(from, form, k));
        w = floats;
    }
    for (j = 0; j < VL; j += TILE_COLUMNS)
        for (v = 0; v < vectors; v += width, prefetch += K * bytes) {
            width = tile_width(vectors - v);
            tile_of_width(width, o->quads + v * stride, stride, w + j * K, K, prefetch, bytes,
                          o->queue, out + v * ROWS * VL + j);
        }
}

#define DOTS_FLOATS(NAME, form, far)                                                            \
    static void NAME(const Weights *m, const Operand *o, Py_ssize_t rows, Py_ssize_t j0,        \
                     const char *prefetch, float *out) {                                        \
        dots_floats(form, far, m, o, rows, j0, prefetch, out);                                  \
    }
DOTS_FLOATS(dots_float32, FLOAT32, 0)
DOTS_FLOATS(dots_far_float32, FLOAT32, 1)
DOTS_FLOATS(dots_float16, FLOAT16, 1)

typedef void (*Dots)(const Weights *, const Operand *, Py_ssize_t, Py_ssize_t, const char *,
                     float *);

/* out[j] = the dot product of one row of x with row first + j of W, for the rows before `last`. They
 * are read as streams, each of which goes on from row to row: those a hardware prefetcher follows,
 * while a stream that ends with every row needs software prefetching. */
#define STREAM(NAME, FUNCTION, streams, DOTS)                                                   \
    FUNCTION void NAME(const Weights *m, const Operand *o, Py_ssize_t first, Py_ssize_t last,   \
                       float *out) {                                                            \
        const Py_ssize_t units = (last - first) / VL, left = last - first - units * VL;         \
        const Py_ssize_t each = VL / (streams), n = units * each;                               \
        float sums[VL];                                                                         \
        Py_ssize_t i, j;                                                                        \
        for (i = 0; i < n; i += each) {                                                         \
            vstore(sums, DOTS(first + i, n));                                                   \
            for (j = 0; j < VL; j++) out[j % (streams) * n + i + j / (streams)] = sums[j];      \
        }                                                                                       \
        if (left) {     /* the last VL rows of all, of which some are done */                   \
            vstore(sums, DOTS(last - VL, 1));                                                   \
            memcpy(out + units * VL, sums + VL - left, (size_t)left * sizeof(float));           \
        }                                                                                       \
    }
#define DOTS_OF_FLOATS(j, apart)                                                                \
    dots_of_row(FLOAT32, o->x, (const char *)m->data + (j) * m->columns * 4, m->columns,        \
                (apart) * m->columns, NULL)
#define DOTS_OF_HALVES(j, apart)                                                                \
    dots_of_row(FLOAT16, o->x, (const char *)m->data + (j) * m->columns * 2, m->columns,        \
                (apart) * m->columns, NULL)
#define DOTS_BY_32(j, apart) tile_of_bytes(1, 32, o, 0, m, j, apart, NULL)
#define DOTS_BY_64(j, apart) tile_of_bytes(1, 64, o, 0, m, j, apart, NULL)
STREAM(stream_float32, static, VL, DOTS_OF_FLOATS)
STREAM(stream_float16, static, VL, DOTS_OF_HALVES)
STREAM(stream_int8_by_32, static, ROWS_AT_ONCE(1), DOTS_BY_32)
STREAM(stream_int8_by_64, static, ROWS_AT_ONCE(1), DOTS_BY_64)
#ifdef CGPT_VNNI
#define VNNI_BY_32(j, apart) tile_of_bytes_vnni(1, 32, o, 0, m, j, apart, NULL)
#define VNNI_BY_64(j, apart) tile_of_bytes_vnni(1, 64, o, 0, m, j, apart, NULL)
STREAM(stream_vnni_by_32, static CGPT_VNNI, ROWS_AT_ONCE(1), VNNI_BY_32)
STREAM(stream_vnni_by_64, static CGPT_VNNI, ROWS_AT_ONCE(1), VNNI_BY_64)
#endif

typedef void (*Stream)(const Weights *, const Operand *, Py_ssize_t, Py_ssize_t, float *);

/* The function for one row of x, or NULL: sixteen streams of floats, as AVX-512 would read, are no
 * better than its units of sixteen rows, which prefetch (docs/notes/inference.md). */
static Stream stream_for(const Weights *m) {
    if (VL < 8 || (VL == 16 && m->form != INT8)) return NULL;
    if (m->form == FLOAT32) return stream_float32;
    if (m->form == FLOAT16) return stream_float16;
#ifdef CGPT_VNNI
    if (__builtin_cpu_supports("avx512vnni"))
        return m->group == 32 ? stream_vnni_by_32 : stream_vnni_by_64;
#endif
    return m->group == 32 ? stream_int8_by_32 : stream_int8_by_64;
}

/* The function for a matrix of this form, and for int8 of this group, on this processor. A float32
 * matrix is prefetched where it is `far`: what the caches keep from the last token needs no
 * prefetching. */
static Dots dots_for(const Weights *m, int far) {
    const int form = m->form;
    const Py_ssize_t group = m->group;
    if (form == FLOAT32) return far ? dots_far_float32 : dots_float32;
    if (form == FLOAT16) return dots_float16;
#ifdef CGPT_VNNI
    if (__builtin_cpu_supports("avx512vnni"))
        return group == 32 ? dots_vnni_by_32 : dots_vnni_by_64;
#endif
    return group == 32 ? dots_int8_by_32 : dots_int8_by_64;
}

static Py_ssize_t row_bytes(const Weights *m) {
    return m->columns * (m->form == FLOAT32 ? 4 : m->form == FLOAT16 ? 2 : 1);
}

/* A matrix of fewer than VL rows, copied to `buffer` with rows of zeros behind it. */
static Weights with_zero_rows(const Weights *m, void *buffer) {
    const size_t size = m->form == FLOAT32 ? 4 : m->form == FLOAT16 ? 2 : 1;
    const size_t bytes = size * (size_t)m->columns;
    Weights whole = *m;
    whole.data = buffer;
    whole.rows = VL;
    memset(buffer, 0, bytes * VL);
    memcpy(buffer, m->data, bytes * (size_t)m->rows);
    if (m->form == INT8) {
        const size_t groups = (size_t)((m->columns + m->group - 1) / m->group);
        float *scales = (float *)buffer + ((bytes * VL + 3) / 4);
        memset(scales, 0, groups * VL * 4);
        memcpy(scales, m->scales, groups * (size_t)m->rows * 4);
        whole.scales = scales;
    }
    return whole;
}

/* Threads of the surrounding parallel region. */
static int team_size(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

/* A barrier for the threads of the surrounding parallel region. */
static void thread_barrier(void) {
#ifdef _OPENMP
#pragma omp barrier
#endif
}

#endif
