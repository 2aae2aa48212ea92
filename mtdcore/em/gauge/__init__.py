"""The gauge: rotations, small shifts and the units of a prior, which the likelihood fixes weakly or not at all."""
