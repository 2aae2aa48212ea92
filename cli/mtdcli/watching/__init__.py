"""Micrographs as they arrive: which are there, what has been counted, and the run that goes on with each."""
