"""Live display of a running recovery, in a notebook or on a terminal."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol


class _Watched(Protocol):
    """The state of a run, as a callback receives it."""

    @property
    def history(self) -> Sequence[Any]: ...


class Live:
    """A callback that shows a running recovery: ``recover(..., callback=mtd.results.Live())``.

    In a notebook one picture is redrawn in place: estimate, evidence and expected copies over the iterations. Elsewhere a line goes to
    stderr every few iterations. One object serves any number of runs, one after another; it never stops a run.

    Args:
        seconds: least time between two pictures, so that drawing takes a small share of a quick run. The last picture may be older than the
            result by this time; the result has a picture of its own.
        every: number of iterations from one line to the next.
    """

    def __init__(self, seconds: float = 2.0, every: int = 5) -> None:
        self.seconds, self.every = seconds, every
        self._iteration, self._drawn = 0, -math.inf
        self._handle: Any = None

    def __call__(self, state: _Watched) -> None:
        """Show a state of :func:`mtdcore.recover` or :func:`mtdcore.recover_volume`."""
        iteration = len(state.history)
        if iteration <= self._iteration:  # another run
            self._drawn, self._handle = -math.inf, None
        self._iteration = iteration
        if not _in_notebook():
            if iteration % self.every == 0:
                print(repr(state), file=sys.stderr)
        elif time.monotonic() - self._drawn >= self.seconds:
            if self._handle is None:
                show = importlib.import_module("IPython.display").display
                self._handle = show(state, display_id=True)
            else:
                self._handle.update(state)
            self._drawn = time.monotonic()


def _in_notebook() -> bool:
    """Whether this runs in an IPython kernel (the IPython terminal shows no pictures)."""
    shell = sys.modules.get("IPython")
    return shell is not None and hasattr(shell.get_ipython(), "kernel")
