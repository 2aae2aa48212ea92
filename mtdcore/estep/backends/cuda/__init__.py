"""The CUDA backend: cuFFT, and kernels of our own between the transforms. Imports CuPy when a device is opened."""
