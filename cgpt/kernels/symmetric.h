/* The lower half of a symmetric matrix from its upper half. */
#ifndef CGPT_SYMMETRIC_H
#define CGPT_SYMMETRIC_H

#include "pack.h"

/* c (n, n) := scale c + factor plus + shift I, of which what lies on and above the diagonal is
 * read; plus, NULL for zeros, is symmetric too. A square of vectors is transposed in registers;
 * on the diagonal and where no square is whole, it goes number by number. */
static void symmetrize(float *c, const float *plus, Py_ssize_t n, float scale, float factor,
                   float shift) {
    Py_ssize_t i0, j0, i, j;
    for (i0 = 0; i0 < n; i0 += VL)
        for (j0 = i0; j0 < n; j0 += VL) {
            float *square = c + i0 * n + j0;
            const float *added = plus ? plus + i0 * n + j0 : square;
            float by = plus ? factor : 0.0f;
            if (i0 == j0 || j0 + VL > n) {
                for (i = 0; i < VL && i0 + i < n; i++)
                    for (j = i0 == j0 ? i : 0; j < VL && j0 + j < n; j++) {
                        float value = scale * square[i * n + j] + by * added[i * n + j];
                        if (i0 + i == j0 + j) value += shift;
                        square[i * n + j] = c[(j0 + j) * n + i0 + i] = value;
                    }
            } else {
                vf block[VL];
                UNROLL(16)
                for (i = 0; i < VL; i++) {
                    block[i] = vset1(scale) * vload(square + i * n)
                               + vset1(by) * vload(added + i * n);
                    vstore(square + i * n, block[i]);
                }
                transpose(block);
                UNROLL(16)
                for (i = 0; i < VL; i++) vstore(c + (j0 + i) * n + i0, block[i]);
            }
        }
}

#endif
