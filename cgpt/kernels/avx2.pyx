# The kernels once more, compiled for avx2 (flags in setup.py).
include "../_kernels.pyx"
