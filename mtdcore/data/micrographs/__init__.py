"""Micrograph files and the tables about them: listing, STAR, picks, and the files as a measurement."""
