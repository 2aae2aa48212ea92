"""Iterations that show their progress, can be interrupted, and go on from a checkpoint; of an image or of a volume."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ..terminal.console import log
from ..terminal.progress import Progress
from ..terminal.stopping import Interrupted, Stop, hold_off, patiently
from .folder import RunFolder
from .parameters import Parameters


class _State(Protocol):
    @property
    def iteration(self) -> int: ...

    @property
    def history(self) -> Sequence[Any]: ...


class _Finished(Protocol):
    @property
    def state(self) -> Any: ...


class _Recovery(_Finished, Protocol):
    @property
    def history(self) -> Sequence[Any]: ...


S = TypeVar("S", bound=_State)
R = TypeVar("R", bound=_Recovery)
T = TypeVar("T")
F = TypeVar("F", bound=_Finished)


def state_to_resume(folder: RunFolder, resume: bool, load: Callable[[], S]) -> S | None:
    """The state from which a run is resumed; None: it starts from the beginning.

    Args:
        folder: of the run.
        resume: whether to resume a run in the folder.
        load: reads the checkpoint.

    Raises:
        CheckpointError: the checkpoint is of another run, missing or damaged.
    """
    if not (resume and folder.occupied):
        return None
    state = load()
    log(f"going on after iteration {state.iteration}")
    return state


def spent(state: _State | None) -> float:
    """Wall time in seconds of the iterations up to a state."""
    return 0.0 if state is None else sum(record.seconds for record in state.history)


def iterate(
    folder: RunFolder,
    parameters: Parameters,
    state: S | None,
    recover: Callable[[Callable[[S], None]], R],
    save: Callable[[S], None],
    shown: Callable[[Any], Mapping[str, str]],
) -> R:
    """Start, or go on from a state, with progress.

    Args:
        folder: locked run folder.
        parameters: how.
        state: to resume from; None: start from the beginning.
        recover: runs the iterations and calls its argument after each.
        save: writes a checkpoint.
        shown: the fields of the record of an iteration that the progress shows.

    Raises:
        Interrupted: a signal came; a checkpoint is in the folder.
    """
    done = 0 if state is None else state.iteration
    with (
        patiently(parameters.stop_file, done) as stop,
        Progress("recover", parameters.iterations, "iterations") as bar,
    ):

        def after_each(current: S) -> None:
            last = current.history[-1]
            stop.iteration = last.iteration
            if (
                last.iteration == 1
            ):  # all parameters have proved usable: files that --force replaces are removed now
                folder.clear()
            bar.update(last.iteration, shown(last))

        def recovered(after: Callable[[S], None]) -> R:
            recovery = recover(after)
            if not recovery.history:  # no iteration, so that `after_each` has not cleared the folder
                folder.clear()
            return recovery

        return saving(recovered, save, stop, parameters.checkpoint_every, after_each)


def saving(
    recover: Callable[[Callable[[T], None]], F],
    save: Callable[[T], None],
    stop: Stop,
    every: float,
    after_each: Callable[[T], None],
) -> F:
    """Run iterations and save their state at intervals, at the end, and when asked to stop.

    Args:
        recover: runs the iterations and calls its argument after each.
        save: writes a checkpoint.
        stop: polled after each iteration.
        every: seconds from one checkpoint to the next.
        after_each: called after each iteration.

    Raises:
        Interrupted: asked to stop; the last iteration is saved.
    """
    saved = time.monotonic()
    unsaved: T | None = None

    def after(current: T) -> None:
        nonlocal saved, unsaved
        unsaved = current
        after_each(current)
        stop.check()
        if time.monotonic() - saved >= every:
            save(current)
            saved, unsaved = time.monotonic(), None

    try:
        recovery = recover(after)
        save(recovery.state)  # a resumed run then has no iteration left to do
        unsaved = None
        stop.check()
    except Interrupted:
        hold_off()
        if unsaved is not None:
            save(unsaved)
        raise
    return recovery
