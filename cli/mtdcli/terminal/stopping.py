"""Signals that ask a command to stop. Imports nothing heavy: a command listens before it loads the engine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from .console import log

#: Signals that stop a command; clusters send SIGUSR1 some time before they take a node away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

#: Longest time in seconds from a signal to the end of the current work.
_PATIENCE = 15.0

#: Seconds until the exception is raised again: an exception raised in a destructor is lost.
_AGAIN = 2.0


class Interrupted(BaseException):
    """The command was asked to stop. A BaseException, like KeyboardInterrupt, so that no reader of files catches it.

    Attributes:
        signum: the signal that asked.
        iteration: iterations that the run has completed.
    """

    def __init__(self, signum: int, iteration: int) -> None:
        super().__init__(f"interrupted after iteration {iteration}" if iteration else "interrupted")
        self.signum, self.iteration = signum, iteration


@dataclass
class Stop:
    """Whether a signal, or a file, has asked to stop.

    Attributes:
        signum: SIGINT, SIGTERM or SIGUSR1, once it came.
        file: a file whose appearance asks the same.
        iteration: completed iterations.
        patience: seconds that a signal leaves to code that polls; 0: the exception is raised at once.
    """

    signum: int | None = None
    file: Path | None = None
    iteration: int = 0
    patience: float = 0.0

    @property
    def asked(self) -> bool:
        """Whether to stop now."""
        return self.signum is not None or (self.file is not None and self.file.exists())

    def check(self) -> None:
        """Raise :class:`Interrupted` when asked to stop."""
        if self.asked:
            raise Interrupted(self.signum or signal.SIGTERM, self.iteration)


#: The object that the signal handlers set; one per process, as signal handlers are.
_listener: Stop | None = None


@contextmanager
def handling_signals() -> Iterator[Stop]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into :class:`Interrupted`, so that temporary files are removed and locks released.

    A second signal ends the process by its default action. A block within another one shares the :class:`Stop` of the outer one.
    """
    global _listener
    if _listener is not None:
        yield _listener
        return
    _listener = stop = Stop()
    before = {signum: signal.signal(signum, _ask) for signum in SIGNALS}
    alarm = signal.signal(signal.SIGALRM, _lose_patience)
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        _listener = None


@contextmanager
def patiently(file: Path | None = None, iteration: int = 0) -> Iterator[Stop]:
    """Listen, and leave code that polls :class:`Stop` time to finish its step; after ``_PATIENCE`` seconds :class:`Interrupted` is raised."""
    with handling_signals() as stop:
        before = stop.file, stop.patience
        stop.file, stop.iteration, stop.patience = file or stop.file, iteration, _PATIENCE
        try:
            yield stop
        finally:
            stop.file, stop.patience = before


def hold_off() -> None:
    """Delay the exception of an earlier signal by ``_PATIENCE`` seconds: an interruption is being handled."""
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _AGAIN)


@contextmanager
def continued(ctx: click.Context, again: str, force: bool) -> Iterator[None]:
    """After an interruption, log the command line that continues the run, and exit.

    Args:
        ctx: of the command.
        again: the command line.
        force: whether the run replaces earlier files; before its first iteration it is then repeated with ``--force``.
    """
    try:
        yield
    except Interrupted as interruption:
        begun = interruption.iteration or not force
        log(f"{interruption}; continue with: {again} {'--resume' if begun else '--force'}")
        ctx.exit(128 + interruption.signum)


def _ask(signum: int, frame: FrameType | None) -> None:
    if _listener is None:  # the signal came as the block was left
        return
    _listener.signum = signum
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _listener.patience or _AGAIN, _AGAIN)
    if not _listener.patience:
        raise Interrupted(signum, _listener.iteration)
    with suppress(RuntimeError):  # raised if the signal came while a line was being written
        log("stopping after this step; once more to stop at once")


def _lose_patience(signum: int, frame: FrameType | None) -> None:
    if _listener is not None:
        raise Interrupted(_listener.signum or signum, _listener.iteration)
