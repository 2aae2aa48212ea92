"""Preparation of the next micrograph while the last one is scored: preparation uses one core, which scoring leaves free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from typing import TypeVar, cast

from mtdcore.data.micrographs.listing import Micrograph
from mtdcore.data.preparation.prepare import Preparation, Prepared

from .arrivals import Key

T = TypeVar("T")


class Ahead:
    """Prepares one micrograph ahead, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "mtd-ahead")
        self._next: tuple[Preparation, Key, Future[Prepared]] | None = None

    def begin(self, steps: Preparation, micrograph: Micrograph) -> None:
        """Prepare a micrograph, unless it has begun."""
        key = Key.of(micrograph)
        if self._next is None or self._next[:2] != (steps, key):
            self._next = steps, key, self._thread.submit(steps.read, micrograph)

    def take(self, steps: Preparation, micrograph: Micrograph) -> Prepared:
        """The result or exception of :meth:`Preparation.read`; the file may have changed since its preparation began."""
        last, self._next = self._next, None
        if last is None or last[:2] != (steps, Key.of(micrograph)):
            return steps.read(micrograph)
        return last[2].result()

    def close(self) -> None:
        """Wait for a preparation in progress, and discard its result."""
        self._thread.shutdown(cancel_futures=True)
        self._next = None


def with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each item with the next one; None after the last."""
    return cast(Iterator[tuple[T, T | None]], pairwise(chain(items, (None,))))
