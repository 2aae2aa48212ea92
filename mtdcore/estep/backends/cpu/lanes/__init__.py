"""Vectorised transforms for Numba kernels: several FFTs side by side, one in each lane of a vector. Nothing here knows of images or copies."""
