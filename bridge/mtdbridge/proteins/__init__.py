"""Priors of proteins: coordinates in, densities and projections drawn on the fly, denoisers out.

``structures`` holds coordinates as weighted points, ``coordinates`` reads PDB and mmCIF files, ``drawing`` evaluates
band-limited densities, ``batches`` draws random ones, ``training`` trains a denoiser on them.
"""
