"""Text to token ids and back: words, characters, byte pairs, chat templates, vocabulary files.

It may import `fileio`, `config` and what lies below them, no model. Begin with `tokenizer.py`;
`vocabulary.py` learns what it holds.
"""
