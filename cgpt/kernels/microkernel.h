/* The micro-kernel of every matrix product: a tile of C in registers. */
#ifndef CGPT_MICROKERNEL_H
#define CGPT_MICROKERNEL_H

#include "simd.h"

/* Floats prefetched at each k: within four tiles, those of the next panel of B. */
#define PREFETCH_FLOATS (NR / 4)
#define PREFETCH_DISTANCE 24    /* rows of an unpacked B, into the first cache */
/* Whether a B whose columns are contiguous is read unpacked where C has few rows. With AVX2 packing
 * costs less than cache conflicts between rows that are a power of two apart. */
#define READ_UNPACKED (VL == 16)

/* What becomes of C: it is stored, added to, or stored with a bias for each column added. */
enum { STORE, ACCUMULATE, ADD_BIAS };

/* C (rows x NR, row stride ldc) = sum over k of A[:, k] outer B[k][:]. Element (i, k) of A is at
 * a[i * a_row + k * a_k], B[k] at b + k * b_k. From next on, unless that is NULL,
 * PREFETCH_FLOATS floats a k are prefetched where B is packed, else NR columns of rows b_k apart,
 * and those of b a few rows before their use. rows, a_row and a_k are constants where it is called,
 * so that every sum has
 * a register and every address an offset. */
CGPT_INLINE void tile_product(int rows, Py_ssize_t depth, const float *CGPT_RESTRICT a,
                              Py_ssize_t a_row, Py_ssize_t a_k, const float *CGPT_RESTRICT b,
                              Py_ssize_t b_k, int packed, float *CGPT_RESTRICT c, Py_ssize_t ldc,
                              int add, const float *bias, const float *next) {
    vf sum[MR][2];
    Py_ssize_t k;
    int i;
    UNROLL(16)
    for (i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = vset1(0.0f);
        PREFETCH(c + i * ldc);
        PREFETCH(c + i * ldc + NR - 1);
    }
    UNROLL(4)
    for (k = 0; k < depth; k++) {
        vf b0 = vload(b), b1 = vload(b + VL);
        if (next && packed) PREFETCH_FAR(next + k * PREFETCH_FLOATS);
        if (next && !packed) {
            PREFETCH_FAR(next + k * b_k);
            PREFETCH_FAR(next + k * b_k + NR - 1);
            PREFETCH(b + PREFETCH_DISTANCE * b_k);
            PREFETCH(b + PREFETCH_DISTANCE * b_k + NR - 1);
        }
        UNROLL(16)
        for (i = 0; i < rows; i++) {
            vf ai = vset1(a[i * a_row]);
            sum[i][0] += ai * b0;
            sum[i][1] += ai * b1;
        }
        a += a_k;
        b += b_k;
    }
    if (add == ACCUMULATE) {
        UNROLL(16)
        for (i = 0; i < rows; i++) {
            vstore(c + i * ldc, vload(c + i * ldc) + sum[i][0]);
            vstore(c + i * ldc + VL, vload(c + i * ldc + VL) + sum[i][1]);
        }
    } else {
        vf bias0 = vset1(0.0f), bias1 = vset1(0.0f);
        if (add == ADD_BIAS) { bias0 = vload(bias); bias1 = vload(bias + VL); }
        UNROLL(16)
        for (i = 0; i < rows; i++) {
            vstore(c + i * ldc, sum[i][0] + bias0);
            vstore(c + i * ldc + VL, sum[i][1] + bias1);
        }
    }
}

/* Up to MR rows: as few as suffice are computed and written, which may be more than `rows`. */
#define TILE(name, A_ROW, A_K, B_K, PACKED, NEXT, ...)                                          \
    static void name(Py_ssize_t rows, Py_ssize_t depth, const float *a, const float *b,         \
                     float *c, Py_ssize_t ldc, int add, const float *bias __VA_ARGS__) {        \
        if (rows > MR_MID)                                                                      \
            tile_product(MR, depth, a, A_ROW, A_K, b, B_K, PACKED, c, ldc, add, bias, NEXT);    \
        else if (rows > MR_LOW)                                                                 \
            tile_product(MR_MID, depth, a, A_ROW, A_K, b, B_K, PACKED, c, ldc, add, bias, NEXT);\
        else                                                                                    \
            tile_product(MR_LOW, depth, a, A_ROW, A_K, b, B_K, PACKED, c, ldc, add, bias, NEXT);\
    }

TILE(tile_of_panel, 1, MR, NR, 1, 0)    /* A packed in panels of MR rows */
TILE(tile_of_strip, 1, NR, NR, 1, 0)    /* A as [k][NR], its rows some of the NR columns */
TILE(tile_of_block, NR, 1, NR, 1, 0)    /* A as [row][NR], depth at most NR */
TILE(tile_prefetch, 1, MR, NR, 1, next, , const float *next)   /* of panels, with prefetching */
TILE(tile_unpacked, 1, MR, b_k, 0, next, , Py_ssize_t b_k, const float *next) /* B not packed */

#endif
