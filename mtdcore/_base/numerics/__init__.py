"""Numerics that know nothing of the problem: filters, gridding, conjugate gradients, compiled kernels."""
