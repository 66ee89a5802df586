"""What is in a vocabulary, and how short it makes texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cgpt.tokenizers.tokenizer import Tokenizer


_SHOWN = 12  # words in a row of examples


def vocabulary_statistics(found: Tokenizer) -> dict[str, Any]:
    """Kind, number of tokens, words by their length in characters, examples."""
    from cgpt.tokenizers.vocabulary import FIRST_WORD

    tokens = found.token_bytes()[FIRST_WORD:]
    lengths = Counter(map(characters_in, tokens))
    words = [token_text(token) for token in tokens]
    longest = sorted(tokens, key=characters_in, reverse=True)
    return {
        "kind": found.kind,
        "tokens": len(found),
        "words": len(words),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "first": words[:_SHOWN],
        "longest": [token_text(token) for token in longest[:_SHOWN]],
    }


def characters_in(token: bytes) -> int:
    """Characters of a token; each byte that makes none counts as one."""
    return len(token.decode("utf-8", "replace"))


def token_text(token: bytes) -> str:
    """A token as text; bytes that make no character as \\x and two digits."""
    return token.decode("utf-8", "backslashreplace")


def text_statistics(found: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """What the texts become: tokens, characters and bytes of text a token, share of byte tokens."""
    import numpy as np

    from cgpt.tokenizers.vocabulary import FIRST_BYTE, FIRST_WORD

    characters = size = 0
    counts = np.zeros(len(found), dtype=np.int64)
    for text in texts:
        characters += len(text)
        size += len(text.encode("utf-8", "surrogatepass"))
        counts += np.bincount(
            np.frombuffer(found.encode_bytes(text), np.int32), minlength=len(found)
        )
    total = int(counts.sum())
    return {
        "text_characters": characters,
        "text_bytes": size,
        "text_tokens": total,
        "characters_per_token": characters / max(total, 1),
        "bytes_per_token": size / max(total, 1),
        "byte_tokens": float(counts[FIRST_BYTE:FIRST_WORD].sum() / max(total, 1)),
        "unused": int((counts[FIRST_WORD:] == 0).sum()),
    }
