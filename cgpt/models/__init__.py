"""Model families, each declared once as layers, and the passes that all of them share.

It may import `nn` and what lies below it; tokenizers, training and files build on it. Begin with
`base.py` (forward, backward, logits) and `gpt2.py`; `registry.py` names the families.
"""
