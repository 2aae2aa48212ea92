"""The recoveries for the verdict on a volume: interruptible, each with its own checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mtdcore.em.volumes.recover import recover_volume
from mtdcore.em.volumes.state import VolumeState, load_volume_checkpoint, save_volume_checkpoint
from mtdcore.errors import CheckpointError
from mtdcore.results.volumes.draws import (
    DrawsState,
    VolumeDraws,
    load_draws,
    posterior_volumes,
    save_draws,
)

from ..run.folder import RunFolder
from ..run.loop import saving
from ..terminal.console import log
from ..terminal.stopping import Stop

if TYPE_CHECKING:
    from mtdcore.data import Measurement
    from mtdcore.em.volumes.recovery import VolumeRecovery

T = TypeVar("T")


@dataclass(frozen=True)
class Repetitions:
    """A :class:`mtdcore.results.volumes.trials.Repeat` that continues an interrupted recovery from its checkpoint, with the same bits.

    Attributes:
        folder: of the run, locked.
        owner: the identity of the run.
        every: seconds from one checkpoint to the next.
        stop: polled after each iteration.
        before: prefix of the names.
    """

    folder: RunFolder
    owner: Mapping[str, Any]
    every: float
    stop: Stop
    before: str = ""

    def __call__(self, name: str, measurement: Measurement, /, **options: Any) -> VolumeRecovery:
        """The recovery of this name; one that was finished before repeats only its last E-step.

        Raises:
            Interrupted: a signal came; a checkpoint is in the folder.
        """
        name = self.before + name
        path, owner = self.folder.repetition(name), {**self.owner, "repetition": name}
        state = _left(path, owner, load_volume_checkpoint, "this recovery is")

        def recovered(after: Callable[[VolumeState], None]) -> VolumeRecovery:
            return recover_volume(measurement, **options, callback=after, state=state)

        def save(current: VolumeState) -> None:
            save_volume_checkpoint(path, current, owner)

        return saving(recovered, save, self.stop, self.every, lambda _: None)

    def draws(
        self, measurement: Measurement, found: VolumeRecovery, count: int, **options: Any
    ) -> VolumeDraws:
        """Draws from the posterior of a recovery; arguments as of :func:`posterior_volumes`.

        Raises:
            Interrupted: a signal came; a checkpoint is in the folder.
        """
        path, owner = self.folder.repetition("draws"), {**self.owner, "repetition": "draws"}
        state = _left(path, owner, load_draws, "the draws are")

        def drawn(after: Callable[[DrawsState], None]) -> VolumeDraws:
            return posterior_volumes(measurement, found, count, **options, callback=after, state=state)

        def save(current: DrawsState) -> None:
            save_draws(path, current, owner)

        return saving(drawn, save, self.stop, self.every, lambda _: None)


def _left(
    path: Path, owner: Mapping[str, Any], load: Callable[[Path, Mapping[str, Any]], T], what: str
) -> T | None:
    """The content of a checkpoint; None: there is none, or it does not fit, which is logged."""
    if not path.exists():
        return None
    try:
        return load(path, owner)
    except CheckpointError:
        log(f"warning: {path} is damaged, or of other parameters: {what} made anew")
        return None
