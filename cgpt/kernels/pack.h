/* Packing: a block of a matrix into panels that the micro-kernel reads from end to end.
 *
 * panel[k][0..width) holds element k of `width` rows, zeros behind the last row. Both directions
 * are shuffles of whole vectors: rows that are contiguous in k are transposed VL x VL at a time,
 * rows that lie side by side are copied, and where the panel is two floats narrower than a vector
 * (MR = VL - 2) VL / 2 of them are pressed into VL / 2 - 1 whole vectors, or stored over each other.
 */
#ifndef CGPT_PACK_H
#define CGPT_PACK_H

#include "simd.h"

#if VL == 16
#define LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VL == 4
#define LOW_HALVES 0, 4, 1, 5
#define HIGH_HALVES 2, 6, 3, 7
#endif

/* x[i][j] becomes x[j][i]. */
#if VL == 16 || VL == 4
/* log2(VL) perfect shuffles of all VL vectors. */
CGPT_INLINE void interleave(const vf *from, vf *to) {
    int i;
    UNROLL(8)
    for (i = 0; i < VL / 2; i++) {
        to[2 * i] = SHUFFLE(from[i], from[i + VL / 2], LOW_HALVES);
        to[2 * i + 1] = SHUFFLE(from[i], from[i + VL / 2], HIGH_HALVES);
    }
}

CGPT_INLINE void transpose(vf *x) {
    vf y[VL];
    interleave(x, y);
    interleave(y, x);
#if VL == 16
    interleave(x, y);
    interleave(y, x);
#endif
}
#elif VL == 8
/* Inside the 128-bit halves first, across them last: no shuffle needs an index vector. */
CGPT_INLINE void transpose(vf *x) {
    vf y[8];
    int i;
    UNROLL(4)
    for (i = 0; i < 8; i += 2) {
        y[i] = SHUFFLE(x[i], x[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        y[i + 1] = SHUFFLE(x[i], x[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL(2)
    for (i = 0; i < 8; i += 4) {
        x[i] = SHUFFLE(y[i], y[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        x[i + 1] = SHUFFLE(y[i], y[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        x[i + 2] = SHUFFLE(y[i + 1], y[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        x[i + 3] = SHUFFLE(y[i + 1], y[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL(4)
    for (i = 0; i < 4; i++) {
        y[i] = SHUFFLE(x[i], x[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        y[i + 4] = SHUFFLE(x[i], x[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    UNROLL(8)
    for (i = 0; i < 8; i++) x[i] = y[i];
}
#else
CGPT_INLINE void transpose(vf *x) { (void)x; }
#endif

/* One panel of n <= width rows, contiguous in k, `row` floats apart. */
CGPT_INLINE void pack_rows(const float *x, Py_ssize_t row, int n, int width, Py_ssize_t depth,
                           float scale, float *CGPT_RESTRICT panel) {
    Py_ssize_t k = 0;
    int first, i;
    /* A store of a whole vector may reach past the panel's width into the next k; the last k of
     * all is left to the loop below, so that nothing behind the panel is touched. */
    for (; k + VL < depth; k += VL)
        for (first = 0; first < width; first += VL) {
            vf block[VL];
            UNROLL(16)
            for (i = 0; i < VL; i++)
                block[i] = first + i < n ? vset1(scale) * vload(x + (first + i) * row + k)
                                         : vset1(0.0f);
            transpose(block);
            UNROLL(16)
            for (i = 0; i < VL; i++) {
                if (first + VL <= width)
                    vstore(panel + (k + i) * width + first, block[i]);
                else if (width < VL)
                    vstore(panel + (k + i) * width, block[i]);
                else
                    vstore_part(panel + (k + i) * width + first, block[i], width - first);
            }
        }
    for (; k < depth; k++)
        for (i = 0; i < width; i++) panel[k * width + i] = i < n ? scale * x[i * row + k] : 0.0f;
}

/* One panel of n <= width rows that lie side by side; `column` floats from one k to the next. */
CGPT_INLINE void pack_columns(const float *x, Py_ssize_t column, int n, int width,
                              Py_ssize_t depth, float scale, float *CGPT_RESTRICT panel) {
    Py_ssize_t k;
    int i;
    if (n == width && width % VL == 0) {
        for (k = 0; k < depth; k++)
            for (i = 0; i < width; i += VL)
                vstore(panel + k * width + i, vset1(scale) * vload(x + k * column + i));
        return;
    }
    for (k = 0; k < depth; k++) {
        for (i = 0; i < n; i++) panel[k * width + i] = scale * x[k * column + i];
        for (; i < width; i++) panel[k * width + i] = 0.0f;
    }
}

#if VL == 16
#define PRESS(j, ...) vstore(panel + 16 * j, SHUFFLE(v[j], v[j + 1], __VA_ARGS__))
CGPT_INLINE void compress(const vf *v, float *panel) {
    PRESS(0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17);
    PRESS(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19);
    PRESS(2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21);
    PRESS(3, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23);
    PRESS(4, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25);
    PRESS(5, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27);
    PRESS(6, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29);
}
#elif VL == 8
/* With AVX2 a shuffle costs more than a store that the next one covers in part. */
CGPT_INLINE void compress(const vf *v, float *panel) {
    int i;
    UNROLL(4)
    for (i = 0; i < VL / 2; i++) vstore(panel + i * MR, v[i]);
}
#endif

#if VL >= 8
/* Panels of MR rows that lie side by side, `panels` of them at once, so that what is read is
 * contiguous. Returns how many k were done: the last ones are left, as a whole vector is read. */
static Py_ssize_t pack_compressed(const float *x, Py_ssize_t column, Py_ssize_t panels,
                               Py_ssize_t depth, float *CGPT_RESTRICT panel) {
    Py_ssize_t k, p;
    int i;
    for (k = 0; k + VL / 2 < depth; k += VL / 2)
        for (p = 0; p < panels; p++) {
            vf v[VL / 2];
            UNROLL(8)
            for (i = 0; i < VL / 2; i++) v[i] = vload(x + (k + i) * column + p * MR);
            compress(v, panel + p * MR * depth + k * MR);
        }
    return k;
}
#endif

/* pack_panels for a width that the compiler knows. */
CGPT_INLINE void pack_panels_of(const float *x, Py_ssize_t row, Py_ssize_t column,
                                Py_ssize_t rows, Py_ssize_t depth, int width, float scale,
                                float *CGPT_RESTRICT panel) {
    Py_ssize_t first = 0;
#if VL >= 8
    if (width == MR && row == 1 && scale == 1.0f && rows >= MR) {
        Py_ssize_t done = pack_compressed(x, column, rows / MR, depth, panel);
        for (; first + MR <= rows; first += MR)
            pack_columns(x + first + done * column, column, MR, MR, depth - done, scale,
                         panel + first * depth + done * MR);
    }
#endif
    for (; first < rows; first += width) {
        int n = rows - first < width ? (int)(rows - first) : width;
        float *to = panel + first * depth;
        if (row == 1) {
            if (n == width) pack_columns(x + first, column, width, width, depth, scale, to);
            else pack_columns(x + first, column, n, width, depth, scale, to);
        } else if (n == width) {
            pack_rows(x + first * row, row, width, width, depth, scale, to);
        } else {
            pack_rows(x + first * row, row, n, width, depth, scale, to);
        }
    }
}

/* Rows of a matrix into panels of `width` (MR or NR) rows, multiplied by scale. Element (i, k) is
 * at x[i * row + k * column], and row or column is 1. */
static void pack_panels(const float *x, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows,
                        Py_ssize_t depth, int width, float scale, float *panel) {
    if (width == MR) pack_panels_of(x, row, column, rows, depth, MR, scale, panel);
    else pack_panels_of(x, row, column, rows, depth, NR, scale, panel);
}

#endif
