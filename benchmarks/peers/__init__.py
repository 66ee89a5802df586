"""cgpt beside other libraries; not shipped. Run from the repository's folder:

    python -m benchmarks.peers train --config S --peer torch,torch-malloc
    python -m benchmarks.peers --help
    python -m benchmarks.peers.learning --data FOLDER
    python -m benchmarks.peers.tokenizer

The peers are those of `pip install 'cgpt[peers]'`; whichever is named has to be installed. Every
side runs in a process of its own, in turn (cgpt/bench/workers.py). Modules that run in a peer's
process import no kernels of cgpt at their top: these set how long OpenMP's threads wait.
"""
