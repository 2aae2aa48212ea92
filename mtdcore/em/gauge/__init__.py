"""The gauge: what the likelihood barely fixes or leaves to choose, rotations, small shifts, and the units of a prior."""
