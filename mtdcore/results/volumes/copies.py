"""Copies of a volume in the micrographs: positions, probabilities and Euler angles, for further work in RELION."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from ..._base.numerics.conversion import on_host
from ...data import Measurement, open_measurement
from ...data.micrographs.star import write_star
from ...data.micrographs.table import names_of
from ...estep.backends import Backend, get_backend
from ...estep.expectation import check_box_fits
from ...estep.volumes.expectation import volume_cut, with_views
from ...estep.volumes.posterior import Posteriors, TilePosterior
from ...estep.volumes.templates import Search, templates_of
from ...model.likelihood import WindowLikelihood
from ...model.volumes import so3
from ..detections.peaks import apart, check_threshold, grown, halo, neighbourhood, peaks
from ..detections.places import top

#: Spacing in pixels of the quadratic that locates a copy between pixels.
_STEP = 0.5

#: Pixels either way over which a copy's posterior is summed; fewer if another copy may be closer.
_SPREAD = 2


@dataclass(frozen=True, eq=False)
class VolumeCopies:
    """Copies found, the most probable first.

    Attributes:
        micrograph: (N,) int64 index of the micrograph.
        row: (N,) float64 row of the top-left corner of the box, at the top of the quadratic through the log-likelihood ratio at half pixels.
        column: (N,) float64 column of the same corner.
        probability: (N,) float64 posterior probability that a copy is there, within two pixels.
        rotations: (N, 3, 3) float64, the most probable view at the corner.
        amplitude: (N,) float64 posterior mean of the factor of the volume in the copy; 1 if all are alike.
        box_size: side L of the box in pixels.
    """

    micrograph: np.ndarray
    row: np.ndarray
    column: np.ndarray
    probability: np.ndarray
    rotations: np.ndarray
    amplitude: np.ndarray
    box_size: int

    def __len__(self) -> int:
        return len(self.row)

    @property
    def angles(self) -> np.ndarray:
        """(N, 3) RELION angles (rot, tilt, psi) in degrees."""
        return so3.to_euler(self.rotations)

    def to_star(
        self,
        path: str | Path,
        micrographs: Sequence[str] | None = None,
        binning: int = 1,
        pixel_size: float | None = None,
    ) -> None:
        """Write ``data_particles`` with coordinates of box centres and angles of the view.

        RELION projects the map of the volume at these angles into the copy, centre on voxel L // 2 (docs/conventions.md).

        Args:
            path: the file, replaced.
            micrographs: name of each micrograph of the measurement; None: ``micrograph_000001`` and so on.
            binning: pixels of the micrograph, along one side, in a pixel of the measurement; coordinates are in those of the micrograph.
            pixel_size: of the micrograph, angstrom; None: the column is left out.

        Raises:
            ParameterError: fewer names than micrographs.
            StorageError: the file cannot be written.
        """
        rot, tilt, psi = self.angles.T
        columns: dict[str, Sequence[object]] = {
            "rlnMicrographName": names_of(self.micrograph, micrographs),
            "rlnCoordinateX": [f"{binning * (x + self.box_size // 2):.6f}" for x in self.column],
            "rlnCoordinateY": [f"{binning * (y + self.box_size // 2):.6f}" for y in self.row],
            "rlnAngleRot": [f"{a:.3f}" for a in rot],
            "rlnAngleTilt": [f"{a:.3f}" for a in tilt],
            "rlnAnglePsi": [f"{a:.3f}" for a in psi],
            "rlnAutopickFigureOfMerit": [f"{p:.4f}" for p in self.probability],
        }
        if pixel_size is not None:
            columns["rlnMicrographPixelSize"] = [f"{pixel_size:.4f}"] * len(self)
        write_star(path, "particles", columns)


def find_copies(
    measurement: Measurement | np.ndarray | str,
    volume: np.ndarray,
    likelihood: WindowLikelihood,
    search: Search,
    threshold: float = 0.5,
    backend: str | Backend = "auto",
) -> VolumeCopies:
    """The most probable copies at the minimum separation, each with its most probable view; the list does not depend on the tiles.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        volume: (L, L, L).
        likelihood: noise level, count and separation.
        search: the views.
        threshold: smallest probability of a copy, in (0, 1).
        backend: a backend or its name, see :func:`mtdcore.estep.volumes.expectation.volume_e_step`.

    Raises:
        ParameterError: a threshold outside its domain.
        InputError: the micrographs are smaller than the box.
    """
    check_threshold(threshold)
    source = open_measurement(measurement)
    check_box_fits(source, search.views)
    model = with_views(likelihood, search.views).bind(source.shape)
    reaches = neighbourhood(model, _SPREAD)
    engine, cut = get_backend(backend), volume_cut(replace(model, margin=halo(model, reaches)))
    found = [np.empty((0, 8))]
    with engine.active():
        seen = Posteriors(model, templates_of(volume, search), engine)
        for tile in source.tiles(cut):
            own, core = grown(tile, reaches)
            posterior = seen(own)
            mass = on_host(posterior.mass)
            here = np.array([*peaks(mass[own.owned], core, threshold, reaches)]).reshape(-1, 3)
            if not len(here):
                continue
            corners = here[:, :2].astype(np.int64)
            rows, columns = (corners + [s.start for s in own.owned]).T
            inside = rows * mass.shape[1] + columns
            views, offsets, amplitudes = posterior.best(inside)
            places = corners + _between(posterior, inside, views, offsets)
            shift = np.array([s.start for s in own.region.owned])
            of = np.full(len(here), tile.micrograph)
            found.append(
                np.column_stack([of, corners + shift, views, here[:, 2], amplitudes, places + shift])
            )
    table = np.vstack(found)
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0], -table[:, 4]))]
    table = table[apart(table[:, :3].astype(np.int64), model.separations)]
    micrograph, view = table[:, [0, 3]].astype(np.int64).T
    return VolumeCopies(
        micrograph,
        table[:, 6],
        table[:, 7],
        np.minimum(table[:, 4], 1.0),
        search.views.rotations[view],
        table[:, 5],
        model.box_size,
    )


def _between(
    posterior: TilePosterior, corners: np.ndarray, views: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """(n, 2) float64 pixels down and to the right of corners to the tops of the log-likelihood ratio of their views.

    Args:
        posterior: of the tile.
        corners: (n,) host indices of its corners, row-major.
        views: (n,) of each.
        offsets: (n, 2) their most probable places among those that were scored.
    """
    found = np.zeros((len(corners), 2))
    for offset in np.unique(offsets, axis=0):
        here = np.flatnonzero((offsets == offset).all(axis=1))
        near = [
            posterior.matched(corners[here], views[here], (float(offset[0] + down), float(offset[1] + right)))
            for down, right in product((-_STEP, 0.0, _STEP), repeat=2)
        ]
        tops = [top(values) for values in np.stack(near, axis=1).reshape(-1, 3, 3)]
        found[here] = offset + _STEP * np.array(tops)
    return found
