# The kernels once more, compiled for avx512 (flags in setup.py).
include "../_kernels.pyx"
