"""Autocorrelation analysis: moments of a measurement, and the target that fits them (docs/model.md 16)."""
