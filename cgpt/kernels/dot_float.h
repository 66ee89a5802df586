/* Dot products of a few rows with an unpacked matrix of floats.
 *
 * Each is summed in LANES parts, of every LANES-th element, which are added at last: (0 + 2) +
 * (1 + 3). So few parts leave room in a vector for ROWS rows of x beside each other, against a
 * quad (LANES elements) of one row of W that the load itself repeats: no element of W is moved,
 * and little is left to add up across a vector. The order is the same for any number of rows.
 */
#ifndef CGPT_DOT_FLOAT_H
#define CGPT_DOT_FLOAT_H

#include "simd.h"

enum { FLOAT32, FLOAT16, INT8 };       /* how a matrix is stored */

#define LANES (VL < 4 ? VL : 4)
#define ROWS (VL / LANES)
/* Memory that is read after the current products, other than the weights: ranges, of `bytes` each,
 * that are prefetched one after another while the products run. */
typedef struct { const char *start; Py_ssize_t bytes; } MemoryRange;
typedef struct {
    const MemoryRange *ranges;
    Py_ssize_t left, done;      /* ranges, and bytes prefetched of the first */
} PrefetchQueue;

#define TILE_VECTORS 3  /* a tile's vectors of x and rows of W: what the registers hold */
#define TILE_COLUMNS (VL == 16 ? 8 : LANES)
#define TILE_ROWS (TILE_VECTORS * ROWS)
/* Quads between two prefetched lines: beside 12 multiply-adds of AVX2 each costs an issue slot. */
#define PREFETCH_INTERVAL (VL == 8 ? 4 : 1)

/* Rows of x up to which W is not packed: with 32 registers the tile is as good as that of packed
 * panels. */
#define UNPACKED_ROWS (VL == 16 ? 512 : 12)

/* Floats from one vector of rows to the next. */
CGPT_INLINE Py_ssize_t quads_stride(Py_ssize_t K) { return (K + LANES - 1) / LANES * VL; }

/* x (K), NULL for zeros, as row `row` of rows that lie together: [row / ROWS][k / LANES][row %
 * ROWS][k % LANES], zeros behind the last element. */
static void interleave_row(const float *x, Py_ssize_t K, Py_ssize_t row, float *quads) {
    float *to = quads + row / ROWS * quads_stride(K) + row % ROWS * LANES;
    Py_ssize_t k;
    if (x == NULL) {
        for (k = 0; k < K; k += LANES, to += VL) memset(to, 0, LANES * 4);
        return;
    }
    for (k = 0; k + LANES <= K; k += LANES, to += VL) memcpy(to, x + k, LANES * 4);
    if (k < K) {
        memset(to, 0, LANES * 4);
        memcpy(to, x + k, (size_t)(K - k) * 4);
    }
}

/* VL halves as floats. Subnormal ones come out exact; infinities do not, and a file has none. */
CGPT_INLINE vf vload_half(const uint16_t *p) {
#if VL == 16
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif VL == 8
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    float part[VL];
    int i;
    for (i = 0; i < VL; i++) {
        uint32_t bits = (uint32_t)(p[i] & 0x7fff) << 13;
        memcpy(part + i, &bits, 4);
        part[i] *= 0x1p112f;            /* the exponents' biases differ by 112 */
        if (p[i] & 0x8000) part[i] = -part[i];
    }
    return vload(part);
#endif
}

/* VL weights from the i-th on. */
CGPT_INLINE vf weights_at(const void *w, int form, Py_ssize_t i) {
    return form == FLOAT32 ? vload((const float *)w + i) : vload_half((const uint16_t *)w + i);
}

/* The first n of LANES weights of ROWS rows, `stride` apart from the i-th on, zeros behind them. */
CGPT_INLINE vf weights_part(const void *w, int form, Py_ssize_t i, Py_ssize_t stride,
                            Py_ssize_t n) {
    const size_t size = form == FLOAT32 ? 4 : 2;
    float part[VL] = {0};
    int row;
    for (row = 0; row < ROWS; row++)
        memcpy((char *)part + row * LANES * size,
               (const char *)w + (i + row * stride) * (Py_ssize_t)size, (size_t)n * size);
    return weights_at(part, form, 0);
}

/* A quad, ROWS times. */
CGPT_INLINE vf quad(const float *p) {
#if VL == 16
    return (vf)_mm512_broadcast_f32x4(_mm_loadu_ps(p));
#elif VL == 8
    return (vf)_mm256_broadcast_ps((const __m128 *)p);
#else
    return vload(p);
#endif
}

CGPT_INLINE vf quad_part(const float *p, Py_ssize_t n) {
    float part[LANES] = {0};
    memcpy(part, p, (size_t)n * 4);
    return quad(part);
}

/* Elements i and j of each quad of a, then of b. */
#if VL == 16
#define PAIRS(a, b, i, j) SHUFFLE(a, b, i, j, 16 + i, 16 + j, 4 + i, 4 + j, 20 + i, 20 + j,     \
                                  8 + i, 8 + j, 24 + i, 24 + j, 12 + i, 12 + j, 28 + i, 28 + j)
#elif VL == 8
#define PAIRS(a, b, i, j) SHUFFLE(a, b, i, j, 8 + i, 8 + j, 4 + i, 4 + j, 12 + i, 12 + j)
#elif VL == 4
#define PAIRS(a, b, i, j) SHUFFLE(a, b, i, j, 4 + i, 4 + j)
#endif

/* Of ROWS rows of ROWS quads: vector i becomes quad i of every row. */
CGPT_INLINE void transpose_quads(vf *x) {
#if VL == 16
#define FIRST_HALVES 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define SECOND_HALVES 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define EVEN_QUADS 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define ODD_QUADS 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
    const vf a = SHUFFLE(x[0], x[1], FIRST_HALVES), b = SHUFFLE(x[2], x[3], FIRST_HALVES);
    const vf c = SHUFFLE(x[0], x[1], SECOND_HALVES), d = SHUFFLE(x[2], x[3], SECOND_HALVES);
    x[0] = SHUFFLE(a, b, EVEN_QUADS);
    x[1] = SHUFFLE(a, b, ODD_QUADS);
    x[2] = SHUFFLE(c, d, EVEN_QUADS);
    x[3] = SHUFFLE(c, d, ODD_QUADS);
#elif VL == 8
    const vf a = x[0], b = x[1];
    x[0] = SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    x[1] = SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
#else
    (void)x;
#endif
}

/* [row][column] of LANES vectors [column][row][lane]: the sums of their lanes. */
CGPT_INLINE vf sums_of_quads(const vf *x) {
#if VL == 1
    return x[0];
#else
    vf a = PAIRS(x[0], x[1], 0, 1) + PAIRS(x[0], x[1], 2, 3);
    vf b = PAIRS(x[2], x[3], 0, 1) + PAIRS(x[2], x[3], 2, 3);
    return PAIRS(a, b, 0, 2) + PAIRS(a, b, 1, 3);
#endif
}

/* VL dot products of one row x (K) with VL rows from w on, `apart` elements from each other. A quad
 * of x meets those of ROWS rows of W at once, row c beside c + LANES and so on, whose vectors change
 * places for that. As many bytes as are read are prefetched from `ahead` on, unless that is NULL. */
CGPT_INLINE vf dots_of_row(int form, const float *x, const char *w, Py_ssize_t K,
                           Py_ssize_t apart, const char *ahead) {
    const Py_ssize_t size = form == FLOAT32 ? 4 : 2;
    vf sum[LANES], rows[ROWS];
    Py_ssize_t k;
    int c, i;
    UNROLL(4)
    for (c = 0; c < LANES; c++) sum[c] = vset1(0.0f);
    for (k = 0; k + VL <= K; k += VL) {
        UNROLL(4)
        for (c = 0; c < LANES; c++) {
            UNROLL(4)
            for (i = 0; i < ROWS; i++) {
                rows[i] = weights_at(w, form, (i * LANES + c) * apart + k);
                if (ahead) PREFETCH_FAR(ahead + (k * VL + (i * LANES + c) * VL) * size);
            }
            transpose_quads(rows);
            UNROLL(4)
            for (i = 0; i < ROWS; i++) sum[c] += quad(x + k + i * LANES) * rows[i];
        }
    }
    for (; k < K; k += LANES) {
        const Py_ssize_t n = K - k < LANES ? K - k : LANES;
        const vf xk = quad_part(x + k, n);
        for (c = 0; c < LANES; c++)
            sum[c] += xk * weights_part(w, form, c * apart + k, LANES * apart, n);
    }
    return sums_of_quads(sum);
}

/* The quads of x to rows that are VL apart. */
CGPT_INLINE void store_quads(float *out, vf x) {
#if VL == 16
    _mm_storeu_ps(out, _mm512_castps512_ps128((__m512)x));
    _mm_storeu_ps(out + VL, _mm512_extractf32x4_ps((__m512)x, 1));
    _mm_storeu_ps(out + 2 * VL, _mm512_extractf32x4_ps((__m512)x, 2));
    _mm_storeu_ps(out + 3 * VL, _mm512_extractf32x4_ps((__m512)x, 3));
#elif VL == 8
    _mm_storeu_ps(out, _mm256_castps256_ps128((__m256)x));
    _mm_storeu_ps(out + VL, _mm256_extractf128_ps((__m256)x, 1));
#else
    vstore(out, x);
#endif
}

/* sum += a quad of TILE_COLUMNS rows (K) of W times those of `vectors` vectors of rows of x,
 * `stride` apart; n of their elements exist. */
CGPT_INLINE void add_quads(int vectors, const float *x, Py_ssize_t stride, const float *w,
                           Py_ssize_t K, Py_ssize_t n, vf *sum) {
    vf xs[TILE_VECTORS];
    int v, j;
    UNROLL(3)
    for (v = 0; v < vectors; v++) xs[v] = vload(x + v * stride);
    UNROLL(8)
    for (j = 0; j < TILE_COLUMNS; j++) {
        const vf wj = n < LANES ? quad_part(w + j * K, n) : quad(w + j * K);
        UNROLL(3)
        for (v = 0; v < vectors; v++) sum[v * TILE_COLUMNS + j] += xs[v] * wj;
    }
}

/* out[row][column], VL apart: `vectors` vectors of rows, `stride` apart from x on, with
 * TILE_COLUMNS rows (K) from w on. Meanwhile `bytes` bytes are prefetched from `next` on with each
 * element of the depth, and with every PREFETCH_INTERVAL quads a line of the queue: more at once
 * would delay what is needed now. */
CGPT_INLINE void tile_of_quads(int vectors, const float *x, Py_ssize_t stride, const float *w,
                               Py_ssize_t K, const char *next, Py_ssize_t bytes,
                               PrefetchQueue *queue, float *out) {
    const MemoryRange current = queue->left > 0 ? *queue->ranges : (MemoryRange){next, 0};
    const char *line = current.start + queue->done, *last = current.start + current.bytes - 64;
    const Py_ssize_t lines =
        PREFETCH_INTERVAL == 1 ? 1 : (PREFETCH_INTERVAL * LANES * bytes + 63) / 64;
    vf sum[TILE_VECTORS * TILE_COLUMNS];
    Py_ssize_t k, i;
    int v, j;
    UNROLL(24)
    for (j = 0; j < vectors * TILE_COLUMNS; j++) sum[j] = vset1(0.0f);
    for (k = 0; k + PREFETCH_INTERVAL * LANES <= K; k += PREFETCH_INTERVAL * LANES) {
        for (i = 0; i < lines; i++) PREFETCH_FAR(next + k * bytes + i * 64);
        if (PREFETCH_INTERVAL == 1 || current.bytes) PREFETCH_FAR(line);
        line += line < last ? 64 : 0;
        UNROLL(4)
        for (i = 0; i < PREFETCH_INTERVAL; i++)
            add_quads(vectors, x + (k + i * LANES) * ROWS, stride, w + k + i * LANES, K, LANES,
                      sum);
    }
    for (; k < K; k += LANES)
        add_quads(vectors, x + k * ROWS, stride, w + k, K, K - k, sum);
    if (queue->left > 0 && (queue->done += K / (PREFETCH_INTERVAL * LANES) * 64) >= current.bytes) {
        queue->ranges++;
        queue->left--;
        queue->done = 0;
    }
    UNROLL(3)
    for (v = 0; v < vectors; v++) {
        UNROLL(2)
        for (j = 0; j < TILE_COLUMNS; j += LANES) {
            store_quads(out + v * ROWS * VL + j, sums_of_quads(sum + v * TILE_COLUMNS + j));
        }
    }
}

/* One tile of any width. */
static void tile_of_width(int vectors, const float *x, Py_ssize_t stride, const float *w,
                          Py_ssize_t K, const char *next, Py_ssize_t bytes, PrefetchQueue *queue,
                          float *out) {
#define TILE_OF(n) tile_of_quads(n, x, stride, w, K, next, bytes, queue, out)
    if (vectors == 1) TILE_OF(1);
    else if (vectors == 2) TILE_OF(2);
    else TILE_OF(TILE_VECTORS);
}

/* How many of the vectors that are left the next tile takes: it leaves one alone to none. */
CGPT_INLINE int tile_width(Py_ssize_t left) {
    if (left <= TILE_VECTORS) return (int)left;
    return TILE_VECTORS > 2 && left == TILE_VECTORS + 1 ? 2 : TILE_VECTORS;
}

#endif
