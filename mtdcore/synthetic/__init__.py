"""Measurements with a known truth: targets, placement and simulators."""
