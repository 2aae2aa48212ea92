"""Comparison of two volumes up to rotation, shift and hand.

Projections of a volume and of its mirror image are the same set, so the hand of a recovered volume is arbitrary. Plain correlation
says little, as every particle is a blob. *Shape* is the correlation after the spherical means are subtracted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from ...errors import ParameterError
from ...model.volumes import so3
from ...model.volumes.grids import ball, filtered, moved, shell_mean, spherical_mean
from ...model.volumes.projections import Projections
from ..metrics import RingCorrelation

#: Coarse candidates that are refined, and evaluations of each: first coarsely interpolated, then well.
_CANDIDATES, _EVALUATIONS = 3, 200

#: Nats per copy that tell the orientation, below which the shape of a volume is not to be trusted (docs/model.md 14).
LEAST_ORIENTATION = 1.4

#: Share of the largest power of a shell below which power is rounding error.
_NOTHING = 1e-12

#: Edges of the first simplex: radians, voxels. A tenth of the spacing of 1000 rotations and half a voxel of half the grid.
_TURN, _STEP = 0.2, 0.8


@dataclass(frozen=True, eq=False)
class VolumeAlignment:
    """The rotation, shift and hand that bring a volume closest to a reference.

    Attributes:
        volume: (L, L, L) float64, the volume mirrored if need be, turned, and then shifted.
        rotation: (3, 3), see :mod:`mtdcore.model.volumes.so3`.
        shift: (x, y, z) in voxels.
        mirrored: whether the other hand fits.
        correlation: cosine between ``volume`` and the reference inside the ball.
    """

    volume: np.ndarray
    rotation: np.ndarray
    shift: tuple[float, float, float]
    mirrored: bool
    correlation: float

    def applied(self, volume: np.ndarray) -> np.ndarray:
        """(L, L, L) another volume in the frame of the aligned one, brought to the reference the same way."""
        return moved(mirror_volume(volume) if self.mirrored else volume, self.rotation, self.shift)


def align_volumes(
    volume: np.ndarray,
    reference: np.ndarray,
    hands: Literal["both", "same"] = "both",
    rotations: int = 1000,
    diameter: float | None = None,
) -> VolumeAlignment:
    """Search SO(3) on a halved grid with all shifts by correlation, then refine the best candidates.

    Args:
        volume: (L, L, L) real.
        reference: (L, L, L) real, not all zero in its ball.
        hands: whether the mirror image may be compared too.
        rotations: number of rotations of the coarse search; 1000 are 24 degrees apart.
        diameter: of the ball in which the two are compared, in voxels; None: that of the box.

    Raises:
        ParameterError: shapes that differ or are no cubes.
    """
    volume, reference = _pair(volume, reference)
    support = ball(len(volume), diameter)
    wanted = reference * support
    found = sorted(_candidates(volume * support, wanted, hands, rotations), key=lambda c: -c[0])
    refined = [_refined(volume, wanted, c, order=1) for c in _distinct(found)[:_CANDIDATES]]
    best = _refined(volume, wanted, max(refined, key=lambda c: c[0]), order=3)
    _, mirrored, rotation, shift = best
    brought = moved(mirror_volume(volume) if mirrored else volume, rotation, shift)
    x, y, z = shift
    return VolumeAlignment(brought, rotation, (x, y, z), mirrored, cosine(brought * support, wanted))


def matched_to(volume: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The volume with the power of each shell set to that of a reference, so that a difference in sharpness does not count; empty shells stay.

    Micrographs that were smoothed or denoised give volumes whose shells fall by orders of magnitude. Rotate and mask such a volume
    after this step, not before: interpolation and edges leak a thousandth of a strong shell into its neighbours, which it then dominates.

    Args:
        volume: (L, L, L) real.
        reference: (L, L, L) real.

    Returns:
        (L, L, L) float64.

    Raises:
        ParameterError: shapes that differ or are no cubes.
    """
    volume, reference = _pair(volume, reference)
    power, wanted = (shell_mean(np.abs(scipy.fft.rfftn(v)) ** 2, len(volume)) for v in (volume, reference))
    seen = power > _NOTHING * power.max()
    return filtered(volume, np.sqrt(np.divide(wanted, power, out=np.zeros_like(power), where=seen)))


def shape_correlation(volume: np.ndarray, reference: np.ndarray, diameter: float | None = None) -> float:
    """Cosine between the parts of two aligned volumes that are not spherically symmetric (docs/model.md 14)."""
    volume, reference = _pair(volume, reference)
    support = ball(len(volume), diameter)
    return cosine(aspherical(volume) * support, aspherical(reference) * support)


def fourier_shell_correlation(
    first: np.ndarray, second: np.ndarray, part: Literal["whole", "aspherical"] = "whole"
) -> RingCorrelation:
    """``Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2)`` of two (L, L, L) volumes on shells one frequency bin wide.

    Args:
        first: real.
        second: real.
        part: "aspherical" leaves out the spherical means, which any two particles share.

    Returns:
        The curve at the shells 1 to L // 2.

    Raises:
        ParameterError: shapes that differ or are no cubes.
    """
    first, second = _pair(first, second)
    if part == "aspherical":
        first, second = aspherical(first), aspherical(second)
    side = len(first)
    rings = slice(1, side // 2 + 1)
    a, b = scipy.fft.rfftn(first), scipy.fft.rfftn(second)
    shared = shell_mean((a * b.conj()).real, side)[rings]
    power = np.sqrt(shell_mean(np.abs(a) ** 2, side)[rings] * shell_mean(np.abs(b) ** 2, side)[rings])
    curve = np.divide(shared, power, out=np.zeros_like(shared), where=power > 0)
    return RingCorrelation(np.arange(1, side // 2 + 1) / side, curve)


def orientation_information(volume: np.ndarray, noise_std: float, views: int = 600) -> float:
    """J, nats per copy that tell the orientation: ``1/2 sum Var_views(A_t V) / sigma^2`` (docs/model.md 14).

    At J of 4 and more the shape of a volume is recovered; below :data:`LEAST_ORIENTATION` only its spherical mean is.

    Args:
        volume: (L, L, L) at the scale of the measurement.
        noise_std: of a pixel.
        views: number of views that the variance is taken over.
    """
    images = Projections(len(volume), views).apply(np.asarray(volume, np.float64))
    return float(np.sum(np.var(images, axis=0))) / (2.0 * noise_std**2)


def mirror_volume(volume: np.ndarray) -> np.ndarray:
    """The other hand: the volume reflected through its centre voxel."""
    flipped = volume[::-1, ::-1, ::-1]
    return flipped if len(volume) % 2 else np.roll(flipped, 1, axis=(0, 1, 2))


def aspherical(volume: np.ndarray) -> np.ndarray:
    """The volume less its spherical means."""
    return np.asarray(volume - spherical_mean(volume))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of the angle between two arrays; 0 if one of them is all zero."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.vdot(first, second)) / norm if norm > 0 else 0.0


_Candidate = tuple[float, bool, np.ndarray, np.ndarray]


def _candidates(volume: np.ndarray, wanted: np.ndarray, hands: str, rotations: int) -> list[_Candidate]:
    """(correlation, mirrored, rotation, shift) of every rotation, at its best shift."""
    side = len(volume)
    small = max(8, side // 2)
    small += small % 2
    low, target = _cropped(volume, small), _cropped(wanted, small)
    spectrum = np.conj(scipy.fft.rfftn(target, s=(2 * small,) * 3))
    found: list[_Candidate] = []
    mirrors = (False, True) if hands == "both" else (False,)
    for mirrored, rotation in itertools.product(mirrors, so3.spiral(rotations)):
        turned = moved(mirror_volume(low) if mirrored else low, rotation, order=1)
        scores = scipy.fft.irfftn(scipy.fft.rfftn(turned, s=(2 * small,) * 3) * spectrum, s=(2 * small,) * 3)
        at = np.array(np.unravel_index(int(scores.argmax()), scores.shape))
        lag = np.where(at < small, at, at - 2 * small)
        score = float(scores.max()) / (np.linalg.norm(turned) * np.linalg.norm(target) + 1e-30)
        found.append((float(score), mirrored, rotation, -lag[::-1] * side / small))
    return found


def _distinct(found: list[_Candidate]) -> list[_Candidate]:
    """The candidates without near duplicates of a better one: same hand, less than a coarse step away."""
    kept: list[_Candidate] = []
    for candidate in found[:50]:
        if all(
            candidate[1] != other[1] or so3.angle_between(candidate[2], other[2]) > 2 * _TURN
            for other in kept
        ):
            kept.append(candidate)
    return kept


def _refined(volume: np.ndarray, wanted: np.ndarray, start: _Candidate, order: int) -> _Candidate:
    """The candidate after a simplex search over small rotations and shifts (Nelder and Mead 1965)."""
    _, mirrored, rotation, shift = start
    source = mirror_volume(volume) if mirrored else volume
    inside = wanted != 0

    def place(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return Rotation.from_rotvec(step[:3]).as_matrix() @ rotation, shift + step[3:]

    def cost(step: np.ndarray) -> float:
        return -cosine(moved(source, *place(step), order=order) * inside, wanted)

    scale = 1.0 if order == 1 else 0.3
    edges = scale * np.diag([_TURN] * 3 + [_STEP] * 3)
    simplex = np.vstack([np.zeros(6), edges])
    best = minimize(
        cost, np.zeros(6), method="Nelder-Mead", options={"maxfev": _EVALUATIONS, "initial_simplex": simplex}
    )
    return (-float(best.fun), mirrored, *place(best.x))


def _cropped(volume: np.ndarray, side: int) -> np.ndarray:
    """The volume resampled to (side, side, side) about the same centre voxel, by cutting its spectrum."""
    full = len(volume)
    if side >= full:
        return volume
    centre, middle = full // 2, side // 2
    spectrum = scipy.fft.fftn(np.roll(volume, (-centre,) * 3, axis=(0, 1, 2)))
    kept = np.r_[0:middle, -middle + 1 : 0]
    small = np.zeros((side,) * 3, complex)
    small[np.ix_(kept, kept, kept)] = spectrum[np.ix_(kept, kept, kept)]
    return np.roll(scipy.fft.ifftn(small).real, (middle,) * 3, axis=(0, 1, 2))


def _pair(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, checked to be cubes of one size."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 3 or first.shape != second.shape or len(set(first.shape)) != 1 or not first.size:
        raise ParameterError(f"expected two cubes of one size; got shapes {first.shape} and {second.shape}.")
    return first, second
