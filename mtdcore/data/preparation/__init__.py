"""From raw micrographs to what the likelihood assumes: background, noise spectrum, CTF, binning."""
