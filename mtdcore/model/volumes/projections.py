"""Views of a volume: projections in many directions as one linear map with an exact adjoint.

By the central slice theorem the transform of a projection is a plane through the transform of the volume. View t is
``A_t V = sum_z V(R_t^T r)`` for a rotation R_t of :mod:`mtdcore.model.volumes.so3`, with V band-limited to the ball |k| <= band and cut to the
inscribed ball of the box. V is indexed (z, y, x): an MRC file of V opens as it is in ChimeraX and RELION, and RELION projects
it at the angles of ``so3.to_euler(R_t)`` into the same image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from ..._base.numerics.conversion import like, on_host
from ..._base.numerics.fourier import radial_frequencies
from ..._base.numerics.gridding import Gathering, Spreading
from ..._base.typing import Array, Lengths, pair
from ...errors import ParameterError
from . import so3
from .grids import ball
from .toeplitz import Toeplitz

#: Slices per chunk: their frequencies take 24 bytes a sample.
_CHUNK = 256

_ALL = slice(None)


class Projections:
    """Projections of an (L, L, L) volume under near-uniform rotations, in plane as well as in direction.

    Args:
        box_size: L in voxels.
        views: number T of rotations, or (T, 3, 3) rotations. With a symmetry, a number means the views of its asymmetric unit.
        symmetry: point group of the volume, C1, C2, ..., D2, ..., T, O, I; the axes stand as in :func:`mtdcore.model.volumes.so3.group`.
        band: highest frequency of the volume in cycles per voxel, at most 1/2.

    With a symmetry, views show the volume averaged over the group. The partners of a view, its rotation times the elements of the
    group, show the same image of a symmetric volume, so that statistics of T views hold as much information as those of ``T |G|``.

    Attributes:
        rotations: (T, 3, 3) float64.
        partners: (|G|, 3, 3) elements of the group.

    Raises:
        ParameterError: invalid box, rotations, symmetry or band.
    """

    def __init__(
        self, box_size: int, views: int | ArrayLike, symmetry: str = "C1", band: float = 0.5
    ) -> None:
        if box_size < 2 or not 0.0 < band <= 0.5:
            raise ParameterError(
                f"projections need a box of at least 2 voxels and a band in (0, 0.5]; got {box_size} and {band}."
            )
        self.box_size, self.symmetry, self.band = int(box_size), symmetry, float(band)
        self.partners = so3.group(symmetry)
        rotations = (
            so3.view_set(int(views), symmetry) if np.ndim(views) == 0 else np.array(views, dtype=np.float64)  # type: ignore[arg-type]
        )
        if rotations.ndim != 3 or rotations.shape[1:] != (3, 3) or not len(rotations):
            raise ParameterError(
                f"views should be a number or (T, 3, 3) rotations; got an array of shape {rotations.shape}."
            )
        deviation = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max()
        if not (deviation < 1e-6 and np.linalg.det(rotations).min() > 0):
            raise ParameterError("views should be proper rotations: orthogonal, of determinant 1.")
        self.rotations = rotations
        line, half = np.fft.fftfreq(box_size), np.fft.rfftfreq(box_size)
        length = radial_frequencies((box_size, box_size), np.float64)
        # The frequency 1/2 has no partner of opposite sign in the half spectrum, so its turned slices are not real.
        inside = (length <= band + 1e-9) & (length < 0.5 - 1e-9)
        self._rows, self._columns = np.nonzero(inside)
        fy, fx = line[self._rows], half[self._columns]
        self._plane = np.stack([fx, fy], 1)
        self._twice = np.where(fx == 0, 1.0, 2.0) / box_size**2
        self._phase = np.exp(-2j * np.pi * (fx + fy) * (box_size // 2))

    @property
    def count(self) -> int:
        """Number T of views."""
        return len(self.rotations)

    @property
    def classes(self) -> int:
        """One volume."""
        return 1

    @property
    def box_shape(self) -> tuple[int, int]:
        """(L, L)."""
        return self.box_size, self.box_size

    @property
    def target_shape(self) -> tuple[int, int, int]:
        """(L, L, L)."""
        return self.box_size, self.box_size, self.box_size

    @property
    def log_weights(self) -> np.ndarray | None:
        """None: rotations are equally likely."""
        return None

    @property
    def exact(self) -> bool:
        """False: projections are no permutations of voxels."""
        return False

    @property
    def gain(self) -> float:
        """Largest ``||A_t||^2``, L: a ray through the ball sums at most L voxels."""
        return float(self.box_size)

    def apply(self, target: Array, part: slice = _ALL) -> Array:
        """(L, L, L) volume -> (t, L, L) projections; gridding is done on the host, in float64."""
        volume = on_host(target, np.float64)
        self._check(volume, self.target_shape, "a volume")
        gathered = Gathering(volume * ball(self.box_size))
        rotations, order = self.rotations[part], len(self.partners)
        images = np.empty((len(rotations), *self.box_shape))
        for chunk in _chunks(len(rotations), max(1, _CHUNK // order)):
            slices = gathered.at(self._frequencies(rotations[chunk]))
            slices = slices.reshape(-1, order, self._twice.size).mean(axis=1)
            spectrum = np.zeros((len(slices), self.box_size, self.box_size // 2 + 1), np.complex128)
            spectrum[:, self._rows, self._columns] = slices * self._phase
            images[chunk] = scipy.fft.irfft2(spectrum, s=self.box_shape)
        return like(images, target, target.dtype)

    def adjoint(self, stack: Array, part: slice = _ALL) -> Array:
        """(t, L, L) images -> (L, L, L): ``sum_t A_t^T stack_t``, the exact adjoint of :meth:`apply`."""
        images, rotations = on_host(stack, np.float64), self.rotations[part]
        self._check(images, (len(rotations), *self.box_shape), "a stack")
        spread, order = Spreading(self.box_size), len(self.partners)
        for chunk in _chunks(len(rotations), max(1, _CHUNK // order)):
            spectrum = scipy.fft.rfft2(images[chunk])[:, self._rows, self._columns]
            slices = spectrum * (self._phase.conj() * self._twice / order)
            spread.add(np.repeat(slices, order, axis=0).ravel(), self._frequencies(rotations[chunk]))
        return like(spread.volume() * ball(self.box_size), stack, stack.dtype)

    def normal(self, coverage: Array, part: slice = _ALL) -> Toeplitz:
        """The operator ``V -> sum_t A_t^T c_t A_t V`` on volumes of the symmetry.

        Args:
            coverage: (t,) expected copies per view; (t, R) copies weighed by their squared transfers at R frequencies evenly spaced from
                0 to 1/2 cycles per pixel; or (t, L, L) posterior mass on each pixel. A slice has one weight, the mean over
                pixels: exact for whole windows, as in the window model without masks.
            part: which of the T views.
        """
        copies, rotations = on_host(coverage, np.float64), self.rotations[part]
        if copies.ndim == 3:
            copies = copies.mean(axis=(1, 2))
        if copies.ndim == 2:
            self._check(copies, (len(rotations), copies.shape[1]), "copies")
            at = np.linspace(0.0, 0.5, copies.shape[1])
            lengths = np.hypot(*self._plane.T)
            weights = np.array([np.interp(lengths, at, one) for one in copies])
        else:
            self._check(copies, (len(rotations),), "copies")
            weights = np.broadcast_to(copies[:, None], (len(rotations), self._twice.size))
        side, order = self.box_size, len(self.partners)
        spread = Spreading(2 * side - 1)  # the lags between two voxels of the box
        for chunk in _chunks(len(rotations), max(1, _CHUNK // order)):
            each = np.repeat(weights[chunk] * (self._twice / order), order, axis=0)
            spread.add(each.ravel(), self._frequencies(rotations[chunk]))
        lags = np.zeros((2 * side,) * 3)
        lags[: 2 * side - 1, : 2 * side - 1, : 2 * side - 1] = spread.volume()
        lags = np.roll(lags, (1 - side,) * 3, axis=(0, 1, 2))
        return Toeplitz(np.ascontiguousarray(scipy.fft.rfftn(lags).real))  # even, hence real

    def framed(self, margin: Lengths) -> Projections:
        """The same views of a box with ``margin`` more voxels on each side."""
        return Projections(self.box_size + 2 * max(pair(margin)), self.rotations, self.symmetry, self.band)

    def coarse(self, count: int, band: float | None = None) -> Projections:
        """Another near-uniform set of ``count`` views, band-limited (None: as this one)."""
        return Projections(self.box_size, count, self.symmetry, self.band if band is None else band)

    def turned(self, seed: int) -> Projections:
        """The whole set turned at random, so that the views of many iterations cover all rotations."""
        turn = so3.random_rotations(1, np.random.default_rng(seed))[0]
        return Projections(self.box_size, turn @ self.rotations, self.symmetry, self.band)

    def symmetrised(self, volume: np.ndarray) -> np.ndarray:
        """The average of an (L, L, L) volume over its group, band-limited: the volume that the views show."""
        side, order = self.box_size, len(self.partners)
        if order == 1:
            return volume
        line = np.fft.fftfreq(side)
        points = np.stack(np.meshgrid(line, line, np.fft.rfftfreq(side), indexing="ij"), -1).reshape(-1, 3)
        points = points[np.linalg.norm(points, axis=1) < 0.5]
        twice = np.where(points[:, 2] == 0, 1.0, 2.0) / side**3
        spread, seen = Spreading(side), Gathering(volume)
        values = sum(seen.at(np.ascontiguousarray((points[:, ::-1] @ g)[:, ::-1])) for g in self.partners)
        spread.add(values * twice / order, points)
        return spread.volume()

    def __repr__(self) -> str:
        return f"Projections({self.box_size}, views={self.count}, symmetry={self.symmetry!r}, band={self.band:g})"

    def _frequencies(self, rotations: np.ndarray) -> np.ndarray:
        """(t |G| m, 3) frequencies (z, y, x) of the slices of these views and their partners."""
        every = np.einsum("tij,gjk->tgik", rotations, self.partners).reshape(-1, 3, 3)
        # R^T (fx, fy, 0): the first two rows of R, weighted
        points = self._plane @ every[:, :2]
        return np.ascontiguousarray(points[..., ::-1].reshape(-1, 3))

    def _check(self, array: np.ndarray, shape: tuple[int, ...], name: str) -> None:
        if array.shape != shape:
            raise ParameterError(
                f"expected {name} of shape {shape} for {self!r}; got an array of shape {array.shape}."
            )


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
