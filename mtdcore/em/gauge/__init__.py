"""The gauge: rotations and small shifts of the target that the likelihood barely fixes."""
