"""Pictures of trainings and of attention: by matplotlib (the extra `plot`), and of characters.

It may import everything but the benchmarks and the command line. Begin with `figures.py`:
`curves_figure` and `attention_figure` make what `save` writes, in a font of `fonts.py` that has the
characters of the labels.
"""
