"""Micrograph files and their tables: listing, STAR, picks, and the files as a measurement."""
