"""Volumes from micrographs without picking: the plan of a run, its start, its state and its loop (docs/model.md 14)."""
