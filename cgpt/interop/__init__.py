"""Models in the files of other programs, in and out.

It may import `language_model`, `models`, `fileio` and what lies below them, not `checkpoint`. Begin
with `rustgpt.py`, the JSON exports of RustGPT-Chinese. A format is one module and a line in
`registry.py`; `fileio/file_kind.py` recognises its files by their first bytes.
"""
