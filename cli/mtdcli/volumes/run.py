"""One recovery of a volume as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mtdcore as mtd
from mtdcore.em.checkpoint import fingerprint
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.em.volumes.state import VolumeState, save_volume_checkpoint
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.maps import read_map
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.volumes.copies import VolumeCopies, find_copies

from ..run.folder import RunFolder
from ..run.job import transfer_digest
from ..run.parameters import by_content
from ..terminal.progress import Progress
from ..terminal.stopping import Interrupted, hold_off, patiently

if TYPE_CHECKING:
    from mtdcore.data import Measurement
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.estep.backends import Backend

#: Parameters that a continuation may change, because they change no bit of the result; of the device, what its name came to counts.
_FREE = ("checkpoint_every", "stop_file", "halves", "trust", "device")

#: Views that poses are chosen from.
_POSES = 4608


def identity(
    measurement: Measurement,
    parameters: Mapping[str, Any],
    backend: Backend,
    micrographs: mtd.Micrographs | None,
) -> dict[str, Any]:
    """What a run depends on. Two runs with equal identities end with the same bits."""
    return {
        "version": mtd.__version__,
        "measurement": fingerprint(measurement),
        **by_content({name: value for name, value in parameters.items() if name not in _FREE}),
        **transfer_digest(micrographs),
        "device": backend.name,
    }


def arguments(
    parameters: Mapping[str, Any], backend: Backend, micrographs: mtd.Micrographs | None
) -> dict[str, Any]:
    """Arguments of :func:`recover_volume` from the options, where to compute, and what tells the micrographs apart."""
    same = ("box_size", "symmetry", "diameter", "min_separation", "expected_count", "starts", "iterations")
    given = {
        name: parameters[name] for name in (*same, "views", "band", "parts", "seed", "noise_std", "noise")
    }
    given |= {"micrographs": micrographs, "backend": backend}
    if parameters["prior"] is not None:
        from mtdcore._base.optional import optional

        given["prior"] = optional("mtdbridge").load_prior(
            parameters["prior"], box_size=parameters["box_size"]
        )
    if parameters["initial"] is not None:
        given["initial"] = read_map(parameters["initial"])[0]
    return given


def run(
    measurement: Measurement,
    folder: RunFolder,
    parameters: Mapping[str, Any],
    backend: Backend,
    micrographs: mtd.Micrographs | None,
    owner: Mapping[str, Any],
    state: VolumeState | None,
) -> VolumeRecovery:
    """Start, or go on from a state, with progress and checkpoints that belong to an :func:`identity`.

    Raises:
        Interrupted: a signal came; a checkpoint is in the folder.
    """
    saved, unsaved = time.monotonic(), state
    done = 0 if state is None else state.iteration
    with (
        patiently(parameters["stop_file"], done) as stop,
        Progress("recover", parameters["iterations"], "iterations") as bar,
    ):

        def after(current: VolumeState) -> None:
            nonlocal saved, unsaved
            unsaved, last = current, current.history[-1]
            stop.iteration = last.iteration
            if last.iteration == 1:  # every parameter has proved usable: what --force replaces may go
                folder.clear()
            bar.update(
                last.iteration,
                {
                    "nats": f"{last.evidence:.6g}",
                    "copies": f"{last.expected_count:.4g}",
                    "band": f"{last.band:.3f}",
                },
            )
            stop.check()
            if time.monotonic() - saved >= parameters["checkpoint_every"]:
                save_volume_checkpoint(folder.checkpoint, current, owner)
                saved, unsaved = time.monotonic(), None

        try:
            found = recover_volume(
                measurement, **arguments(parameters, backend, micrographs), callback=after, state=state
            )
        except Interrupted:
            hold_off()
            if unsaved is not None:
                save_volume_checkpoint(folder.checkpoint, unsaved, owner)
            raise
    save_volume_checkpoint(folder.checkpoint, found.state, owner)
    return found


def copies(
    measurement: Measurement, found: VolumeRecovery, parameters: Mapping[str, Any], backend: Backend
) -> VolumeCopies:
    """The copies of a recovered volume with their poses."""
    box, plan = parameters["box_size"], found.plan
    views = Projections(box, _POSES // len(so3.group(plan.symmetry)), plan.symmetry, plan.last_band)
    coarse = views.coarse(max(40, plan.coarse_views), min(plan.coarse_band, plan.last_band))
    search = Search(views, coarse)
    return find_copies(found.read(measurement), found.seen, found.likelihood, search, backend=backend)


def save(
    folder: RunFolder, found: VolumeRecovery, poses: VolumeCopies, table: MicrographTable | None
) -> None:
    """Volume, history, and the poses of the copies in pixels of the stored micrographs."""
    found.save_mrc(folder.volume, None if table is None else table.pixel_size)
    folder.write_history([asdict(record) for record in found.history])
    if table is None:
        poses.to_star(folder.poses)
    else:
        poses.to_star(folder.poses, table.names, table.bin, table.entries[0].pixel_size)
