"""Sums in a fixed order, wherever their terms are computed.

Addition of floating-point numbers depends on its order, so the order is part of the result: a tree of ``FAN_IN`` terms
per node, the same in one process, on threads, and on a cluster where nodes are added up near their terms.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import reduce
from operator import add
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")

#: Terms of a node: few enough to share the work of adding, enough for a shallow tree.
FAN_IN = 16


class SummingExecutor(Executor, ABC):
    """An executor that adds up results where they are, so that only their sum travels."""

    @abstractmethod
    def map_sum(self, function: Callable[[S], T], items: Sequence[S]) -> T:
        """The tree sum of ``function(item)``, as :func:`map_sum` defines it."""


def map_sum(function: Callable[[S], T], items: Sequence[S], executor: Executor | None) -> T:
    """Sum of ``function(item)`` over one or more items: the same bits with any executor, and with none.

    Args:
        function: picklable where the executor needs it.
        items: one or more.
        executor: runs the function elsewhere; None: here, one item after another.
    """
    if isinstance(executor, SummingExecutor):
        return executor.map_sum(function, items)
    if executor is None:
        return tree_sum(map(function, items))
    futures = [executor.submit(function, item) for item in items]
    return tree_sum(future.result() for future in futures)


def tree_sum(terms: Iterable[T]) -> T:
    """Tree sum of one or more terms; one partial sum per level of the tree is kept."""
    nodes: list[T | None] = []  # the sum of the open node of each level, None where it has no terms yet
    counts: list[int] = []
    for entering in terms:
        term: T | None = entering
        for level in itertools.count():
            if level == len(nodes):
                nodes.append(None)
                counts.append(0)
            nodes[level] = _plus(nodes[level], term)
            counts[level] += 1
            if counts[level] < FAN_IN:
                break
            term, nodes[level], counts[level] = nodes[level], None, 0
    result: T | None = None
    for node in nodes:
        result = node if result is None else _plus(node, result)
    assert result is not None
    return result


def node_sum(terms: Sequence[T]) -> T:
    """Terms of one node, added from the left."""
    return reduce(add, terms)


def _plus(first: T | None, second: T | None) -> T | None:
    return second if first is None else add(first, second)
