"""Models in the files of other programs, in and out.

It may import `language_model`, `models`, `fileio` and what lies below them, not `checkpoint`, which
loads what it reads. Begin with `rustgpt.py`, the JSON exports of RustGPT-Chinese.
"""
