"""Training: the one loop, a run of both phases, epochs, callbacks, several processes.

It may import every package but `interop` and `cli`. Begin with `trainer.py`; `run.py` is a run.
"""
