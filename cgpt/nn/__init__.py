"""What a graph is made of: parameters and their arena, layers, heads, the key-value cache.

It may import `kernels`, `config` and what lies below them, never a model. Begin with `layer.py` and
`linear.py`, then `planning.py`, which turns layers into calls and places their arrays.
"""
