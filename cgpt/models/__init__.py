"""Model families, each declared once as layers, and the passes that all of them share.

It may import `generation`, `nn` and what lies below them; optimizers and files build on it. Begin
with `base.py` (forward, backward, logits) and `gpt2.py`; `registry.py` names the families.
"""
