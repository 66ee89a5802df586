"""Data files -> records -> tokens -> packed batches, and the token cache of large corpora.

It may import `tokenizers`, `fileio` and what lies below them, no model. Begin with `reader.py`
(files to documents) and `batches.py` (documents to batches).
"""
