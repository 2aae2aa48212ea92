"""Micrographs as they arrive: the arrivals, the ledger of those counted, and the run that each one updates."""
