"""The forward model (docs/model.md 2): copies of a target in random places and rotations, plus white noise.

A measurement is rendered block by block. The noise of a block is keyed by (seed, micrograph, block), so the same
seed gives the same bits in memory and on disk, and memory use does not grow with the measurement.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._base.records import load_npz, save_npz
from .._base.typing import plain
from ..data import ArrayMeasurement, Measurement, open_measurement
from ..errors import InputError, ParameterError
from ..model.rotations import Rotations, disc, rotate, usual_rotations
from ..model.shifts import moved
from .placement import log_normal, random_corners

_BLOCK = (256, 1024)  # rows, columns of pixels; the noise of a seed depends on it; a chunk on disk
_TRUTH_FILE = "truth.npz"  # beside the chunks
_MOST_TRUTH = 1 << 30
_PLACES, _ROTATIONS, _NOISE, _HANDS, _FRACTIONS, _AMPLITUDES = range(6)  # random streams of a micrograph


@dataclass(frozen=True, eq=False)
class Truth:
    """The copies in a simulated measurement.

    Attributes:
        target: (L, L) or (h, w) float64, the image that was placed: the given image, cut to the inscribed disc unless all
            rotations are right angles.
        noise_std: standard deviation of the noise.
        positions: (N, 3) rows (micrograph, row, column): top-left corners of the copies, int64, or float64 between pixels.
        angles: (N,) float64 in radians, counter-clockwise.
        rotation_indices: (N,) int64, k of angle ``2 pi k / K``; None for continuous rotations.
        mirrored: (N,) bool: copies that show the mirror image of the target, its columns in reverse order, turned by the angle; None: no copy is mirrored.
        amplitudes: (N,) float64, factor of the target in each copy; None: all are 1.
    """

    target: np.ndarray
    noise_std: float
    positions: np.ndarray
    angles: np.ndarray
    rotation_indices: np.ndarray | None
    mirrored: np.ndarray | None = field(default=None, kw_only=True)
    amplitudes: np.ndarray | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Simulation(Truth):
    """A simulated measurement with its truth.

    Attributes:
        measurement: (micrographs, H, W) pixels, in memory or on disk.
        parameters: arguments that repeat the simulation with the same target; JSON-able.
    """

    measurement: Measurement
    parameters: dict[str, Any]


def simulate(
    target: np.ndarray,
    *,
    side: int | None = None,
    shape: tuple[int, int] | None = None,
    density: float | None = None,
    count: int | None = None,
    snr: float | None = None,
    noise_std: float | None = None,
    rotations: int | Literal["continuous"] | None = None,
    mirror: bool = False,
    subpixel: bool = False,
    amplitude_std: float = 0.0,
    separation: float = 2,
    min_separation: int | None = None,
    seed: int = 0,
    micrographs: int = 1,
    path: str | Path | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    compressor: Literal["lz4", "zstd"] | None = None,
    overwrite: bool = False,
) -> Simulation:
    """Simulate a measurement. One of each pair side / shape, density / count, snr / noise_std is needed.

    Args:
        target: (L, L) finite image, or (h, w): (1, w), or (w,), is the motif of a signal. L below is then the longer side.
        side: side of square micrographs in pixels.
        shape: (H, W) of a micrograph.
        density: fraction of a micrograph that boxes cover, p h w / (H W); p is rounded up.
        count: number p of copies in each micrograph.
        snr: ``||F||^2 / (h w sigma^2)``; ``inf`` for no noise.
        noise_std: sigma, the standard deviation of the noise.
        rotations: number K of equally likely angles, or "continuous" for uniform angles; None: 4, or 1 for a target that is not
            square, which allows 1 or 2 only.
        mirror: half of the copies, at random, show the mirror image of the target.
        subpixel: copies lie anywhere between pixels, moved by band-limited interpolation: each by a uniform fraction, from half a
            pixel up to half a pixel down, drawn separately along rows and along columns (none along an axis on which the target has
            one pixel). Pixels outside the box are cut off.
        amplitude_std: standard deviation of the amplitudes of the copies, which are log-normal with mean 1; 0: all are 1.
        separation: smallest distance between two corners, before fractional shifts, along rows or along columns, in units of L: 2 is well
            separated, 1 non-overlapping; below 1, copies may overlap and add up. For a target that is not square, the distance along the
            shorter side is at most that side.
        min_separation: the same in pixels; overrides ``separation``.
        seed: non-negative; the same seed and arguments give the same bits, in memory and on disk.
        micrographs: number of micrographs.
        path: write a Zarr v3 array here, with the truth beside it (:func:`open_simulation`). None: stay in memory.
        dtype: dtype of the pixels.
        compressor: of the chunks on disk (noise hardly compresses).
        overwrite: replace ``path`` if it is a measurement that mtd wrote; other files are never replaced.

    Raises:
        ParameterError: an argument outside its domain, or copies that do not fit.
        StorageError: ``path`` may not be replaced or cannot be written.
    """
    given = np.array(target, dtype=np.float64)
    target = np.atleast_2d(given)
    if given.ndim not in (1, 2) or not target.size or not np.isfinite(target).all():
        raise ParameterError(
            f"the target must be a finite image or signal; got an array of shape {given.shape}."
        )
    box = (target.shape[0], target.shape[1])
    length = max(box)
    if dtype not in ("float32", "float64"):
        raise ParameterError(f"the dtype of a simulation is float32 or float64; got {dtype}.")
    rotations = usual_rotations(box) if rotations is None else rotations
    angle_count = None if rotations == "continuous" else rotations
    views = Rotations(360 if angle_count is None else angle_count, plain(*box))
    if not views.exact:
        target *= disc(length)
    for name, value in {"density": density, "separation": separation, "amplitude_std": amplitude_std}.items():
        if value is not None and not math.isfinite(value):
            raise ParameterError(f"{name} must be a finite number; got {value}.")
    if amplitude_std < 0.0:
        raise ParameterError(f"amplitude_std must be zero or a positive number; got {amplitude_std}.")
    height, width = _one("side", None if side is None else (side, side), "shape", shape)
    if height < box[0] or width < box[1] or micrographs < 1 or seed < 0:
        raise ParameterError(
            f"expected one or more micrographs of at least {box[0]} x {box[1]} pixels (the target) and a seed of at "
            f"least 0; got {micrographs} of {height} x {width} and seed {seed}."
        )
    wanted = None if density is None else math.ceil(density * height * width / target.size - 1e-9)
    count = _one("density", wanted, "count", count)
    noise_std = _one("snr", None if snr is None else _noise_std(target, snr), "noise_std", noise_std)
    distance = math.ceil(separation * length) if min_separation is None else min_separation
    if distance < 1 or count < 0 or not 0 <= noise_std < math.inf:
        raise ParameterError(
            "the separation must be positive, the number of copies and the noise not negative; "
            f"got {distance} pixels, {count} copies and noise_std {noise_std}."
        )
    corners = (height - box[0] + 1, width - box[1] + 1)
    apart = tuple(distance if n == length else min(distance, n) for n in box)
    places = [
        random_corners(_stream(seed, m, _PLACES), count, corners, plain(*apart)) for m in range(micrographs)
    ]
    positions = np.hstack([np.repeat(np.arange(micrographs), count)[:, None], np.concatenate(places)])
    draws = np.concatenate([_stream(seed, m, _ROTATIONS).random(count) for m in range(micrographs)])
    indices = None if angle_count is None else (draws * angle_count).astype(np.int64)
    angles = 2 * np.pi * (draws if angle_count is None else np.floor(draws * angle_count) / angle_count)
    mirrored = None
    if mirror:
        mirrored = np.concatenate([_stream(seed, m, _HANDS).random(count) < 0.5 for m in range(micrographs)])
    if subpixel:
        parts = [_stream(seed, m, _FRACTIONS).random((count, 2)) - 0.5 for m in range(micrographs)]
        fractions = np.concatenate(parts) * (np.array(box) > 1)
        positions = positions + np.hstack([np.zeros((len(positions), 1)), fractions])
    amplitudes = None
    if amplitude_std:
        streams = [_stream(seed, m, _AMPLITUDES) for m in range(micrographs)]
        amplitudes = np.concatenate([log_normal(one, amplitude_std, count) for one in streams])
    truth = Truth(
        target, float(noise_std), positions, angles, indices, mirrored=mirrored, amplitudes=amplitudes
    )
    parameters = {
        "shape": [int(height), int(width)],
        "count": int(count),
        "noise_std": truth.noise_std,
        "rotations": "continuous" if angle_count is None else int(angle_count),
        "mirror": bool(mirror),
        "subpixel": bool(subpixel),
        "amplitude_std": float(amplitude_std),
        "min_separation": int(distance),
        "seed": int(seed),
        "micrographs": int(micrographs),
        "dtype": dtype,
    }
    rotated = (
        None if angle_count is None else np.stack([views.apply(image) for image in (target, target[:, ::-1])])
    )
    size = (micrographs, height, width)
    blocks = _blocks(truth, rotated, seed, size)
    if path is None:
        pixels = np.empty(size, dtype)
        for place, block in blocks:
            pixels[place] = block
        return Simulation(**vars(truth), measurement=ArrayMeasurement(pixels), parameters=parameters)

    from .._base.version import __version__
    from ..data.zarr.store import creating

    path = Path(path)
    attributes = {"mtdcore": {"version": __version__, "made_by": "simulate", "parameters": parameters}}
    with creating(path, size, np.dtype(dtype), attributes, compressor, overwrite) as (array, folder):
        for place, block in blocks:
            array[place] = block.astype(dtype)
        save_npz(folder / _TRUTH_FILE, truth)
    return open_simulation(path)


def open_simulation(path: str | Path) -> Simulation:
    """A simulation that :func:`simulate` wrote to ``path``; pixels are read when needed.

    Raises:
        InputError: ``path`` was not written by ``simulate``.
        StorageError: ``path`` does not exist.
    """
    from ..data.zarr.guard import read_inside
    from ..data.zarr.stored import StoredArray

    measurement = open_measurement(path)
    try:
        attributes: Any = StoredArray.open(Path(path)).layout.attributes["mtdcore"]
        content = read_inside(Path(path), _TRUTH_FILE, _MOST_TRUTH)
        truth, parameters = load_npz(Truth, Path(path) / _TRUTH_FILE, content), dict(attributes["parameters"])
    except Exception as error:  # a damaged file may raise any exception
        raise InputError(
            f"{path} should be a measurement written by simulate; its truth is unreadable: {error}."
        ) from error
    return Simulation(**vars(truth), measurement=measurement, parameters=parameters)


def _one(name: str, value: Any, other: str, alternative: Any) -> Any:
    """The one of two arguments that was given."""
    if (value is None) == (alternative is None):
        raise ParameterError(f"give either {name} or {other}, not {'both' if value is not None else 'none'}.")
    return alternative if value is None else value


def _noise_std(target: np.ndarray, snr: float) -> float:
    power = float(np.mean(target**2))
    if not snr > 0 or power == 0:
        raise ParameterError(
            f"a signal-to-noise ratio needs snr > 0 and a target that is not blank; got snr {snr}."
        )
    return math.sqrt(power / snr)


def _stream(seed: int, *key: int) -> np.random.Generator:
    """The independent random stream of a key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _blocks(
    truth: Truth, rotated: np.ndarray | None, seed: int, shape: tuple[int, int, int]
) -> Iterator[tuple[tuple[int, slice, slice], np.ndarray]]:
    """Every block as (index in the measurement, (h, w) float64 pixels); ``rotated`` is (2, K, L, L), one stack per hand, None for free angles."""
    tall, wide = truth.target.shape
    corners = np.rint(truth.positions).astype(np.int64)
    mirrored = np.zeros(len(corners), bool) if truth.mirrored is None else truth.mirrored
    rows, columns = (
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(shape[1:], _BLOCK, strict=True)
    )
    for place in itertools.product(range(shape[0]), rows, columns):
        micrograph, *spans = place
        size = [span.stop - span.start for span in spans]
        rng = _stream(
            seed, micrograph, _NOISE, *(span.start // step for span, step in zip(spans, _BLOCK, strict=True))
        )
        # Whole rows of noise are drawn also for a block that is cut off, so that pixels do not depend on the width.
        pixels = truth.noise_std * rng.standard_normal((size[0], _BLOCK[1]))[:, : size[1]]
        first, last = np.searchsorted(corners[:, 0], [micrograph, micrograph + 1])
        offsets = corners[first:last, 1:] - [span.start for span in spans]
        inside = np.flatnonzero(((offsets > [-tall, -wide]) & (offsets < size)).all(axis=1))
        copies = first + inside
        if rotated is not None and truth.rotation_indices is not None:
            images = rotated[mirrored[copies].astype(int), truth.rotation_indices[copies]]
        else:
            images = np.empty((len(copies), tall, wide))
            for hand, image in ((False, truth.target), (True, truth.target[:, ::-1])):
                of_hand = mirrored[copies] == hand
                if of_hand.any():
                    images[of_hand] = rotate(image, truth.angles[copies[of_hand]].tolist())
        if len(copies) and truth.positions.dtype != np.int64:
            images = moved(images, (truth.positions - corners)[copies, 1:])
        if truth.amplitudes is not None:
            images = images * truth.amplitudes[copies, None, None]
        for (row, column), image in zip(offsets[inside], images, strict=True):
            top, left = max(row, 0), max(column, 0)
            patch = pixels[top : row + tall, left : column + wide]
            patch += image[top - row :, left - column :][: patch.shape[0], : patch.shape[1]]
        yield place, pixels
