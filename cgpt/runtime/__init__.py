"""The process that cgpt runs in: processors, memory, forks, interrupts and cancellation.

Nothing here knows of models. It may import `validation` and what lies below it. Begin with
`processors.py`, and with `interrupts.py` for updates that nothing may leave half done.
"""
