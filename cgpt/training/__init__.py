"""Training: the one loop, a run of both phases, epochs, callbacks, several processes.

It may import `llm` and all that lies below it. Begin with `trainer.py`; `run.py` is a run.
"""
