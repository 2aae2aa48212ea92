"""Micrographs of a volume: projections in random directions at random places, plus white noise (docs/model.md 2 and 14)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from .._base.numerics.fourier import radial_filter
from .._base.records import load_npz, save_npz
from ..data import ArrayMeasurement, open_measurement
from ..errors import InputError, ParameterError
from ..model.filters.optics import Micrographs, check_number
from ..model.shifts import moved
from ..model.volumes import so3
from ..model.volumes.grids import ball
from ..model.volumes.projections import Projections
from .placement import log_normal, random_corners
from .volumes import Gaussians

_TRUTH_FILE = "volume_truth.npz"  # beside the chunks
_MOST_TRUTH = 1 << 30

#: Random streams of a micrograph, in addition to that of places, directions and noise.
_FRACTIONS, _AMPLITUDES = 1, 2

#: Number of views over which the energy of the signal is averaged.
_VIEWS = 500


@dataclass(frozen=True, eq=False)
class VolumeTruth:
    """The copies in a simulated measurement.

    Attributes:
        volume: (L, L, L) float64 in the ball of the box.
        noise_std: of a pixel.
        positions: (N, 3) int64 rows (micrograph, row, column) of top-left corners; float64 where copies lie between pixels.
        rotations: (N, 3, 3) float64, see :mod:`mtdcore.model.volumes.so3`.
        amplitudes: (N,) float64, factor of the volume in each copy; None: all are 1.
    """

    volume: np.ndarray
    noise_std: float
    positions: np.ndarray
    rotations: np.ndarray
    amplitudes: np.ndarray | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class VolumeSimulation(VolumeTruth):
    """A simulated measurement with its truth.

    Attributes:
        parameters: arguments that repeat the simulation with the same object; JSON-able.
        pixels: (micrographs, H, W) float32.
    """

    parameters: dict[str, Any]
    pixels: np.ndarray

    @property
    def measurement(self) -> ArrayMeasurement:
        """The pixels as a measurement."""
        return ArrayMeasurement(self.pixels)

    def save(self, path: str | Path, overwrite: bool = False, pixel_size: float | None = None) -> None:
        """Write a Zarr measurement with the truth beside it, for :func:`open_volume_truth`.

        Raises:
            StorageError: ``path`` exists or cannot be written.
        """
        from .._base.version import __version__
        from ..data.zarr.store import creating

        made = {"version": __version__, "made_by": "simulate_volume", "parameters": self.parameters}
        with creating(
            Path(path),
            (self.pixels.shape[0], self.pixels.shape[1], self.pixels.shape[2]),
            np.dtype(np.float32),
            {"mtdcore": made},
            overwrite=overwrite,
            pixel_size=pixel_size,
        ) as (array, folder):
            for m, micrograph in enumerate(self.pixels):
                array[m] = micrograph
            truth = {one.name: getattr(self, one.name) for one in fields(VolumeTruth)}
            save_npz(folder / _TRUTH_FILE, VolumeTruth(**truth))


def simulate_volume(
    thing: np.ndarray | Gaussians,
    *,
    box_size: int | None = None,
    size: tuple[int, int] | None = None,
    count: int = 40,
    micrographs: int = 8,
    density: float = 0.35,
    snr: float | None = None,
    noise_std: float | None = None,
    min_separation: int | None = None,
    subpixel: bool = False,
    amplitude_std: float = 0.0,
    transfer: np.ndarray | None = None,
    seed: int = 0,
) -> VolumeSimulation:
    """Simulate micrographs of a volume; give snr or noise_std.

    Args:
        thing: (L, L, L) volume, or a sum of Gaussians, whose projections are exact.
        box_size: L of a sum of Gaussians.
        size: (H, W) of a micrograph; None: square, so that boxes cover the share ``density`` of it.
        count: number of copies in each micrograph.
        micrographs: number of micrographs.
        density: see ``size``.
        snr: mean of ``||A_t V||^2 / (L^2 sigma^2)`` over views.
        noise_std: of a pixel.
        min_separation: smallest distance of two corners along rows or columns; None: L.
        subpixel: copies lie anywhere between pixels, moved by band-limited interpolation: each by a uniform fraction, from half a
            pixel up and left of its corner to half a pixel down and right.
        amplitude_std: standard deviation of the amplitudes of the copies, which are log-normal with mean 1; 0: all are 1.
        transfer: (M, R) factors applied to each micrograph before its noise, as in :class:`mtdcore.Micrographs`; None: 1.
        seed: the same seed gives the same bits.

    Raises:
        ParameterError: an argument outside its domain, or copies that do not fit.
    """
    side = len(thing) if isinstance(thing, np.ndarray) else box_size
    if side is None or side < 2 or (isinstance(thing, np.ndarray) and thing.shape != (side,) * 3):
        raise ParameterError(
            "simulate_volume needs a cube of voxels, or a sum of Gaussians and the size of its box."
        )
    if count < 1 or micrographs < 1 or not 0.0 < density < 1.0:
        raise ParameterError(
            f"expected at least one copy and one micrograph and a density below 1; got {count}, {micrographs}, {density}."
        )
    if not 0.0 <= amplitude_std < math.inf:
        raise ParameterError(f"amplitude_std must be zero or a positive number; got {amplitude_std}.")
    volume = (thing if isinstance(thing, np.ndarray) else thing.volume(side)) * ball(side)

    def seen(rotations: np.ndarray) -> np.ndarray:
        if isinstance(thing, Gaussians):
            return thing.projections(rotations, side)
        images: np.ndarray = Projections(side, rotations).apply(np.asarray(volume, np.float64))
        return images

    noise = _noise_std(seen(so3.spiral(_VIEWS)), snr, noise_std)
    width = math.ceil(math.sqrt(count * side**2 / density))
    height, width = size or (width, width)
    if min(height, width) < side:
        raise ParameterError(
            f"micrographs should be at least one box of {side} pixels; got {height} x {width}."
        )
    distance = side if min_separation is None else min_separation
    if transfer is not None:
        check_number(Micrographs(np.ones(len(transfer)), transfer=transfer), micrographs)
    pixels = np.empty((micrographs, height, width), np.float32)
    positions, turns, amplitudes = [], [], []
    for m in range(micrographs):
        rng = np.random.default_rng([seed, m])
        corners = random_corners(rng, count, (height - side + 1, width - side + 1), distance)
        rotations = so3.random_rotations(count, rng)
        white, copies = noise * rng.standard_normal((height, width)), np.zeros((height, width))
        images, places, strength = seen(rotations), corners, np.ones(count)
        if subpixel:
            fractions = np.random.default_rng([seed, m, _FRACTIONS]).random((count, 2)) - 0.5
            images, places = moved(images, fractions), corners + fractions
        if amplitude_std:
            strength = log_normal(np.random.default_rng([seed, m, _AMPLITUDES]), amplitude_std, count)
            images = images * strength[:, None, None]
        for image, (row, column) in zip(images, corners, strict=True):
            copies[row : row + side, column : column + side] += image
        pixels[m] = white + (copies if transfer is None else radial_filter(copies[None], transfer[m])[0])
        positions.append(np.column_stack([np.full(count, m), places]))
        turns.append(rotations)
        amplitudes.append(strength)
    parameters = {
        "box_size": side,
        "size": [height, width],
        "count": count,
        "micrographs": micrographs,
        "noise_std": noise,
        "min_separation": distance,
        "subpixel": bool(subpixel),
        "amplitude_std": float(amplitude_std),
        "seed": seed,
    }
    return VolumeSimulation(
        volume,
        noise,
        np.concatenate(positions),
        np.concatenate(turns),
        parameters,
        pixels,
        amplitudes=np.concatenate(amplitudes) if amplitude_std else None,
    )


def open_volume_truth(path: str | Path) -> VolumeTruth:
    """The truth beside a measurement that :meth:`VolumeSimulation.save` wrote.

    Raises:
        InputError: there is no truth.
    """
    from ..data.zarr.guard import read_inside

    open_measurement(path)
    try:
        content = read_inside(Path(path), _TRUTH_FILE, _MOST_TRUTH)
        truth = load_npz(VolumeTruth, Path(path) / _TRUTH_FILE, content)
        _check_truth(truth)
        return truth
    except Exception as problem:  # a damaged file may raise any exception
        raise InputError(
            f"{path} should be a measurement of a simulated volume; its truth is unreadable: {problem}."
        ) from problem


def _check_truth(truth: VolumeTruth) -> None:
    """Raise ValueError unless the arrays have the shapes and kinds of :class:`VolumeTruth`."""
    count, side = len(truth.positions), len(truth.volume)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "volume": ("f", (side,) * 3),
        "positions": ("if", (count, 3)),
        "rotations": ("f", (count, 3, 3)),
    }
    if truth.amplitudes is not None:
        expected["amplitudes"] = ("f", (count,))
    for name, (kind, shape) in expected.items():
        array = getattr(truth, name)
        if array.dtype.kind not in kind or array.shape != shape or not np.isfinite(array).all():
            raise ValueError(
                f"{name} should be finite numbers of shape {shape}; it is {array.dtype}, {array.shape}"
            )


def _noise_std(images: np.ndarray, snr: float | None, noise_std: float | None) -> float:
    if (snr is None) == (noise_std is None):
        raise ParameterError("give either snr or noise_std.")
    if noise_std is not None:
        if not 0.0 <= noise_std < math.inf:
            raise ParameterError(f"noise_std should be a number of at least 0; got {noise_std}.")
        return float(noise_std)
    power = float(np.mean(images**2))
    if snr is None or not snr > 0.0 or power == 0.0:
        raise ParameterError(
            f"a signal-to-noise ratio should be positive, and the volume not blank; got snr {snr}."
        )
    return math.sqrt(power / snr)
