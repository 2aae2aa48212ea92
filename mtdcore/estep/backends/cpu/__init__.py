"""The CPU backend: Numba kernels and threads."""
