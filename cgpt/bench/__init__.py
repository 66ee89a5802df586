"""Measurements of this machine, of cgpt on it and of its peers; `cgpt bench` prints them.

shapes.py, measure.py    what is measured: shapes, values, ratios, how a repeat is timed
workers.py, worker.py    every side runs in a process of its own that measures when it is told to
machine.py               what the machine can do at the most, measured between the repeats
ours.py, torch_side.py   cgpt's and PyTorch's side; decoders.py: those that only decode
formats.py, weights.py   the same random model in the file format of every side
dialogues.py, first.py   what packing and startup run in processes of their own
train.py, decode.py, kernels.py, save.py, grids.py, packing.py, startup.py, inside.py
                         the measurements: generators of Measurement
table.py                 their names, peers and options

The modules of other sides never import cgpt.kernels: it sets how long OpenMP's threads wait.
"""
