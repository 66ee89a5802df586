"""Models in the files of other programs, in and out.

It may import `checkpoint` and what lies below it. Begin with `rustgpt.py`, the JSON exports of
RustGPT-Chinese.
"""
