"""The CUDA backend: cuFFT, and our own kernels between the transforms. CuPy is imported when a device is opened."""
