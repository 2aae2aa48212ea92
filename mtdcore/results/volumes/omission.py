"""The omit test: a part is left out of a volume, and its amplitude is estimated from the data without prior or poses that depend on it.

A prior may put density where the data have none, and poses estimated with this density reproduce it from noise ("Einstein from noise").
So a part D is left out of the volume V, and the likelihood estimates its amplitude a in the data, the rest being ``V - D``. An E-step at
``V - D + a D`` has a right side b and a normal operator N, and the parabola of its M-step along D is highest at

    m(a) = <D, b - N (V - D)> / <D, N D>,    standard error sigma / sqrt(<D, N D>)

without any prior. EM along this line iterates a -> m(a) from 0, so that the first poses do not depend on the part. If m(0) differs from 0 by more
than chance, the fixed point follows from two more E-steps, as m is nearly linear; with the slope m' the error is ``1 / sqrt(1 - m')`` times larger
because of the unknown poses (Louis 1982). At a slope near 1 the amplitude is undetermined. An amplitude of 1 means that the data hold the part as in
the volume, 0 that they hold nothing of it.

Noise that the volume has fitted comes back from the same noise. So the test should use other data than the recovery: the volume of one half is
tested on the other half, where only density in both comes back.

Source: the template with a part left out, of 2-D template matching (Lucas, Himes and Grigorieff, *Baited reconstruction with 2D template
matching for high-resolution structure determination in vitro and in vivo without template bias*, eLife 2023), without picking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import starmap

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from ...data import MeasurementLike, open_measurement
from ...em.volumes.recovery import VolumeRecovery
from ...errors import ParameterError
from ...estep.backends import Backend, get_backend
from ...estep.volumes.expectation import volume_cut, volume_e_step
from ...estep.volumes.statistics import VolumeStatistics
from ...model.volumes import so3
from ...model.volumes.grids import ball

#: Width of the edges between parts, in boxes: a sharp edge would leak strong shells into weak ones.
_SOFT = 0.03

#: Least amplitude of a part that is in the data, and least number of standard errors from 0.
_HALF, _CLEAR = 0.5, 3.0

#: Largest slope of m that determines an amplitude: with a slope near 1 the fixed point may be anywhere.
_STEEPEST = 0.9

#: Approximate number of copies that are tested: errors of some hundredths are small enough, and an E-step over all copies may take long.
_COPIES = 1000

#: Largest amplitude that is searched and reported: a brighter part would dominate all poses.
_FURTHEST = 1.5


@dataclass(frozen=True, eq=False)
class Omission:
    """A part of a volume that was left out.

    Attributes:
        part: (L, L, L) float64, the density that was left out, behind the noise filter.
        share: of the positive density of the volume.
        amplitude: of the part, estimated from the data.
        error: standard error of the amplitude, from the noise alone; infinite if the poses leave the amplitude undetermined, or it is beyond 1.5.
    """

    part: np.ndarray
    share: float
    amplitude: float
    error: float

    @property
    def in_data(self) -> bool:
        """Whether the data support the part; otherwise the part may come from the prior or from noise."""
        return self.amplitude >= max(_HALF, _CLEAR * self.error)

    @property
    def determined(self) -> bool:
        """Whether the data determine the amplitude."""
        return math.isfinite(self.error)

    def __str__(self) -> str:
        """The amplitude with its error."""
        return f"{self.amplitude:.2f} ± {self.error:.2f}" if self.determined else "not told"


def omit_test(
    measurement: MeasurementLike,
    recovery: VolumeRecovery,
    parts: int | ArrayLike = 10,
    backend: str | Backend = "auto",
    executor: Executor | None = None,
    known: Sequence[tuple[float, float]] = (),
) -> Iterator[Omission]:
    """Leave out one part of a recovered volume after another, and estimate it from the data; up to three E-steps each.

    Of many copies about the first thousand are used.

    Args:
        measurement: the test data, with the run's number and shape of micrographs: preferably the half that the run has not seen
            (:attr:`.halves.VolumeHalves.runs`, :func:`.halves.halves_of`), otherwise the measurement of the run.
        recovery: the run.
        parts: number of parts, each with the same share of the positive density; or (n, L, L, L) weights in [0, 1] of parts, such as a
            ligand or a domain. Of a symmetric volume a part is left out of every asymmetric unit.
        backend: of the E-steps, see :func:`mtdcore.em.volumes.recover.recover_volume`.
        executor: runs parts of an E-step elsewhere.
        known: amplitude and error of the first parts, from an earlier run of the same call; these are not estimated again.

    Returns:
        One omission per part, computed when the iterator reaches it.

    Raises:
        ParameterError: fewer than two parts, weights of another shape, or a run that found no copies.
    """
    if not recovery.found_copies:
        raise ParameterError("an omit test needs a volume; this run found no copies.")
    volume, engine = recovery.seen, get_backend(backend)
    search = recovery.plan.search(recovery.plan.iterations)
    source, model = recovery.read(open_measurement(measurement)), recovery.likelihood
    tiles = source.tile_count(volume_cut(model.bind(source.shape)))
    source = source.split(min(max(1, round(recovery.expected_count / _COPIES)), tiles))[0]
    density = np.maximum(volume, 0.0) * ball(len(volume))
    if isinstance(parts, int | np.integer):
        chosen = soft_parts(density, int(parts), recovery.plan.symmetry)
    else:
        chosen = np.asarray(parts)
    if chosen.shape[1:] != volume.shape:
        raise ParameterError(
            f"the weights of the parts should be of shape (n, {', '.join(map(str, volume.shape))}); got {chosen.shape}."
        )

    def e_step(seen: np.ndarray) -> VolumeStatistics:
        return volume_e_step(source, seen, model, search, engine, executor).normalised()

    def asked(number: int, weights: np.ndarray) -> Omission:
        part = search.views.symmetrised(weights * volume)
        line = partial(_highest, e_step, volume - part, part, model.noise_std)
        answer = known[number] if number < len(known) else _fixed_point(line)
        return Omission(part, float(np.vdot(weights, density) / density.sum()), *answer)

    return starmap(asked, enumerate(chosen))


def _highest(
    e_step: Callable[[np.ndarray], VolumeStatistics],
    rest: np.ndarray,
    part: np.ndarray,
    noise_std: float,
    amplitude: float,
) -> tuple[float, float]:
    """m(a) of a part beside the rest, and its standard error."""
    found = e_step(rest + amplitude * part)
    length = float(np.vdot(part, found.normal(part)))
    if not length > 0.0:
        return 0.0, math.inf
    left = float(np.vdot(part, found.right - found.normal(rest)))
    return left / length, noise_std / math.sqrt(length)


def _fixed_point(highest: Callable[[float], tuple[float, float]]) -> tuple[float, float]:
    """Fixed point of EM along a part, started at amplitude 0, and its standard error."""
    first, error = highest(0.0)
    if not abs(first) > _CLEAR * error:
        return first, error
    before, answer, slope = 0.0, first, 0.0
    at = first
    for _ in range(2):
        found, error = highest(at)
        slope = max((found - answer) / (at - before), 0.0) if at != before else slope
        before, answer = at, found
        step = (found - at) / (1.0 - min(slope, _STEEPEST))
        at = min(max(at + step, -_FURTHEST), _FURTHEST)
    determined = slope < _STEEPEST and abs(at) < _FURTHEST
    return at, error / math.sqrt(1.0 - slope) if determined else math.inf


def soft_parts(density: np.ndarray, count: int, symmetry: str = "C1") -> np.ndarray:
    """Compact parts of a density with equal shares of it: cut across the longest axis, and again.

    Args:
        density: (L, L, L), not negative.
        count: number n of parts.
        symmetry: point group of the density; each part has it.

    Returns:
        (n, L, L, L) float64 weights that add up to 1 in every voxel, with soft edges.

    Raises:
        ParameterError: fewer than two parts.
    """
    if count < 2:
        raise ParameterError(
            f"an omit test needs at least 2 parts: without the whole volume there is nothing to pose by; got {count}."
        )
    side = len(density)
    line = np.arange(side) - side // 2
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)[:, ::-1].astype(float)
    labels = _cut(_in_one_unit(points, so3.group(symmetry)), density.ravel(), count).reshape(density.shape)
    soft = [
        gaussian_filter((labels == i).astype(np.float64), _SOFT * side, mode="nearest") for i in range(count)
    ]
    return np.stack(soft)


def _in_one_unit(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n, 3) points (x, y, z), each mapped to one asymmetric unit: to its symmetry mate furthest along a direction of no symmetry."""
    partners = np.einsum("gij,nj->gni", group, points)
    furthest = np.argmax(partners @ np.array([0.36, 0.48, 0.8]) + 1e-9 * partners[..., 0], axis=0)
    return np.asarray(partners[furthest, np.arange(len(points))])


def _cut(points: np.ndarray, mass: np.ndarray, count: int) -> np.ndarray:
    """(n,) number of the part of each point."""
    labels = np.zeros(len(points), np.int64)
    if count == 1 or not mass.sum() > 0.0:
        return labels
    centre = mass @ points / mass.sum()
    spread = np.linalg.eigh(((points - centre) * mass[:, None]).T @ (points - centre))
    along = (points - centre) @ spread.eigenvectors[:, -1]
    order, first = np.argsort(along, kind="stable"), count // 2
    before = np.cumsum(mass[order]) <= mass.sum() * first / count
    lower = order[before]
    upper = order[~before]
    labels[lower] = _cut(points[lower], mass[lower], first)
    labels[upper] = first + _cut(points[upper], mass[upper], count - first)
    return labels
