/* float32 as the shortest decimal that reads back as the same number, and decimals as float32.
 *
 * Writing: of the decimals inside the rounding interval of a number, one of the fewest digits, and
 * of these the nearest; found with one 64-bit approximation of a power of ten (Giulietti 2021,
 * "The Schubfach way to render doubles", for the narrower format). Reading: rounded to float64
 * first and then to float32, as programs do that know no float32; exactly in float64 where digits
 * and power allow it (Clinger 1990), else between two bounds of the product with an approximate
 * power (after Lemire 2021, "Number parsing at a gigabyte per second"). Where the bounds do not
 * round alike, the caller has to decide.
 */
#ifndef CGPT_DECIMAL_H
#define CGPT_DECIMAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CGPT_LEAST_POWER (-80)
#define CGPT_MOST_POWER 60
#define CGPT_LONGEST_DECIMAL 17             /* "-0.0000123456789," */

/* 10**k = (cgpt_powers[k] + less than 1) * 2**(floor(log2(10**k)) - 63); filled in by Python. */
static uint64_t cgpt_powers[CGPT_MOST_POWER - CGPT_LEAST_POWER + 1];

static inline int cgpt_log2_of_ten_to(int k) { return (k * 1741647) >> 19; }

/* floor(g * c / 2**64), its last bit set where something was cut off. */
static inline uint32_t cgpt_round_to_odd(uint64_t g, uint32_t c)
{
    uint64_t top = (g >> 32) * c + (((g & 0xFFFFFFFFu) * c) >> 32);
    return (uint32_t)(top >> 32) | ((uint32_t)top > 1);
}

/* For a positive finite number: digits * 10**exponent. */
static inline uint32_t cgpt_shortest(uint32_t bits, int *exponent)
{
    uint32_t fraction = bits & 0x7FFFFF, biased = bits >> 23;
    uint32_t c = biased ? fraction | 0x800000 : fraction;
    int q = (biased ? (int)biased : 1) - 150;           /* the number is c * 2**q */
    int odd = c & 1;                                    /* ends of the interval round to even */
    int closer = fraction == 0 && biased > 1;           /* the number below is half as far away */
    int k = closer ? (q * 1262611 - 524031) >> 22 : (q * 1262611) >> 22;
    int h = q + cgpt_log2_of_ten_to(-k) + 1;
    uint64_t g = cgpt_powers[-k - CGPT_LEAST_POWER];
    /* four times the number and the ends of its interval, in units of 10**k */
    uint32_t here = cgpt_round_to_odd(g, (4 * c) << h);
    uint32_t low = cgpt_round_to_odd(g, (4 * c - 2 + closer) << h) + odd;
    uint32_t high = cgpt_round_to_odd(g, (4 * c + 2) << h) - odd;
    uint32_t s = here / 4;
    if (s >= 10) {                                      /* one digit less, if exactly one fits */
        uint32_t t = s / 10;
        int below = low <= 40 * t, above = 40 * t + 40 <= high;
        if (below != above) {
            *exponent = k + 1;
            return t + above;
        }
    }
    *exponent = k;
    int below = low <= 4 * s, above = 4 * s + 4 <= high;
    if (below != above)
        return s + above;
    return s + (here > 4 * s + 2 || (here == 4 * s + 2 && (s & 1)));
}

/* Write a finite number and a comma; where the text ends. As 0.00012, 1.5, 1.25e7 or 1e-12. */
static inline char *cgpt_put_float(char *p, float value)
{
    uint32_t bits, digits;
    int exponent, n = 0;
    char text[10];
    memcpy(&bits, &value, 4);
    if (bits >> 31)
        *p++ = '-';
    bits &= 0x7FFFFFFF;
    if (bits == 0) {
        memcpy(p, "0.0,", 4);
        return p + 4;
    }
    digits = cgpt_shortest(bits, &exponent);
    if (bits == 0x15AE43FD) {
        /* 7.038531e-26, rounded to float64 first, becomes the number below: of all float32 the
         * only one that needs a digit more for readers that know no float32. */
        digits = 70385307;
        exponent = -33;
    }
    while (digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    for (; digits; digits /= 10)
        text[9 - n++] = (char)('0' + digits % 10);
    const char *first = text + 10 - n;
    exponent += n - 1;                                  /* of the first digit */
    if (exponent < 0 && exponent >= -5) {
        memcpy(p, "0.0000", 6);
        p += 1 - exponent;
        memcpy(p, first, n);
        p += n;
    } else {
        *p++ = first[0];
        if (n > 1 || exponent == 0) {
            *p++ = '.';
            if (n == 1)
                *p++ = '0';
            memcpy(p, first + 1, n - 1);
            p += n - 1;
        }
        if (exponent) {
            int size = exponent < 0 ? -exponent : exponent;
            *p++ = 'e';
            if (exponent < 0)
                *p++ = '-';
            if (size >= 10)
                *p++ = (char)('0' + size / 10);
            *p++ = (char)('0' + size % 10);
        }
    }
    *p++ = ',';
    return p;
}

/* Text of n finite numbers at `out`, which has room for CGPT_LONGEST_DECIMAL bytes of each; its
 * length, or -1 where a number is not finite. */
static ptrdiff_t cgpt_put_floats(const float *values, size_t n, char *out)
{
    char *p = out;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, 4);
        if ((bits & 0x7F800000) == 0x7F800000)
            return -1;
        p = cgpt_put_float(p, values[i]);
    }
    return p - out;
}

static inline void cgpt_multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low)
{
    uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
    uint64_t middle = a1 * b0 + ((a0 * b0) >> 32), other = a0 * b1 + (middle & 0xFFFFFFFFu);
    *low = a * b;
    *high = a1 * b1 + (middle >> 32) + (other >> 32);
}

/* (high * 2**64 + low) * 2**(power - 127), rounded to float64; high has one of its top two bits. */
static inline double cgpt_rounded(uint64_t high, uint64_t low, int power)
{
    double result;
    if (!(high >> 63)) {
        high = high << 1 | low >> 63;
        low <<= 1;
        power--;
    }
    uint64_t whole = high >> 11, rest = high & 0x7FF;
    if (rest > 0x400 || (rest == 0x400 && (low || (whole & 1))))
        whole++;                                        /* may be 2**53: the exponent grows by 1 */
    uint64_t bits = ((uint64_t)(power + 1023) << 52) + (whole - ((uint64_t)1 << 52));
    memcpy(&result, &bits, 8);
    return result;
}

/* digits * 10**q to *value; 0 where the bounds do not decide. digits has at most 19 places. */
static inline int cgpt_scale(uint64_t digits, int q, double *value)
{
    static const double exact[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (digits >> 53 == 0 && q >= -22 && q <= 22) {
        *value = q < 0 ? (double)digits / exact[-q] : (double)digits * exact[q];
        return 1;
    }
    if (digits == 0) {
        *value = 0;
        return 1;
    }
    if (q < CGPT_LEAST_POWER || q > CGPT_MOST_POWER)
        return 0;
    int shift = 0;
    for (int step = 32; step; step /= 2)
        if (!(digits >> (64 - step))) {
            digits <<= step;
            shift += step;
        }
    uint64_t high, low;
    cgpt_multiply(digits, cgpt_powers[q - CGPT_LEAST_POWER] - (q < 0 || q > 27), &high, &low);
    int power = cgpt_log2_of_ten_to(q) + 64 - shift;
    *value = cgpt_rounded(high, low, power);
    if (q >= 0 && q <= 27)
        return 1;                                       /* the power is exact */
    uint64_t above = low + digits;
    if (above < low && ++high == 0)
        return 0;
    return cgpt_rounded(high, above, power) == *value;
}

enum { CGPT_END, CGPT_HARD, CGPT_MALFORMED, CGPT_TOO_MANY, CGPT_TOO_LARGE };

typedef struct {
    size_t at;                      /* byte that is read next */
    size_t filled;                  /* numbers so far */
    size_t start;                   /* of the number that is CGPT_HARD; it ends at `at` */
} cgpt_reading;

static inline int cgpt_is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
static inline int cgpt_is_space(unsigned char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* One JSON number at *at, whose end is set; CGPT_END for success. */
static inline int cgpt_get_number(const unsigned char *p, size_t n, size_t *at, double *value)
{
    size_t i = *at;
    uint64_t digits = 0;
    int places = 0, q = 0, negative = i < n && p[i] == '-';
    i += negative;
    if (i >= n || !cgpt_is_digit(p[i]))
        return CGPT_MALFORMED;
    if (p[i] == '0' && i + 1 < n && cgpt_is_digit(p[i + 1]))
        return CGPT_MALFORMED;
    for (; i < n && cgpt_is_digit(p[i]); i++) {
        places += places || p[i] != '0';
        if (places <= 19)
            digits = 10 * digits + (p[i] - '0');
    }
    if (i < n && p[i] == '.') {
        size_t first = ++i;
        for (; i < n && cgpt_is_digit(p[i]); i++) {
            places += places || p[i] != '0';
            if (places <= 19) {
                digits = 10 * digits + (p[i] - '0');
                q -= q > -100000;
            }
        }
        if (i == first)
            return CGPT_MALFORMED;
    }
    if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        int e = 0, minus = 0;
        i++;
        if (i < n && (p[i] == '+' || p[i] == '-'))
            minus = p[i++] == '-';
        if (i >= n || !cgpt_is_digit(p[i]))
            return CGPT_MALFORMED;
        for (; i < n && cgpt_is_digit(p[i]); i++)
            e = e > 100000 ? e : 10 * e + (p[i] - '0');
        q += minus ? -e : e;
    }
    *at = i;
    if (places > 19 || !cgpt_scale(digits, q, value))
        return CGPT_HARD;
    if (negative)
        *value = -*value;
    return CGPT_END;
}

/* Go on reading comma-separated numbers of a text of n bytes into a target of `room`. */
static int cgpt_get_floats(const unsigned char *p, size_t n, float *target, size_t room,
                           cgpt_reading *state)
{
    size_t i = state->at;
    if (i) {                                            /* behind a number that was CGPT_HARD */
        while (i < n && cgpt_is_space(p[i]))
            i++;
        if (i == n)
            return CGPT_END;
        if (p[i++] != ',')
            return CGPT_MALFORMED;
    }
    for (;;) {
        double value;
        while (i < n && cgpt_is_space(p[i]))
            i++;
        state->start = i;
        int found = cgpt_get_number(p, n, &i, &value);
        state->at = i;
        if (found == CGPT_MALFORMED)
            return found;
        if (state->filled == room)
            return CGPT_TOO_MANY;
        if (found == CGPT_HARD)
            return found;
        float narrow = (float)value;
        if (narrow > 3.4028235e38f || narrow < -3.4028235e38f)
            return CGPT_TOO_LARGE;
        target[state->filled++] = narrow;
        while (i < n && cgpt_is_space(p[i]))
            i++;
        if (i == n)
            return CGPT_END;
        if (p[i++] != ',')
            return CGPT_MALFORMED;
    }
}

/* Where the first byte that no list of numbers has lies at or after `at`; n where there is none. */
static size_t cgpt_skip_numbers(const unsigned char *p, size_t n, size_t at)
{
    while (at < n && (cgpt_is_digit(p[at]) || cgpt_is_space(p[at]) || p[at] == ',' || p[at] == '.'
                      || p[at] == '-' || p[at] == 'e' || p[at] == 'E' || p[at] == '+'))
        at++;
    return at;
}

#endif
