"""Equality of the sums of E-steps."""

from __future__ import annotations

import numpy as np

from ..estep.statistics import Statistics
from ..estep.sums import SUMMED, TemplateSums


def assert_same_statistics(
    actual: TemplateSums | Statistics, expected: TemplateSums | Statistics, rtol: float
) -> None:
    """Every sum agrees, relative to the largest value of its array; the log-likelihood also to ``rtol`` nats."""
    ours, theirs = _numbers(actual), _numbers(expected)
    assert ours.keys() == theirs.keys()
    for name, b in theirs.items():
        scale = max(float(np.abs(b).max()), 1.0 if name == "log_likelihood" else 1e-9)
        np.testing.assert_allclose(ours[name], b, rtol=0, atol=rtol * scale, err_msg=name)


def assert_same_bits(actual: TemplateSums | Statistics, expected: TemplateSums | Statistics) -> None:
    """Every sum is equal, bit for bit."""
    ours, theirs = _numbers(actual), _numbers(expected)
    assert ours.keys() == theirs.keys()
    for name, b in theirs.items():
        np.testing.assert_array_equal(ours[name], b, err_msg=name)


def _numbers(found: TemplateSums | Statistics) -> dict[str, np.ndarray]:
    """Every sum by its name."""
    if isinstance(found, TemplateSums):
        return {name: np.asarray(getattr(found, name)) for name in SUMMED}
    values, arrays = found.record()
    numbers = {name: np.asarray(value) for name, value in values.items() if isinstance(value, int | float)}
    return arrays | numbers
