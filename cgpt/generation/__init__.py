"""From logits to tokens and text: sampling, batches, beams, speculation, streams, prefix cache.

It may import `nn`, `tokenizers` and what lies below them: whatever has `nn.inference.Inference` can
generate. Begin with `generate.py` and `sampling.py`.
"""
