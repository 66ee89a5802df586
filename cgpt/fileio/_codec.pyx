"""What a checkpoint's bytes need at the speed of memory: CRC-32, and float32 as decimal text.

Every function releases the GIL. The loops are C (crc32.h, decimal.h); their results are those of
`zlib.crc32` and of the shortest decimals that NumPy prints.
"""

from os import strerror

from cgpt.errors import Phrase

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "crc32.h" nogil:
    void cgpt_crc_prepare()
    int cgpt_crc_folds()
    uint32_t cgpt_crc32(uint32_t crc, const unsigned char *p, size_t n, int fold)

cdef extern from "reading.h" nogil:
    enum: CGPT_READS
    int64_t cgpt_read_checked(int fd, int64_t at, int64_t length, unsigned char *target,
                              int64_t room, int fold, uint32_t *crc)

cdef extern from "decimal.h" nogil:
    enum: CGPT_LEAST_POWER
    enum: CGPT_MOST_POWER
    enum: CGPT_LONGEST_DECIMAL
    enum: CGPT_END
    enum: CGPT_HARD
    enum: CGPT_MALFORMED
    enum: CGPT_TOO_MANY
    ctypedef struct cgpt_reading:
        size_t at
        size_t filled
        size_t start
    uint64_t cgpt_powers[]
    Py_ssize_t cgpt_put_floats(const float *values, size_t n, char *out)
    int cgpt_get_floats(const unsigned char *p, size_t n, float *target, size_t room,
                        cgpt_reading *state)
    size_t cgpt_skip_numbers(const unsigned char *p, size_t n, size_t at)


def _power_of_ten(k):
    """10**k in units of 2**(floor(log2(10**k)) - 63), rounded up."""
    if k >= 0:
        power = int(10) ** k
        shift = power.bit_length() - 64
        return -(-power >> shift) if shift > 0 else power << -shift
    power = int(10) ** -k
    return -(-(1 << (power.bit_length() + 63)) // power)


for _i in range(CGPT_MOST_POWER - CGPT_LEAST_POWER + 1):
    cgpt_powers[_i] = _power_of_ten(int(CGPT_LEAST_POWER + _i))
cgpt_crc_prepare()
cdef int _folds = cgpt_crc_folds()


def crc32(const unsigned char[::1] data, uint32_t crc=0, bint fold=True):
    """zlib.crc32(data, crc) of any bytes-like object.

    fold  False leaves out the processor's carry-less multiplication, for tests
    """
    cdef size_t n = data.shape[0]
    cdef const unsigned char *start = &data[0] if n else NULL
    with nogil:
        crc = cgpt_crc32(crc, start, n, fold and _folds)
    return crc


READS = bool(CGPT_READS)        # whether the system can do what read_checked does


def read_checked(int fd, int64_t position, int64_t length, unsigned char[::1] target):
    """Read `length` bytes of a file into `target`, from its beginning again where it is shorter.

    Returns (the bytes' CRC-32, how many there were before the file ended). The GIL is released
    once: taking it again for every piece cost more than the checksums. Raises OSError.
    """
    cdef int64_t room = target.shape[0], done
    cdef uint32_t crc = 0
    if length < 0 or (length > 0 and room == 0):
        raise ValueError(f"length: found {length} with room for {room}")
    cdef unsigned char *start = &target[0] if room else NULL
    cdef int number = 0
    with nogil:
        done = cgpt_read_checked(fd, position, length, start, room, _folds, &crc)
        if done < 0:
            number = errno
    if done < 0:
        raise OSError(number, strerror(number))
    return crc, done


def format_floats(const float[::1] values):
    """Finite float32 (n,) as b"0.125,-1.0,1e-7,", each the shortest that reads back the same.

    Raises ValueError for NaN and infinity.
    """
    cdef size_t n = values.shape[0]
    cdef const float *start = &values[0] if n else NULL
    room = PyBytes_FromStringAndSize(NULL, n * CGPT_LONGEST_DECIMAL)
    cdef char *out = PyBytes_AS_STRING(room)
    cdef Py_ssize_t length
    with nogil:
        length = cgpt_put_floats(start, n, out)
    if length < 0:
        raise ValueError("a number that is not finite")
    return room[:length]


def parse_floats(const unsigned char[::1] text, float[::1] target, size_t filled=0):
    """Comma-separated JSON numbers into target[filled:]; how many numbers it then holds.

    A number is rounded to float64 and then to float32. Raises ValueError saying what is wrong.
    """
    cdef size_t n = text.shape[0], room = target.shape[0]
    cdef const unsigned char *start = &text[0] if n else NULL
    cdef float *numbers = &target[0] if room else NULL
    cdef cgpt_reading state = cgpt_reading(0, filled, 0)
    cdef int found = CGPT_HARD
    cdef float narrow
    while True:
        with nogil:
            found = cgpt_get_floats(start, n, numbers, room, &state)
        if found == CGPT_END:
            return state.filled
        if found == CGPT_MALFORMED:
            if cgpt_skip_numbers(start, n, 0) < n:
                raise ValueError(Phrase("something else than numbers"))
            raise ValueError(Phrase("a malformed number"))
        if found == CGPT_TOO_MANY:
            raise ValueError(Phrase("more than {n} numbers", n=room))
        if found != CGPT_HARD:
            raise ValueError(Phrase("a number that is too large for float32"))
        # Too many digits, or too near to the middle of two numbers.
        narrow = <float><double>float(bytes(text[state.start:state.at]))
        if not -3.4028235e38 <= narrow <= 3.4028235e38:
            raise ValueError(Phrase("a number that is too large for float32"))
        numbers[state.filled] = narrow
        state.filled += 1


def skip_numbers(const unsigned char[::1] text, size_t at):
    """Where the first byte that no list of numbers holds lies from `at` on; len(text) for none."""
    cdef size_t n = text.shape[0]
    return cgpt_skip_numbers(&text[0] if n else NULL, n, at)
