"""EM over parts of a measurement, and over micrographs that come one after another."""
