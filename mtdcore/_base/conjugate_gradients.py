"""Preconditioned conjugate gradients (Hestenes and Stiefel 1952; Saad, *Iterative methods*, algorithm 9.1)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Linear = Callable[[np.ndarray], np.ndarray]


def conjugate_gradients(
    operator: Linear,
    right: np.ndarray,
    start: np.ndarray,
    precondition: Linear,
    steps: int,
    tolerance: float,
) -> np.ndarray:
    """Solve ``operator(x) = right`` for a symmetric positive definite operator.

    Args:
        operator: applied once a step.
        right: right side.
        start: first guess, of the same shape.
        precondition: near the inverse of the operator, symmetric and positive definite.
        steps: largest number of steps.
        tolerance: stop when the preconditioned norm of the residual falls below this share of that of the right side.

    Returns:
        The last iterate, of the shape and dtype of ``right``.
    """
    solution = start
    residual = right - operator(start)
    direction = precondition(residual)
    square = float(np.vdot(residual, direction))
    stop = tolerance**2 * float(np.vdot(right, precondition(right)))
    for _ in range(steps):
        if square <= stop:
            break
        image = operator(direction)
        length = square / float(np.vdot(direction, image))
        solution = solution + length * direction
        residual = residual - length * image
        conditioned = precondition(residual)
        previous, square = square, float(np.vdot(residual, conditioned))
        direction = conditioned + (square / previous) * direction
    return solution
