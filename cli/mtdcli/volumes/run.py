"""One recovery of a volume as the command line runs it: interruptible, checkpointed, its results in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mtdcore as mtd
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.em.volumes.state import VolumeRecord, VolumeState, save_volume_checkpoint
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.volumes import so3
from mtdcore.model.volumes.maps import read_map, write_map
from mtdcore.model.volumes.projections import Projections
from mtdcore.results.volumes.copies import VolumeCopies, find_copies

from ..run.folder import RunFolder
from ..run.loop import iterate
from .parameters import VolumeParameters

if TYPE_CHECKING:
    from mtdcore.data import Measurement
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.em.volumes.recovery import VolumeRecovery
    from mtdcore.estep.backends import Backend

#: Number of views from which poses are chosen.
_POSES = 4608


def arguments(
    parameters: VolumeParameters, backend: Backend, micrographs: mtd.Micrographs | None
) -> dict[str, Any]:
    """Arguments of :func:`recover_volume` from the options, the backend and the differences between micrographs."""
    same = ("box_size", "symmetry", "diameter", "min_separation", "expected_count", "starts", "iterations")
    given = {
        name: getattr(parameters, name) for name in (*same, "views", "band", "subpixel", "parts", "seed")
    }
    given |= {name: getattr(parameters, name) for name in ("noise_std", "noise", "amplitude_std")}
    given |= {"micrographs": micrographs, "each": parameters.micrographs == "each", "backend": backend}
    if parameters.prior is not None:
        from mtdcore._base.optional import optional

        given["prior"] = optional("mtdbridge").load_prior(parameters.prior, box_size=parameters.box_size)
    if parameters.initial is not None:
        given["initial"] = read_map(parameters.initial)[0]
    return given


def run(
    measurement: Measurement,
    folder: RunFolder,
    parameters: VolumeParameters,
    backend: Backend,
    micrographs: mtd.Micrographs | None,
    owner: Mapping[str, Any],
    state: VolumeState | None,
) -> VolumeRecovery:
    """Start, or go on from a state, with progress and checkpoints of the run with this identity.

    Raises:
        Interrupted: a signal came; a checkpoint is in the folder.
    """

    def recovered(after: Callable[[VolumeState], None]) -> VolumeRecovery:
        given = arguments(parameters, backend, micrographs)
        return recover_volume(measurement, **given, callback=after, state=state)

    def save(current: VolumeState) -> None:
        save_volume_checkpoint(folder.checkpoint, current, owner)

    def shown(last: VolumeRecord) -> dict[str, str]:
        nats, copies = f"{last.evidence:.6g}", f"{last.expected_count:.4g}"
        return {"nats": nats, "copies": copies, "band": f"{last.band:.3f}"}

    return iterate(folder, parameters, state, recovered, save, shown)


def copies(
    measurement: Measurement, found: VolumeRecovery, parameters: VolumeParameters, backend: Backend
) -> VolumeCopies:
    """The copies of a recovered volume with their poses."""
    box, plan = parameters.box_size, found.plan
    views = Projections(box, _POSES // len(so3.group(plan.symmetry)), plan.symmetry, plan.last_band)
    coarse = views.coarse(max(40, plan.coarse_views), min(plan.coarse_band, plan.last_band))
    search = Search(views, coarse, plan.subpixel)
    return find_copies(found.read(measurement), found.seen, found.likelihood, search, backend=backend)


def write_results(
    folder: RunFolder, found: VolumeRecovery, poses: VolumeCopies, table: MicrographTable | None
) -> None:
    """Write the volume (also after the whitening filter, where there is one), the history, and the poses of the copies in pixels of the stored micrographs."""
    pixel_size = None if table is None else table.pixel_size
    found.save_mrc(folder.volume, pixel_size)
    if found.noise_model.whitening is not None:
        write_map(folder.whitened, found.seen, pixel_size)
    folder.write_history([asdict(record) for record in found.history])
    if table is None:
        poses.to_star(folder.poses)
    else:
        poses.to_star(folder.poses, table.names, table.bin, table.entries[0].pixel_size)
