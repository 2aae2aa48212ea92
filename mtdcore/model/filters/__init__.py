"""Filters on copies: the optics of each micrograph, and the whitening filter of the noise."""
