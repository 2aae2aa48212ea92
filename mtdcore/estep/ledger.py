"""Sums of an E-step for each micrograph, kept if the likelihood distinguishes micrographs.

A ledger is an (n, 5) NumPy float64 array of rows (micrograph, sites, valid pixels, residual energy at the target of the E-step, expected
copies), in order of micrographs. Its numbers are not weighted by noise levels.
"""

from __future__ import annotations

import numpy as np


def entry(micrograph: int, sites: float, pixels: float, residual: float, copies: float) -> np.ndarray:
    """The ledger of a part of one micrograph."""
    return np.array([[micrograph, sites, pixels, residual, copies]], np.float64)


def joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    """Two ledgers joined, with one row per micrograph; None: no tiles, or micrographs that are not distinguished."""
    if first is None or second is None:
        return second if first is None else first
    rows = np.concatenate([first, second])
    micrographs, row = np.unique(rows[:, 0], return_inverse=True)
    ledger = np.zeros((len(micrographs), rows.shape[1]))
    np.add.at(ledger, row, rows)
    ledger[:, 0] = micrographs
    return ledger
