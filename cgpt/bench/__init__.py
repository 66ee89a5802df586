"""Measurements of cgpt and of this machine; `cgpt bench` prints them.

May import everything but cli. Begin with table.py, which names every measurement; each is a
generator of Measurement (measure.py) that measures in processes of its own (workers.py).
What compares cgpt with other libraries is in benchmarks/peers/, outside the package.
"""
