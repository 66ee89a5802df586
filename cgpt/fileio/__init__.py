"""Bytes on their way to and from files: atomic writing, JSON text, checksums, decimal numbers.

It may import `errors` and `runtime`. Begin with `atomic.py`, which writes every file of cgpt;
the formats themselves are in `checkpoint` and `interop`.
"""
