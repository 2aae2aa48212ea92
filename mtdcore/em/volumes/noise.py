"""The noise in the projections of a volume: its offset, its radial spectrum, its level within the band.

A radial filter of the projections is the same radial filter of the volume (central slices). If the noise is not white, the measurement is
filtered, the run recovers the filtered volume, and the filter is undone in the end, within the band.

The spectrum is that of the quietest blocks, which hold the fewest copies. The residual after the copies (docs/model.md 15) is unknown before
a volume is found, and no volume is found under a wrong noise spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np
from scipy.ndimage import gaussian_filter

from ..._base.numerics.convolution import wrapped
from ...data import Measurement
from ...data.derived import filtered as filtered_measurement
from ...data.derived import without_offset
from ...data.noise import estimate_offset
from ...data.tiles import TileGeometry
from ...model.filters.optics import Micrographs
from ...model.filters.whitening import MOST, Whitening
from ...model.volumes.grids import filtered

#: Boxes along a block, and side of the tiles that blocks are cut from.
_BOXES, _TILE = 2, 512

#: Number of tiles read; share of the blocks that count as quiet, and least number of blocks.
_TILES, _QUIET, _FEWEST = 64, 0.1, 40

#: Shortest and longest period, in diameters of a particle, of the band in which blocks are compared.
_FINE, _COARSE = 1 / 12, 1 / 2.5

#: Ratio of power between rings of the band above which noise is not white. For white noise the choice of quiet blocks alone gives 1.2.
_COLOURED = 1.6


#: Pixels, and the mask of the valid pixels.
Picture: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Noise at the start of a run.

    Attributes:
        offset: of the measurement.
        noise_std: of a pixel, if the noise of the band (after the filter, if any) is continued as white noise beyond the band.
        whitening: radial filter; None: the noise is white.
        share: energy of the noise after the filter, as a share of ``noise_std ** 2``.
    """

    offset: float
    noise_std: float
    whitening: Whitening | None = None
    share: float = 1.0

    def through(self, measurement: Measurement) -> Measurement:
        """The measurement without its offset, through the filter."""
        level = without_offset(measurement, self.offset)
        return level if self.whitening is None else filtered_measurement(level, self.whitening.kernel)

    def unfiltered(self, volume: np.ndarray, band: float) -> np.ndarray:
        """(L, L, L) volume before the filter, from the filtered volume, up to the band."""
        return volume if self.whitening is None else filtered(volume, self._amplitudes(len(volume), band))

    def seen(self, volume: np.ndarray, band: float) -> np.ndarray:
        """(L, L, L) volume after the filter, up to the band."""
        if self.whitening is None:
            return volume
        amplitudes = self._amplitudes(len(volume), band)
        return filtered(
            volume, np.divide(1.0, amplitudes, out=np.zeros_like(amplitudes), where=amplitudes > 0)
        )

    def _amplitudes(self, side: int, band: float) -> np.ndarray:
        """Noise amplitudes at the shells of a volume; 0 beyond the band."""
        assert self.whitening is not None
        line = self.whitening.amplitude[0]  # the spectrum is radial: one line determines it
        shells = np.arange(math.ceil(math.sqrt(3.0) * (side // 2)) + 1) / side
        values = np.interp(shells, np.arange(len(line)) / (2.0 * (len(line) - 1)), line)
        return np.where(shells <= band + 0.5 / side, values, 0.0)


#: "auto": estimated during the run; "white"; or the noise that an earlier run found.
VolumeNoise: TypeAlias = Literal["auto", "white"] | NoiseModel


def first_noise_model(source: Measurement, noise: VolumeNoise, noise_std: float) -> NoiseModel:
    """Noise of a measurement at the start: white and of this level, unless the noise of an earlier run is given."""
    return noise if isinstance(noise, NoiseModel) else NoiseModel(estimate_offset(source), noise_std)


@dataclass(frozen=True, eq=False)
class Suspicion:
    """The quietest blocks are not white, which suggests that the noise is not. In a crowded field every block has copies.

    Attributes:
        noise_model: noise that the quietest blocks suggest.
        departure: ratio of the largest power of these blocks in the band to the smallest.
    """

    noise_model: NoiseModel
    departure: float

    def confirmed(self, pictures: Iterable[Picture], box_size: int, band: float) -> bool:
        """Whether the residual after the copies departs from white by more than the square root of ``departure``, and by at least 1.6.

        Args:
            pictures: the residual, see :func:`mtdcore.estep.volumes.residual.left_over`.
            box_size: L.
            band: frequency limit so far, cycles per pixel.
        """
        spectrum = quiet_spectrum(pictures, box_size, None, share=1.0)
        limit = max(_COLOURED, math.sqrt(self.departure))
        return spectrum is not None and _departure(spectrum, band) > limit


def suspected(
    source: Measurement,
    white: NoiseModel,
    box_size: int,
    band: float,
    diameter: float | None,
    micrographs: Micrographs | None = None,
) -> Suspicion | None:
    """The filter that whitens the quietest blocks; None: these blocks are white, or there are too few.

    Args:
        source: the pixels, with their offset.
        white: noise at the start.
        box_size: L.
        band: frequency limit of the volume, cycles per pixel.
        diameter: of the particle in pixels; None: three quarters of the box.
        micrographs: noise levels of the micrographs; the spectrum is common. None: they are alike.
    """
    pictures = _pictures(white.through(source), _side(box_size), micrographs)
    spectrum = quiet_spectrum(pictures, box_size, diameter)
    if spectrum is None or (departure := _departure(spectrum, band)) < _COLOURED:
        return None
    side, rings, last = 2 * (len(spectrum) - 1), np.arange(len(spectrum)), _last(spectrum, band)
    # The mean was subtracted from every block, so ring 0 is replaced; beyond the band, where the volume has nothing, the filter is flat.
    followed = np.where(rings > last, spectrum[last], np.where(rings == 0, spectrum[1], spectrum))
    level = float(spectrum[last])
    amplitude = np.maximum(np.sqrt(_on_grid(followed / level, side)), 1.0 / MOST)
    whitening = Whitening(amplitude)
    gains = np.abs(np.fft.rfft2(wrapped(whitening.kernel, (side, side)))) ** 2
    behind = _on_grid(spectrum / level, side) * gains
    twice = np.full(behind.shape, 2.0)  # rfft2 leaves out half of the columns
    twice[:, [0, -1]] = 1.0
    share = float(np.average(behind, weights=twice))
    return Suspicion(NoiseModel(white.offset, math.sqrt(level), whitening, share), departure)


def quiet_spectrum(
    pictures: Iterable[Picture], box_size: int, diameter: float | None, share: float = _QUIET
) -> np.ndarray | None:
    """Radial power spectrum of the blocks with the least energy at the scales of a particle; None: there are too few blocks.

    Args:
        pictures: without their offset.
        box_size: L; a block is two boxes wide.
        diameter: of a particle, pixels; None: three quarters of the box.
        share: of the blocks.

    Returns:
        (n,) variance of a pixel at 0, 1 / P, ..., 1 / 2 cycles per pixel, P = 2 (n - 1).
    """
    side, scale = _side(box_size), 0.75 * box_size if diameter is None else diameter
    window = np.outer(*[np.hanning(side)] * 2)
    ring = np.rint(np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) * side).astype(int)
    count = np.bincount(ring.ravel())[: side // 2 + 1]
    energies: list[float] = []
    spectra: list[np.ndarray] = []
    for picture, valid in pictures:
        passed = gaussian_filter(picture, _FINE * scale) - gaussian_filter(picture, _COARSE * scale)
        for row in range(0, picture.shape[0] - side + 1, side // 2):
            for column in range(0, picture.shape[1] - side + 1, side // 2):
                block = np.s_[row : row + side, column : column + side]
                if not valid[block].all():
                    continue
                pixels = picture[block] - picture[block].mean()
                power = np.abs(np.fft.fft2(pixels * window)) ** 2 / np.sum(window**2)
                energies.append(float(np.square(passed[block]).mean()))
                spectra.append(np.bincount(ring.ravel(), power.ravel())[: side // 2 + 1] / count)
    if len(energies) < _FEWEST:
        return None
    quiet = np.argsort(energies, kind="stable")[: max(1, round(share * len(energies)))]
    mean: np.ndarray = np.mean([spectra[i] for i in quiet], axis=0)
    return np.asarray(np.maximum(mean, np.finfo(float).tiny))


def _side(box_size: int) -> int:
    return 2 * ((_BOXES * box_size + 1) // 2)


def _last(spectrum: np.ndarray, band: float) -> int:
    """The last ring of the band."""
    return min(max(2, round(band * 2 * (len(spectrum) - 1))), len(spectrum) - 1)


def _departure(spectrum: np.ndarray, band: float) -> float:
    """Ratio of the largest power in the band to the smallest; periods longer than a box are background, which does not affect copies."""
    within = spectrum[_BOXES : _last(spectrum, band) + 1]
    return float(within.max() / within.min())


def _pictures(measurement: Measurement, least: int, micrographs: Micrographs | None) -> Iterator[Picture]:
    """Float64 pixels of tiles all over the measurement, scaled to the common noise level, and their masks of valid pixels."""
    side = max(_TILE, 2 * least)
    cut = TileGeometry(side=min(side, *measurement.shape[1:]), unit=1, halo=0, reach=0)
    for part in measurement.split(min(measurement.tile_count(cut), _TILES)):
        for tile in islice(part.tiles(cut), 1):
            values = np.asarray(tile.values, np.float64)
            if micrographs is not None:
                values = values / micrographs.noise_ratio[tile.micrograph]
            yield values, np.ones(values.shape, bool) if tile.valid is None else tile.valid


def _on_grid(rings: np.ndarray, side: int) -> np.ndarray:
    """(P, P // 2 + 1) a radial curve on the ``rfft2`` grid; beyond 1/2 its last value."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * side
    return np.asarray(np.interp(frequency, np.arange(len(rings)), rings))
