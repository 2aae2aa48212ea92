"""Reading ahead: an iterator run by one background thread, a few items in front of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: Finished tiles that wait for the backend: one to compute with next, one to even out slow reads.
TILES_AHEAD = 2


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def prefetched(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items in the same order, made by a thread that stays at most ``depth`` finished items ahead.

    The thread starts with the first item and ends with the iterator, also when the iterator is closed early. An exception
    in ``items`` is raised where its item would have come.
    """
    ready: queue.Queue[T | _Failure | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def produce() -> None:
        last: _Failure | None = None
        try:
            for item in items:
                ready.put(item)
                if stopped.is_set():
                    return
        except BaseException as error:  # re-raised by the consumer
            last = _Failure(error)
        ready.put(last)

    thread = threading.Thread(target=produce, name="mtdcore-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # a full queue would block the thread forever
            _drain(ready)
            thread.join(timeout=0.01)


def _drain(waiting: queue.Queue[T]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except queue.Empty:
        return
