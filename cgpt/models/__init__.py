"""Model families, each declared once as layers, and the passes that all of them share.

It may import `generation`, `nn` and what lies below them; optimizers and files build on it. Begin
with `gpt2.py`, a family whole; a new one is a file like it and a line of `registry.py`. `graph.py`
says what follows from its layers, `base.py` has the passes, `quantized.py` rounded weights.
"""
