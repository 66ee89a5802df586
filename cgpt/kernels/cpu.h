/* What the processor and the compiler offer. */
#ifndef CGPT_CPU_H
#define CGPT_CPU_H

#include <stddef.h>
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <cpuid.h>
#endif

/* What this processor can run: 0 the baseline, 1 AVX2 with FMA and F16C (of which not every
 * compiler's __builtin_cpu_supports knows), 2 AVX-512 F, BW, DQ and VL. */
static int cgpt_cpu_level(void) {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    unsigned a, b, c, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return 2;
    return 1;
#else
    return 0;
#endif
}

static int cgpt_has_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* Bytes of the largest cache that a core reads through, 0 where they are not known: leaf 4 of cpuid
 * on Intel's processors, the like-built 0x8000001d on AMD's (Programmer's Manual 3, appendix E). */
static size_t cgpt_last_cache(void) {
    size_t most = 0;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    const unsigned leaves[] = {4, 0x8000001d};
    unsigned leaf, level, a, b, c, d;
    for (leaf = 0; leaf < 2; leaf++)
        for (level = 0; level < 8; level++) {
            if (!__get_cpuid_count(leaves[leaf], level, &a, &b, &c, &d) || !(a & 31)) break;
            const size_t line = (b & 0xfff) + 1, parts = (b >> 12 & 0x3ff) + 1;
            const size_t bytes = line * parts * ((b >> 22) + 1) * ((size_t)c + 1);
            if (bytes > most) most = bytes;
        }
#endif
    return most;
}

#endif
