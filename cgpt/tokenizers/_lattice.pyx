"""The most probable path of a text through a vocabulary, in one pass.

The words lie in a trie whose edges are one hash table: (node, character) -> child. From every
place of the text the trie is walked as far as it goes, and each word that ends on the way may
improve the best path to its end. So a text costs a few look-ups a character, whatever the size of
the vocabulary.

Source: Viterbi 1967, IEEE Trans. Inf. Theory 13(2), for the path; Fredkin 1960, CACM 3(9), for the
trie.
"""

from libc.math cimport INFINITY

include "encoding.pxi"

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
    Tokens *tokens
    double score            # of all pieces before


cdef class Lattice(Encoder):
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

    cdef int append(self, Text text, Tokens *tokens) noexcept nogil:
        """The ids of the best path, equal sums: see `score`; 1 where memory ends."""
        cdef double score
        return self.search(text, tokens, &score, -1)

    def score(self, str text not None, Py_ssize_t without=-1):
        """The sum of scores of the best path, where the word of index `without` is left out.

        Of paths with equal sums the one with the longer last word is taken, at every place.
        """
        cdef Text given = characters_of(text)
        cdef Tokens tokens = Tokens(NULL, 0, 0)
        cdef double score = 0
        cdef int failed
        with nogil:
            failed = self.search(given, &tokens, &score, <int32_t>without)
        free(tokens.ids)
        if failed:
            raise MemoryError(f"no memory to encode a text of {given.n} characters")
        return score

    cdef int search(self, Text text, Tokens *tokens, double *score,
                    int32_t without) noexcept nogil:
        """The best path: its ids behind those found before, its sum; 1 where memory ends."""
        cdef Run run
        cdef int failed = 1
        run.tokens, run.score, run.n_steps = tokens, 0.0, min(text.n + 1, 1024)
        run.steps = <Step *>malloc(run.n_steps * sizeof(Step))
        if run.steps:
            failed = self.walk(text, &run, without)
        free(run.steps)
        score[0] = run.score
        return failed

    cdef int walk(self, Text text, Run *run, int32_t without) noexcept nogil:
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
        for at in range(text.n):
            first = character(text, at)
            if at == reach and at > start and not self.inside(
                    character(text, at - 1), first):
                if self.emit(text, start, at, run):
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
            while found.children and end < text.n:
                slot = self.edge(node, character(text, end))
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
        return self.emit(text, start, text.n, run) if text.n else 0

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

    cdef int emit(self, Text text, Py_ssize_t start, Py_ssize_t end, Run *run) noexcept nogil:
        """Append the ids of the best path of the piece [start, end); 1 where memory ends."""
        cdef Py_ssize_t place = end - start, count = 0, at
        cdef Step *steps = run.steps
        cdef int32_t *ids
        cdef uint8_t bytes[4]
        cdef int size
        run.score += steps[place].best
        while place:
            count += 1 if steps[place].word >= 0 else utf8_length(
                character(text, start + place - 1))
            place = steps[place].start - start
        ids = room_for(run.tokens, count)
        if not ids:
            return 1
        run.tokens.n += count
        at, place = count, end - start
        while place:
            if steps[place].word >= 0:
                at -= 1
                ids[at] = self.first_word + steps[place].word
            else:
                size = utf8(character(text, start + place - 1), bytes)
                while size:
                    size -= 1
                    at -= 1
                    ids[at] = self.first_byte + bytes[size]
            place = steps[place].start - start
        return 0
