"""Measurements with a known truth: targets, places and the simulator."""
