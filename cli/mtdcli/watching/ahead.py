"""The next micrograph is prepared while the last one is scored: preparation keeps one core busy, and scoring not all of the others."""

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
        """What :meth:`Preparation.read` gives, or raises; its file may have changed since it was begun."""
        last, self._next = self._next, None
        if last is None or last[:2] != (steps, Key.of(micrograph)):
            return steps.read(micrograph)
        return last[2].result()

    def close(self) -> None:
        """Wait for what has begun, and forget it."""
        self._thread.shutdown(cancel_futures=True)
        self._next = None


def with_next(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each with the one after it; None after the last."""
    return cast(Iterator[tuple[T, T | None]], pairwise(chain(items, (None,))))
