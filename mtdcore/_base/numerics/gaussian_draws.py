"""Draws of a Gaussian whose precision is given as an operator, by the Lanczos process (Chow and Saad, SIAM J. Sci. Comput. 36 (2014) A588)."""

from __future__ import annotations

import numpy as np

from .conjugate_gradients import Linear


def gaussian_draw(
    precision: Linear,
    root: Linear,
    white: np.ndarray,
    max_steps: int = 50,
    tolerance: float = 1e-3,
) -> np.ndarray:
    """A draw from ``N(0, A^-1)``: ``G M^(-1/2) w``, with ``M = G A G``, from Krylov vectors of M and w.

    If G is near ``A^(-1/2)``, M is near the identity, and the number of steps is that of conjugate gradients with the
    preconditioner G G.

    Args:
        precision: A, symmetric and positive definite.
        root: G, symmetric and positive definite.
        white: w, float64 numbers drawn from N(0, 1).
        max_steps: largest number of steps; each keeps one array like ``white``.
        tolerance: relative change of the draw at which it stops.

    Returns:
        Like ``white``.
    """
    length = float(np.linalg.norm(white))
    basis, found = [white.ravel() / length], np.zeros(0)
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(max_steps):
        image = root(precision(root(basis[-1].reshape(white.shape)))).ravel()
        diagonal.append(float(basis[-1] @ image))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        before, found = np.append(found, 0.0), vectors @ (vectors[0] / np.sqrt(values))
        for _ in range(2):  # twice: after one pass rounding errors bring earlier directions back
            for one in basis:
                image = image - (one @ image) * one
        rest = float(np.linalg.norm(image))
        done = np.linalg.norm(found - before) <= tolerance * np.linalg.norm(found)
        if done or rest <= 1e-12 * abs(diagonal[0]):
            break
        beside.append(rest)
        basis.append(image / rest)
    drawn = length * (found @ np.stack(basis[: len(found)]))
    return np.asarray(root(drawn.reshape(white.shape)))
