"""From logits to tokens and text: sampling, batches, beams, speculation, streams, prefix cache.

It may import `models`, `tokenizers` and what lies below them. Begin with `generate.py` and
`sampling.py`.
"""
