"""Writes docs/api.md, which lists every public name of cgpt for mkdocstrings."""

from __future__ import annotations

from pathlib import Path

import cgpt

PAGE = Path(__file__).with_name("api.md")
HEAD = """# API reference

Made by `python docs/make_api.py` from `cgpt.__all__`; a test compares the two. By task, with
examples: [cgpt from Python](python.md).
"""


def page() -> str:
    """The text of the page: one entry for each public name, under the module that defines it."""
    text = HEAD
    for module, names in cgpt._PUBLIC.items():
        listed = [name for name in names if name in cgpt.__all__]
        text += f"\n## {module}\n" if listed else ""
        text += "".join(f"\n::: {module}.{name}\n" for name in listed)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
