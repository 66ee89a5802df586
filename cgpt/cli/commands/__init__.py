"""The commands of `cgpt`, one file each.

A command reads its options, calls the library and prints; it may import everything. Begin with
`chat.py`, and with `../app.py` for how options are declared.
"""
