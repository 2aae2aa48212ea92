"""Preconditioned conjugate gradients (Hestenes and Stiefel 1952; Saad, *Iterative methods*, algorithm 9.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from array_api_compat import array_namespace

from ..typing import Array

Linear: TypeAlias = Callable[[Array], Array]


def conjugate_gradients(
    operator: Linear,
    right: Array,
    start: Array,
    precondition: Linear = lambda residual: residual,
    max_steps: int = 50,
    tolerance: float = 1e-6,
    damping: float = 0.0,
) -> Array:
    """Solve ``operator(x) = right`` for a symmetric, non-negative operator.

    Args:
        operator: applied once a step.
        right: right side, real floating point of any array library.
        start: first guess, of the same shape; components in the null space of the operator keep its values.
        precondition: near the inverse of the operator, symmetric and positive definite.
        max_steps: largest number of steps.
        tolerance: stop when the preconditioned norm of the residual falls below this share of that of the right side.
        damping: multiple of the identity, added to the operator in the steps only: a solution stays a fixed point.

    Returns:
        The last iterate.
    """
    xp, solution = array_namespace(right), start
    residual = right - operator(start)
    direction = precondition(residual)
    square = float(xp.sum(residual * direction))
    stop = tolerance**2 * float(xp.sum(right * precondition(right)))
    for _ in range(max_steps):
        if square <= stop:
            break
        image = operator(direction)
        if damping:
            image = image + damping * direction
        length = square / float(xp.sum(direction * image))
        solution = solution + length * direction
        residual = residual - length * image
        conditioned = precondition(residual)
        previous, square = square, float(xp.sum(residual * conditioned))
        direction = conditioned + (square / previous) * direction
    return solution
