/* Vectors, elementary functions and scratch memory, for every instruction set.
 *
 * The same kernel source is compiled once per instruction set; this header is all that knows
 * how wide a vector is. GCC and Clang vector extensions carry the arithmetic (so AVX2, AVX-512,
 * SSE2 and NEON come from one text); other compilers get vectors of one float.
 */
#ifndef CGPT_SIMD_H
#define CGPT_SIMD_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h>
#endif

#if !defined(__GNUC__) || defined(CGPT_SCALAR)
#define VL 1            /* floats in a vector; CGPT_SCALAR shows that this works too */
#elif defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__) && defined(__FMA__)
#define VL 8
#else
#define VL 4
#endif

/* The micro-kernel holds MR x NR sums in registers: NR is two vectors, MR what the register
 * file leaves room for beside two vectors of B and one broadcast of A; where fewer rows are left
 * it takes MR_MID or MR_LOW. */
#if VL == 16
#define MR 14
#define MR_MID 8
#define MR_LOW 4
#elif VL == 1
#define MR 2
#define MR_MID 2
#define MR_LOW 1
#else
#define MR 6
#define MR_MID 4
#define MR_LOW 2
#endif
#define NR (2 * VL)

#define PRAGMA(text) _Pragma(#text)
#if defined(__GNUC__) && !defined(__clang__)
#define UNROLL(n) PRAGMA(GCC unroll n)
#else
#define UNROLL(n)
#endif
#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#define PREFETCH_FAR(p) __builtin_prefetch(p, 0, 2)     /* into the second cache only */
#else
#define PREFETCH(p) ((void)0)
#define PREFETCH_FAR(p) ((void)0)
#endif

#if VL > 1
typedef float vf __attribute__((vector_size(4 * VL)));
typedef float vf_unaligned __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
#define CGPT_INLINE static inline __attribute__((always_inline))
#define CGPT_RESTRICT __restrict__
#define CGPT_THREAD __thread
static const vf VZERO = {0};
CGPT_INLINE vf vset1(float x) { return x - VZERO; } /* x - 0 is x for every x, -0 and NaN too */
CGPT_INLINE vf vload(const float *p) { return *(const vf_unaligned *)p; }
CGPT_INLINE void vstore(float *p, vf x) { *(vf_unaligned *)p = x; }
#else
typedef float vf;
typedef int vi;
#define CGPT_INLINE static __inline
#define CGPT_RESTRICT
#ifdef _MSC_VER
#define CGPT_THREAD __declspec(thread)
#else
#define CGPT_THREAD _Thread_local
#endif
#define vset1(x) ((float)(x))
CGPT_INLINE vf vload(const float *p) { return *p; }
CGPT_INLINE void vstore(float *p, vf x) { *p = x; }
#endif

/* Comparing, choosing and scaling, by the processor's own instructions where it has them:
 * compilers make four of a choice written in C. A NaN in either argument of vmax or vmin comes out
 * only from b; callers pass the data as b. */
#if VL == 16
typedef __mmask16 vmask;
#define vless(a, b) _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)
#define vselect(mask, yes, no) ((vf)_mm512_mask_blend_ps(mask, no, yes))
#define vmax(a, b) ((vf)_mm512_max_ps(a, b))
#define vmin(a, b) ((vf)_mm512_min_ps(a, b))
#define vscale(x, n) ((vf)_mm512_scalef_ps(x, n))
#else
typedef vi vmask;
#define vless(a, b) ((vi)((a) < (b)))
#if VL == 8
#define vselect(mask, yes, no) ((vf)_mm256_blendv_ps(no, yes, (vf)(mask)))
#define vmax(a, b) ((vf)_mm256_max_ps(a, b))
#define vmin(a, b) ((vf)_mm256_min_ps(a, b))
#else
CGPT_INLINE vf vselect(vmask mask, vf yes, vf no) {
#if VL > 1
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
#else
    return mask ? yes : no;
#endif
}
CGPT_INLINE vf vmax(vf a, vf b) { return vselect(vless(b, a), a, b); }
CGPT_INLINE vf vmin(vf a, vf b) { return vselect(vless(a, b), a, b); }
#endif
CGPT_INLINE vf vpower2(vf n) { /* 2**n for whole n in [-127, 128] */
#if VL > 1
    return (vf)((__builtin_convertvector(n, vi) + 127) << 23);
#else
    return ldexpf(1.0f, (int)n);
#endif
}
CGPT_INLINE vf vscale(vf x, vf n) { /* x 2**n in two halves: n = 128 is past the largest power */
    const vf rounder = vset1(12582912.0f);
    vf half = (n * vset1(0.5f) + rounder) - rounder;
    return x * vpower2(half) * vpower2(n - half);
}
#endif

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* The first n floats, zeros behind them. */
CGPT_INLINE vf vload_part(const float *p, Py_ssize_t n) {
    float part[VL];
    Py_ssize_t i;
    for (i = 0; i < VL; i++) part[i] = i < n ? p[i] : 0.0f;
    return vload(part);
}

CGPT_INLINE void vstore_part(float *p, vf x, Py_ssize_t n) {
    float part[VL];
    Py_ssize_t i;
    vstore(part, x);
    for (i = 0; i < n && i < VL; i++) p[i] = part[i];
}

/* Sum of the lanes, halves added to halves: one order for all callers. */
CGPT_INLINE float vsum(vf x) {
    float part[VL];
    int width, i;
    vstore(part, x);
    for (width = VL / 2; width > 0; width /= 2)
        for (i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
}

CGPT_INLINE float vmax_lanes(vf x) {
    float part[VL], most;
    int i;
    vstore(part, x);
    most = part[0];
    for (i = 1; i < VL; i++) if (!(part[i] <= most)) most = part[i];
    return most;
}

CGPT_INLINE vf vsqrt(vf x) {
    float part[VL];
    int i;
    vstore(part, x);
    for (i = 0; i < VL; i++) part[i] = sqrtf(part[i]);
    return vload(part);
}

/* `hidden` in the lanes before the n-th, x in the others. */
CGPT_INLINE vf vmask_before(vf x, float n, float fill) {
    float lane[VL];
    int i;
    for (i = 0; i < VL; i++) lane[i] = (float)i;
    return vselect(vless(vload(lane), vset1(n)), vset1(fill), x);
}

/* exp, relative error under 2e-7; 0 below -87.3 (so exp(-inf) is 0), NaN stays NaN, infinity
 * above 88.7. Cody-Waite reduction by ln 2 in two parts, then the Taylor polynomial of degree 7
 * on [-ln2/2, ln2/2] (truncation 5e-9). Source: Cody and Waite 1980, chapter 6. */
CGPT_INLINE vf vexp(vf x) {
    const vf low = vset1(-87.33654f), rounder = vset1(12582912.0f);
    vf inside = vmin(vset1(89.0f), vmax(low, x));
    vf n = (inside * vset1(1.44269504f) + rounder) - rounder;
    vf r = inside - n * vset1(0.693359375f) - n * vset1(-2.12194440e-4f);
    vf p = vset1(1.0f / 5040.0f);
    p = p * r + vset1(1.0f / 720.0f);
    p = p * r + vset1(1.0f / 120.0f);
    p = p * r + vset1(1.0f / 24.0f);
    p = p * r + vset1(1.0f / 6.0f);
    p = p * r + vset1(0.5f);
    p = p * r + vset1(1.0f);
    p = p * r + vset1(1.0f);
    return vselect(vless(x, low), vset1(0.0f), vscale(p, n));
}

/* Memory that a thread keeps between calls, 64-byte aligned; slots never overlap. It lives as
 * long as the thread, and Python threads that call kernels at once each have their own. Large
 * blocks request huge pages: packing walks over many rows at once, each on pages of its own. */
enum { SLOT_SHARED, SLOT_THREAD, SLOT_SUMS, SLOT_PREFETCH, SLOTS };
#define HUGE_PAGE ((size_t)1 << 21)

static float *cgpt_scratch(int slot, size_t floats) {
    static CGPT_THREAD void *block[SLOTS];
    static CGPT_THREAD size_t capacity[SLOTS];
    if (capacity[slot] < floats) {
        size_t border = 64, bytes;
        free(block[slot]);
        capacity[slot] = floats + floats / 4;
        bytes = capacity[slot] * sizeof(float);
        if (bytes >= HUGE_PAGE) border = HUGE_PAGE;
        block[slot] = malloc(bytes + border);
        if (block[slot] == NULL) abort();
#ifdef MADV_HUGEPAGE
        if (border == HUGE_PAGE)
            madvise((void *)(((uintptr_t)block[slot] + border - 1) & ~(uintptr_t)(border - 1)),
                    bytes & ~(border - 1), MADV_HUGEPAGE);
#endif
    }
    if (capacity[slot] * sizeof(float) >= HUGE_PAGE)
        return (float *)(((uintptr_t)block[slot] + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    return (float *)(((uintptr_t)block[slot] + 63) & ~(uintptr_t)63);
}

#endif
