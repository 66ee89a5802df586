"""The most probable path of a text through a vocabulary, in one pass.

The words lie in a trie whose edges are one hash table: (node, character) -> child. From every
place of the text the trie is walked as far as it goes, and each word that ends on the way may
improve the best path to its end. So a text costs a few look-ups a character, whatever the size of
the vocabulary.

Source: Viterbi 1967, IEEE Trans. Inf. Theory 13(2), for the path; Fredkin 1960, CACM 3(9), for the
trie.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

include "unicode.pxi"

cdef enum:
    DIRECT = 0x10000        # the first characters below this have their node in a table


cdef struct Edge:
    uint64_t key            # (node << 21 | character) + 1, or 0 where the slot is free
    int32_t child


cdef struct Node:
    double score            # of the word that ends here
    int32_t word            # its index, or -1
    int32_t children        # 0 where no word goes on


cdef struct Step:
    double best             # score of the best path from the start of the piece to here
    Py_ssize_t start        # where its last word starts
    int32_t word            # that word's index, or -1 for the bytes of a character


cdef struct Run:
    Step *steps             # of one piece: places 0 .. its length
    Py_ssize_t n_steps
    int32_t *ids            # tokens found so far
    Py_ssize_t n_ids, room
    double score            # of all pieces before


cdef class Lattice:
    """Words with scores, and the path of the highest sum of scores through a text.

    words       distinct texts of at least one character
    scores      as many finite numbers
    byte_score  of each byte of a character that is no word
    first_byte, first_word  ids of the byte 0 and of words[0]
    Raises ValueError where the lengths differ or a word is empty, MemoryError.
    """

    cdef Edge *edges
    cdef uint64_t mask
    cdef int shift
    cdef Node *nodes
    cdef Py_ssize_t n_nodes, n_words
    cdef int32_t *roots             # node of each first character below DIRECT, 0 for none
    cdef uint64_t *pairs            # pairs of characters that lie inside a word
    cdef double byte_score
    cdef int32_t first_byte, first_word

    def __cinit__(self, words, scores, double byte_score, int32_t first_byte=0,
                  int32_t first_word=256):
        cdef Py_ssize_t total = 0, slots = 64
        cdef str word
        if len(words) != len(scores):
            raise ValueError(f"scores: found {len(scores)}, expected {len(words)}")
        for word in words:
            if not word:
                raise ValueError("words: an empty word")
            total += len(word)
        self.shift = 58
        while slots < 2 * total:
            slots *= 2
            self.shift -= 1
        self.mask = slots - 1
        self.byte_score, self.n_words = byte_score, len(words)
        self.first_byte, self.first_word = first_byte, first_word
        self.edges = <Edge *>calloc(slots, sizeof(Edge))
        self.pairs = <uint64_t *>calloc(slots, sizeof(uint64_t))
        self.roots = <int32_t *>calloc(DIRECT, sizeof(int32_t))
        self.nodes = <Node *>calloc(total + 1, sizeof(Node))
        if not self.edges or not self.pairs or not self.roots or not self.nodes:
            raise MemoryError("no memory for a vocabulary")
        self.nodes[0].word, self.n_nodes = -1, 1
        cdef int32_t index = 0
        for word, score in zip(words, scores, strict=True):
            self.add(word, score, index)
            index += 1

    def __dealloc__(self):
        free(self.edges)
        free(self.pairs)
        free(self.roots)
        free(self.nodes)

    def __len__(self):
        return self.n_words

    cdef void add(self, str word, double score, int32_t index):
        """Put a word into the trie, and its pairs of neighbours beside it."""
        cdef int32_t node = 0, child
        cdef Py_ssize_t i
        cdef uint64_t pair
        cdef Edge *slot
        cdef uint32_t char, before = 0
        for i in range(len(word)):
            char = word[i]
            slot = self.edge(node, char)
            if not slot.key:
                child = <int32_t>self.n_nodes
                slot.key, slot.child = self.key(node, char), child
                self.nodes[child].word = -1
                self.nodes[node].children = 1
                self.n_nodes += 1
                if node == 0 and char < DIRECT:
                    self.roots[char] = child
            node = slot.child
            if i:
                pair = <uint64_t>before << 21 | char
                self.pairs[self.pair_slot(pair)] = pair + 1
            before = char
        self.nodes[node].word, self.nodes[node].score = index, score

    cdef inline uint64_t key(self, int32_t node, uint32_t char) noexcept nogil:
        return (<uint64_t>node << 21 | char) + 1

    cdef inline uint64_t slot_of(self, uint64_t key) noexcept nogil:
        """Where a search for `key` begins. Source: Knuth, TAOCP 3, 6.4 (Fibonacci hashing)."""
        return key * <uint64_t>0x9E3779B97F4A7C15 >> self.shift

    cdef inline Edge *edge(self, int32_t node, uint32_t char) noexcept nogil:
        """The slot of an edge, or the free one where it would be."""
        cdef uint64_t key = self.key(node, char)
        cdef uint64_t at = self.slot_of(key)
        while self.edges[at].key and self.edges[at].key != key:
            at = (at + 1) & self.mask
        return &self.edges[at]

    cdef inline uint64_t pair_slot(self, uint64_t pair) noexcept nogil:
        cdef uint64_t at = self.slot_of(pair + 1)
        while self.pairs[at] and self.pairs[at] != pair + 1:
            at = (at + 1) & self.mask
        return at

    cdef inline bint inside(self, uint32_t left, uint32_t right) noexcept nogil:
        """Whether any word holds these two side by side."""
        return self.pairs[self.pair_slot(<uint64_t>left << 21 | right)] != 0

    def encode(self, str text not None):
        """The ids of the best path, as the bytes of native int32; equal sums: see `score`."""
        cdef Run run
        self.search(text, &run, -1)
        try:
            return PyBytes_FromStringAndSize(<char *>run.ids, run.n_ids * sizeof(int32_t))
        finally:
            free(run.ids)

    def encode_many(self, list texts not None):
        """The ids of all texts end to end, and how many each has: bytes of int32, of int64.

        The GIL is released once for all of them.
        """
        cdef Py_ssize_t n = len(texts), i, before
        cdef Text *given = characters_of(texts)
        cdef Run run
        cdef int failed = 0
        counts = bytearray(n * sizeof(int64_t))
        cdef int64_t *sizes = <int64_t *>PyByteArray_AS_STRING(counts)
        run.n_ids, run.score, run.room, run.n_steps = 0, 0.0, 1024, 1024
        run.ids = <int32_t *>malloc(run.room * sizeof(int32_t))
        run.steps = <Step *>malloc(run.n_steps * sizeof(Step))
        try:
            if not run.ids or not run.steps:
                raise MemoryError("no memory to encode texts")
            with nogil:
                for i in range(n):
                    before = run.n_ids
                    failed = self.walk(given[i].kind, given[i].data, given[i].n, &run, -1)
                    if failed:
                        break
                    sizes[i] = run.n_ids - before
            if failed:
                raise MemoryError("no memory to encode texts")
            return (PyBytes_FromStringAndSize(<char *>run.ids, run.n_ids * sizeof(int32_t)),
                    bytes(counts))
        finally:
            free(given)
            free(run.ids)
            free(run.steps)

    def score(self, str text not None, Py_ssize_t without=-1):
        """The sum of scores of the best path, where the word of index `without` is left out.

        Of paths with equal sums the one with the longer last word is taken, at every place.
        """
        cdef Run run
        self.search(text, &run, <int32_t>without)
        free(run.ids)
        return run.score

    cdef int search(self, str text, Run *run, int32_t without) except -1:
        """Fill `run`; the caller frees run.ids. Texts of some length release the GIL."""
        cdef int kind = PyUnicode_KIND(text), failed
        cdef void *data = PyUnicode_DATA(text)
        cdef Py_ssize_t n = len(text)
        run.n_ids, run.score, run.room = 0, 0.0, n + 8
        run.n_steps = min(n + 1, 1024)
        run.ids = <int32_t *>malloc(run.room * sizeof(int32_t))
        run.steps = <Step *>malloc(run.n_steps * sizeof(Step))
        if not run.ids or not run.steps:
            failed = 1
        elif n < 256:
            failed = self.walk(kind, data, n, run, without)
        else:
            with nogil:
                failed = self.walk(kind, data, n, run, without)
        free(run.steps)
        if failed:
            free(run.ids)
            raise MemoryError(f"no memory to encode a text of {n} characters")
        return 0

    cdef int walk(self, int kind, void *data, Py_ssize_t n, Run *run,
                  int32_t without) noexcept nogil:
        """The search; 1 where memory ends.

        The text falls into pieces between two characters that no word holds side by side: every
        path passes there, so each piece is searched by itself and its sums begin at 0.
        """
        cdef Py_ssize_t start = 0, at, end, filled = 0, reach = 0
        cdef int32_t node
        cdef double here, score
        cdef uint32_t char, first
        cdef Node *found
        cdef Edge *slot
        cdef Step *step
        run.steps[0].best = 0.0
        for at in range(n):
            first = PyUnicode_READ(kind, data, at)
            if at == reach and at > start and not self.inside(
                    PyUnicode_READ(kind, data, at - 1), first):
                if self.emit(kind, data, start, at, run):
                    return 1
                start = filled = at
                run.steps[0].best = 0.0
            node = self.roots[first] if first < DIRECT else self.edge(0, first).child
            here = run.steps[at - start].best
            # A character that is no word stands for its bytes.
            end = at + 1
            if end > filled:
                filled = end
                if self.reserve(run, end - start):
                    return 1
                run.steps[end - start].best = -INFINITY
            step = &run.steps[end - start]
            found = &self.nodes[node]
            score = found.score if found.word >= 0 else self.byte_score * utf8_length(first)
            if found.word == without and without >= 0:
                score = -INFINITY
            if here + score > step.best:
                step.best, step.start, step.word = here + score, at, found.word
            reach = max(reach, end)
            if not node:
                continue
            while found.children and end < n:
                slot = self.edge(node, PyUnicode_READ(kind, data, end))
                if not slot.key:
                    break
                node = slot.child
                found = &self.nodes[node]
                end += 1
                if end > filled:
                    filled = end
                    if self.reserve(run, end - start):
                        return 1
                    run.steps[end - start].best = -INFINITY
                if found.word < 0 or found.word == without:
                    continue
                reach = max(reach, end)
                step = &run.steps[end - start]
                if here + found.score > step.best:
                    step.best, step.start, step.word = here + found.score, at, found.word
        return self.emit(kind, data, start, n, run) if n else 0

    cdef inline int reserve(self, Run *run, Py_ssize_t place) noexcept nogil:
        """Make room for a place of the piece; 1 where there is none."""
        cdef Step *grown
        if place < run.n_steps:
            return 0
        grown = <Step *>realloc(run.steps, 2 * run.n_steps * sizeof(Step))
        if not grown:
            return 1
        run.steps, run.n_steps = grown, 2 * run.n_steps
        return 0

    cdef int emit(self, int kind, void *data, Py_ssize_t start, Py_ssize_t end,
                  Run *run) noexcept nogil:
        """Append the ids of the best path of the piece [start, end); 1 where memory ends."""
        cdef Py_ssize_t place = end - start, count = 0, at
        cdef Step *steps = run.steps
        cdef int32_t *grown
        cdef uint8_t bytes[4]
        cdef int size
        run.score += steps[place].best
        while place:
            count += 1 if steps[place].word >= 0 else utf8_length(
                PyUnicode_READ(kind, data, start + place - 1))
            place = steps[place].start - start
        if run.n_ids + count > run.room:
            run.room = 2 * run.room + count
            grown = <int32_t *>realloc(run.ids, run.room * sizeof(int32_t))
            if not grown:
                return 1
            run.ids = grown
        run.n_ids += count
        at, place = run.n_ids, end - start
        while place:
            if steps[place].word >= 0:
                at -= 1
                run.ids[at] = self.first_word + steps[place].word
            else:
                size = utf8(PyUnicode_READ(kind, data, start + place - 1), bytes)
                while size:
                    size -= 1
                    at -= 1
                    run.ids[at] = self.first_byte + bytes[size]
            place = steps[place].start - start
        return 0


cdef inline int utf8_length(uint32_t char) noexcept nogil:
    return 1 + (char > 0x7F) + (char > 0x7FF) + (char > 0xFFFF)


cdef inline int utf8(uint32_t char, uint8_t *target) noexcept nogil:
    """The character's UTF-8, a lone surrogate's too; its length."""
    cdef int size = utf8_length(char), i
    cdef uint32_t code = char, lead = 0xF00
    if size == 1:
        target[0] = <uint8_t>code
        return 1
    for i in range(size - 1, 0, -1):
        target[i] = <uint8_t>(0x80 | (code & 0x3F))
        code >>= 6
    target[0] = <uint8_t>(lead >> size | code)
    return size
