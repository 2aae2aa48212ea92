"""Preparation of raw micrographs for the likelihood: background, noise spectrum, CTF, binning."""
