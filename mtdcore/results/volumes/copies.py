"""Copies of a volume in the micrographs: places, probabilities and Euler angles, for RELION to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from ..._base.numerics.conversion import on_host
from ...data import Measurement, open_measurement
from ...data.micrographs.star import write_star
from ...errors import ParameterError
from ...estep.backends import Backend, get_backend
from ...estep.volumes.expectation import check_alike, volume_cut, with_views
from ...estep.volumes.posterior import Posteriors
from ...estep.volumes.templates import Search, templates_of
from ...model.likelihood import WindowLikelihood
from ...model.volumes import so3

#: A copy's posterior spreads over so many pixels either way.
_SPREAD = 2


@dataclass(frozen=True, eq=False)
class VolumeCopies:
    """Copies found, the most probable first.

    Attributes:
        micrograph: (N,) int64 index of the micrograph.
        row: (N,) int64 row of the top-left corner of the box.
        column: (N,) int64 column of the same corner.
        probability: (N,) float64 posterior probability that a copy is there, within two pixels.
        rotations: (N, 3, 3) float64, the most probable view at the corner.
        box_size: side L of the box in pixels.
    """

    micrograph: np.ndarray
    row: np.ndarray
    column: np.ndarray
    probability: np.ndarray
    rotations: np.ndarray
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
            micrographs: their names; None: numbers.
            binning: pixels of the micrograph, along one side, in a pixel of the measurement; coordinates are in those of the micrograph.
            pixel_size: of the micrograph, angstrom; None: the column is left out.

        Raises:
            ParameterError: fewer names than micrographs.
            StorageError: the file cannot be written.
        """
        most = int(self.micrograph.max()) + 1 if len(self) else 0
        names = [f"{i + 1:06d}" for i in range(most)] if micrographs is None else list(micrographs)
        if len(names) < most:
            raise ParameterError(f"expected names of at least {most} micrographs; got {len(names)}.")
        rot, tilt, psi = self.angles.T
        columns: dict[str, Sequence[object]] = {
            "rlnMicrographName": [names[i] for i in self.micrograph],
            "rlnCoordinateX": [f"{binning * (x + self.box_size // 2):.1f}" for x in self.column],
            "rlnCoordinateY": [f"{binning * (y + self.box_size // 2):.1f}" for y in self.row],
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
    least: float = 0.5,
    backend: str | Backend = "cpu",
) -> VolumeCopies:
    """The most probable copies that keep the least separation, each with its most probable view.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        volume: (L, L, L).
        likelihood: noise level, count and separation.
        search: the views.
        least: smallest probability that is listed.
        backend: a backend or its name, see :func:`mtdcore.estep.volumes.expectation.volume_e_step`.

    Raises:
        ParameterError: copies that differ in amplitude.
    """
    source = open_measurement(measurement)
    check_alike(likelihood)
    model = with_views(likelihood, search.views).bind(source.shape)
    engine = get_backend(backend)
    found: list[tuple[float, int, int, int, int]] = []
    with engine.active():
        seen = Posteriors(model, templates_of(volume, search), engine)
        for tile in source.tiles(volume_cut(model)):
            posterior = seen(tile)
            mass = on_host(posterior.mass)
            columns = mass.shape[1]
            top, left = (s.start for s in tile.region.read)
            corners, probability = _peaks(mass, model.separation, least)
            if not len(corners):
                continue
            best = posterior.scores.best(posterior.features.at(corners))
            for corner, p, view in zip(corners, probability, best, strict=True):
                found.append((p, tile.micrograph, top + corner // columns, left + corner % columns, view))
    found.sort(key=lambda copy: -copy[0])
    table = np.array([copy[1:] for copy in found], np.int64).reshape(-1, 4)
    return VolumeCopies(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        np.array([copy[0] for copy in found], np.float64),
        search.views.rotations[table[:, 3]],
        model.box_size,
    )


def _peaks(mass: np.ndarray, separation: int, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and probabilities of the corners around which most mass lies, apart from one another."""
    width = 2 * _SPREAD + 1
    around = np.clip(uniform_filter(mass, width, mode="constant") * width**2, 0.0, 1.0)
    left, columns = around.copy(), mass.shape[1]
    corners, probability = [], []
    while True:
        centre = int(left.argmax())
        if left.flat[centre] < least:
            break
        row, column = divmod(centre, columns)
        near = np.s_[
            max(0, row - _SPREAD) : row + _SPREAD + 1, max(0, column - _SPREAD) : column + _SPREAD + 1
        ]
        r, c = np.unravel_index(int(mass[near].argmax()), mass[near].shape)
        row, column = max(0, row - _SPREAD) + int(r), max(0, column - _SPREAD) + int(c)
        corners.append(row * columns + column)
        probability.append(float(left.flat[centre]))
        reach = separation - 1
        left[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = 0.0
    return np.array(corners, np.int64), np.array(probability)
