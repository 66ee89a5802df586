"""Bytes on their way to and from files: atomic writing, opened model files, JSON, checksums.

It may import `runtime` and what lies below it. Begin with `atomic.py`, which writes every file of
cgpt, and `binary_file.py`, which opens one of format v1 (`format_v1.py`); what the records mean is
in `checkpoint`, `tokenizers` and `interop`.
"""
