"""Vectorised FFTs for Numba kernels, side by side in the lanes of a vector; independent of multi-target detection."""
