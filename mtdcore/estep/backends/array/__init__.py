"""The E-step in array-API terms: NumPy, torch, and any other library with an FFT."""
