"""Volumes straight from micrographs: the plan of a run, its start, its state and its loop (docs/model.md 14)."""
