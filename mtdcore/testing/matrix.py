"""Covering arrays: few rows of a product in which every pair of levels occurs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import combinations, product
from typing import Any

import pytest


def covering(
    factors: Sequence[Sequence[Hashable]], allowed: Callable[..., bool] = lambda *row: True
) -> list[tuple[Any, ...]]:
    """A few rows of a product that contain every pair of levels of the whole product.

    Greedy: each row is the first of those with the most new pairs.

    Args:
        factors: levels of each factor.
        allowed: called with a row; False leaves it out.
    """
    pairs = {row: set(combinations(enumerate(row), 2)) for row in product(*factors) if allowed(*row)}
    apart, chosen = set().union(*pairs.values()), []
    while apart:
        chosen.append(max(pairs, key=lambda row: len(pairs[row] & apart)))
        apart -= pairs[chosen[-1]]
    return chosen


def matrix(
    names: str, *factors: Sequence[Hashable], allowed: Callable[..., bool] = lambda *row: True
) -> pytest.MarkDecorator:
    """The product of factors as test cases, of which all but a covering array are marked slow.

    Args:
        names: of the arguments, separated by commas; ``backend`` stands for its precision.
        factors: levels of each.
        allowed: called with a row; False leaves it out.
    """
    quick = set(covering(factors, allowed))
    rows = [row for row in product(*factors) if allowed(*row)]
    cases = [pytest.param(*row, marks=() if row in quick else pytest.mark.slow) for row in rows]
    return pytest.mark.parametrize(names, cases, indirect=["backend"])
