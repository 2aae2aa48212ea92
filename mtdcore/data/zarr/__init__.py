"""Measurements on disk as Zarr arrays, read without trusting what is in the folder."""
