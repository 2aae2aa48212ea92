"""Autocorrelation analysis: moments of a measurement, and the target that they show (docs/model.md 16)."""
