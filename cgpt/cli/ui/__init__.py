"""What a terminal shows and asks: prompts, progress, tables, pictures.

It may import the library and click and rich, no command. Begin with `terminal.py` and `layout.py`.
"""
