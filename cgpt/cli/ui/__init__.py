"""What a terminal shows and asks: prompts, progress, tables, curves.

It may import the library, click, rich and wcwidth, no command. Begin with `terminal.py` and
`layout.py`.
"""
