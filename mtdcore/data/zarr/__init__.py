"""Measurements on disk as Zarr arrays, read without trusting the content of the folder."""
