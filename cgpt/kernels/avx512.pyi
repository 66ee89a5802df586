"""The kernels of avx512 have the names and types of the baseline module."""

from cgpt._kernels import *  # noqa: F403
