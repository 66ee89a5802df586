/* CRC-32 as zlib, PNG and gzip have it (polynomial 0xEDB88320, reflected).
 *
 * With carry-less multiplication, four 128-bit remainders are folded forward 64 bytes at a time
 * (Gopal et al. 2009, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", whose
 * constants these are); what is left, and other processors, take eight bytes a step from tables
 * (Kounavis and Berry 2005, "A Systematic Approach to Building High Performance CRC Generators").
 */
#ifndef CGPT_CRC32_H
#define CGPT_CRC32_H

#include <stddef.h>
#include <stdint.h>

static uint32_t cgpt_crc_table[8][256];

/* Table k holds the effect of a byte that k more bytes follow. */
static void cgpt_crc_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++)
            state = (state >> 1) ^ (0xEDB88320u & (0u - (state & 1)));
        cgpt_crc_table[0][byte] = state;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = cgpt_crc_table[k - 1][byte];
            cgpt_crc_table[k][byte] = (before >> 8) ^ cgpt_crc_table[0][before & 255];
        }
}

static uint32_t cgpt_crc_tables(uint32_t state, const unsigned char *p, size_t n)
{
    for (; n >= 8; n -= 8, p += 8)
        state = cgpt_crc_table[7][p[0] ^ (state & 255)]
              ^ cgpt_crc_table[6][p[1] ^ (state >> 8 & 255)]
              ^ cgpt_crc_table[5][p[2] ^ (state >> 16 & 255)]
              ^ cgpt_crc_table[4][p[3] ^ (state >> 24)]
              ^ cgpt_crc_table[3][p[4]] ^ cgpt_crc_table[2][p[5]]
              ^ cgpt_crc_table[1][p[6]] ^ cgpt_crc_table[0][p[7]];
    for (; n; n--, p++)
        state = (state >> 8) ^ cgpt_crc_table[0][(state ^ *p) & 255];
    return state;
}

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

static int cgpt_crc_folds(void)
{
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

/* One remainder moved forward and added to the data there. */
__attribute__((target("pclmul,sse4.1")))
static inline __m128i cgpt_crc_fold(__m128i x, __m128i k, const unsigned char *p)
{
    __m128i low = _mm_clmulepi64_si128(x, k, 0x00), high = _mm_clmulepi64_si128(x, k, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), _mm_loadu_si128((const __m128i *)p));
}

/* n is at least 64. */
__attribute__((target("pclmul,sse4.1")))
static uint32_t cgpt_crc_folded(uint32_t state, const unsigned char *p, size_t n)
{
    const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    unsigned char rest[16];
    __m128i x[4];
    for (int i = 0; i < 4; i++)
        x[i] = _mm_loadu_si128((const __m128i *)(p + 16 * i));
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)state));
    for (n -= 64, p += 64; n >= 64; n -= 64, p += 64)
        for (int i = 0; i < 4; i++)
            x[i] = cgpt_crc_fold(x[i], by_64, p + 16 * i);
    for (int i = 1; i < 4; i++) {
        _mm_storeu_si128((__m128i *)rest, x[i]);
        x[0] = cgpt_crc_fold(x[0], by_16, rest);
    }
    for (; n >= 16; n -= 16, p += 16)
        x[0] = cgpt_crc_fold(x[0], by_16, p);
    _mm_storeu_si128((__m128i *)rest, x[0]);
    return cgpt_crc_tables(cgpt_crc_tables(0, rest, 16), p, n);
}
#else
static int cgpt_crc_folds(void) { return 0; }
static uint32_t cgpt_crc_folded(uint32_t state, const unsigned char *p, size_t n)
{
    return cgpt_crc_tables(state, p, n);
}
#endif

static uint32_t cgpt_crc32(uint32_t crc, const unsigned char *p, size_t n, int fold)
{
    uint32_t state = ~crc;
    state = fold && n >= 64 ? cgpt_crc_folded(state, p, n) : cgpt_crc_tables(state, p, n);
    return ~state;
}

#endif
