"""Data files -> records -> tokens -> packed batches, and the token cache of large corpora.

It may import `tokenizers`, `fileio` and what lies below them, no model. Begin with `reader.py`
(files to documents): `files.py` finds and unpacks them, `text_rows.py` and `table_rows.py` read
their rows, `records.py` says which forms a row may have; `encoding.py` makes tokens of documents,
`packing.py` batches of those.
"""
