"""Optimizers over the arena: AdamW, Muon, LoRA, learning-rate schedules, the moving average.

It may import `models` and what lies below it, no training loop. Begin with `adamw.py`;
`registry.py` makes an optimizer of a configuration.
"""
