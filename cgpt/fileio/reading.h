/* Reading a part of a file and its CRC-32 while the bytes are in the cache. */
#ifndef CGPT_READING_H
#define CGPT_READING_H

#include "crc32.h"
#include <errno.h>

#define CGPT_PIECE (1 << 19)

#if defined(_WIN32)
#define CGPT_READS 0
static ptrdiff_t cgpt_read_at(int fd, unsigned char *p, size_t n, int64_t at)
{
    (void)fd; (void)p; (void)n; (void)at;
    errno = ENOSYS;
    return -1;
}
#else
#include <unistd.h>
#define CGPT_READS 1
static ptrdiff_t cgpt_read_at(int fd, unsigned char *p, size_t n, int64_t at)
{
    ptrdiff_t found;
    do
        found = pread(fd, p, n, (off_t)at);
    while (found < 0 && errno == EINTR);
    return found;
}
#endif

/* Read `length` bytes from byte `at` on into a target of `room` bytes, again from its beginning
 * where it is shorter. How many there were before the file ended, or -1 and errno. */
static int64_t cgpt_read_checked(int fd, int64_t at, int64_t length, unsigned char *target,
                                 int64_t room, int fold, uint32_t *crc)
{
    int64_t done = 0, place = 0;
    int again = room < length;
    while (done < length) {
        int64_t most = length - done < CGPT_PIECE ? length - done : CGPT_PIECE;
        if (again && most > room)
            most = room;
        ptrdiff_t found = cgpt_read_at(fd, target + place, (size_t)most, at + done);
        if (found < 0)
            return -1;
        if (found == 0)
            break;
        *crc = cgpt_crc32(*crc, target + place, (size_t)found, fold);
        done += found;
        if (!again)
            place += found;
    }
    return done;
}

#endif
