"""Text to token ids and back: words, characters, byte pairs, chat templates, vocabulary files.

It may import `config`, `fileio` and what lies below them, nothing of graphs. Begin with
`tokenizer.py`; `vocabulary.py` learns what it holds.
"""
