"""Measurements of this machine, of cgpt on it and of its peers; `cgpt bench` prints them.

shapes.py, measure.py    what is measured: shapes, values, ratios, how a repeat is timed
workers.py, worker.py    every side runs in a process of its own that measures when it is told to
machine.py               what the machine can do at the most, measured between the repeats
ours.py, torch_side.py   the sides of a training measurement
train.py, kernels.py ... one measurement each: generators of Measurement
table.py                 their names, peers and options

The modules of other sides never import cgpt.kernels: it sets how long OpenMP's threads wait.
"""
