"""A set of 128-bit digests that costs little more than their bytes."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef struct Key:
    uint64_t low, high


cdef class Seen:
    """Digests that were added; open addressing, at most three quarters full."""

    cdef Key *slots
    cdef uint64_t mask, used

    def __cinit__(self):
        self.mask, self.used = 1023, 0
        self.slots = <Key *>calloc(self.mask + 1, sizeof(Key))
        if not self.slots:
            raise MemoryError("no memory for a set of digests")

    def __dealloc__(self):
        free(self.slots)

    def __len__(self):
        return self.used

    def add(self, bytes digest not None):
        """Whether these 16 bytes are new. Raises ValueError for another length."""
        cdef Key key
        cdef Key *slot
        if len(digest) != 16:
            raise ValueError(f"digest: found {len(digest)} bytes, expected 16")
        memcpy(&key, <const char *>digest, sizeof(Key))
        key.low |= 1            # 0 marks a free slot
        slot = self.slot(key)
        if slot.low:
            return False
        slot[0] = key
        self.used += 1
        if 4 * self.used > 3 * self.mask:
            self.grow()
        return True

    cdef Key *slot(self, Key key) noexcept:
        cdef uint64_t at = key.high & self.mask
        while self.slots[at].low and (self.slots[at].low != key.low
                                      or self.slots[at].high != key.high):
            at = (at + 1) & self.mask
        return &self.slots[at]

    cdef grow(self):
        cdef Key *old = self.slots
        cdef uint64_t size = self.mask + 1, i
        self.slots = <Key *>calloc(2 * size, sizeof(Key))
        if not self.slots:
            self.slots = old
            raise MemoryError("no memory for a set of digests")
        self.mask = 2 * size - 1
        for i in range(size):
            if old[i].low:
                self.slot(old[i])[0] = old[i]
        free(old)
