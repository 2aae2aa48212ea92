"""Preparation of a raw micrograph for the likelihood: bright copies in white noise of standard deviation 1, no background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...errors import InputError, ParameterError
from ..micrographs.listing import Micrograph
from ..pictures import mask_defects
from .background import gaussian_background, polynomial_background, scale
from .borders import find_borders
from .contaminants import find_contaminants
from .ctf import Ctf
from .fourier import bin_by, filter_radially, flip_signs
from .whitening import CURVE, noise_spectrum, whitening_filter

#: Share of invalid source pixels from which on a binned pixel is masked.
_SPOILT = 0.25


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared micrograph.

    Attributes:
        pixels: (h, w) float32; NaN where masked.
        scale: grey values of the source per unit of ``pixels``: the robust standard deviation of the flattened image.
        borders: share of the pixels in smeared or constant borders.
        contaminants: share of the pixels masked as carbon and contaminants.
        transfer: (CURVE,) float64, the radial transfer function from a copy to ``pixels``, as in
            :attr:`mtdcore.Micrographs.transfer`: |CTF| where phases were flipped, times the whitening.
    """

    pixels: np.ndarray
    scale: float
    transfer: np.ndarray
    borders: float = 0.0
    contaminants: float = 0.0


@dataclass(frozen=True)
class Preparation:
    """The steps, in this order; the defaults of ``mtd import`` for MRC, TIFF and STAR.

    Attributes:
        defects: dead and hot pixels (:mod:`mtdcore.data.pictures`): masked, or kept as they are.
        borders: smeared and constant borders (:mod:`.borders`): masked, or kept as they are.
        contaminants: carbon, ice crystals and the like (:mod:`.contaminants`): masked, or kept as they are.
        contaminant_width: width of the search for contaminants, binned pixels: about half a particle.
        invert: negate the pixels: particles in raw micrographs are dark.
        flip_phases: undo the sign changes of the CTF (micrographs already flipped stay as they are); None: where
            CTF and pixel size are known.
        bin: Fourier binning factor.
        mask_beyond: pixels further from the median than this many standard deviations are masked; None: none are.
        mask_edge: binned pixels masked along every edge.
        background: smooth background to subtract.
        background_width: standard deviation of the Gaussian, binned pixels; None: an eighth of the shorter side.
        background_degree: degree of the polynomial.
        whiten: divide by the radial amplitude spectrum of the noise.
        normalise: bring the image to median 0 and robust standard deviation 1; whitening implies it.
    """

    defects: Literal["mask", "keep"] = "mask"
    borders: Literal["mask", "keep"] = "mask"
    contaminants: Literal["mask", "keep"] = "mask"
    contaminant_width: float = 10.0
    invert: bool = True
    flip_phases: bool | None = None
    bin: int = 1
    mask_beyond: float | None = None
    mask_edge: int = 0
    background: Literal["gaussian", "polynomial", "none"] = "gaussian"
    background_width: float | None = None
    background_degree: int = 2
    whiten: bool = False
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.bin < 1 or self.mask_edge < 0:
            raise ParameterError(
                f"a binning factor of at least 1 and an edge of at least 0 pixels are needed; got {self.bin} and "
                f"{self.mask_edge}."
            )

    def shape(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of a prepared micrograph, from its stored (H, W)."""
        return stored[0] // self.bin, stored[1] // self.bin

    def read(self, micrograph: Micrograph) -> Prepared:
        """Read a micrograph and prepare it.

        Raises:
            InputError: the micrograph cannot be used; the message names it.
            StorageError: its file is missing.
        """
        return self.apply(micrograph.read(), micrograph)

    def apply(self, image: np.ndarray, micrograph: Micrograph) -> Prepared:
        """Prepare the (H, W) pixels of a micrograph; InputError, with its name, if they cannot be used."""
        try:
            return self(image, micrograph)
        except InputError as problem:
            raise InputError(f"{micrograph.name} cannot be prepared: {problem}") from problem

    def __call__(self, image: np.ndarray, micrograph: Micrograph | None = None) -> Prepared:
        """Prepare one micrograph.

        Args:
            image: (H, W) real pixels as stored, not changed; non-finite pixels, and those masked in a ``numpy.ma`` array, are masked.
            micrograph: its pixel size and CTF, for phase flipping.

        Raises:
            InputError: no noise to scale by, or no CTF or pixel size where phases are to be flipped.
        """
        pixels = np.array(image, np.float32)
        if np.ma.isMaskedArray(image):
            pixels[np.ma.getmaskarray(image)] = np.nan
        if self.defects == "mask":
            pixels = mask_defects(pixels)
        borders = find_borders(pixels) if self.borders == "mask" else np.zeros(pixels.shape, bool)
        pixels[borders] = np.nan
        if self.invert:
            np.negative(pixels, out=pixels)
        pixels, passed = self._resample(pixels, micrograph)
        pixels, contaminants = self._mask(pixels)
        pixels = self._flatten(pixels)
        std = 1.0
        if self.whiten or self.normalise:
            middle, std = scale(pixels)
            pixels = (pixels - middle) / np.float32(std)
        if self.whiten:
            gains = whitening_filter(noise_spectrum(pixels))
            valid = np.isfinite(pixels)
            pixels = np.where(valid, filter_radially(np.where(valid, pixels, 0), gains), np.nan)
            passed = passed * gains
        return Prepared(
            pixels.astype(np.float32, copy=False), std, passed, float(borders.mean()), contaminants
        )

    def _resample(self, image: np.ndarray, micrograph: Micrograph | None) -> tuple[np.ndarray, np.ndarray]:
        """Flip phases and bin; also returns the remaining |CTF|. Invalid pixels are filled for the transform and masked again after it."""
        found = self._ctf(micrograph)
        flat = np.ones(CURVE)
        if found is None and self.bin == 1:
            return image, flat
        shape = self.shape(image.shape)
        if not all(shape):
            raise InputError(
                f"the binning factor should be from 1 to the size of the image, {image.shape}; got {self.bin}."
            )
        height, width = (side * self.bin for side in shape)
        image = image[:height, :width]
        valid = np.isfinite(image)
        if not valid.any():
            raise InputError("an image should hold finite pixels; this one holds none.")
        if self.background != "none":  # the transform would spread the step between opposite edges
            image = image - polynomial_background(image, 1)
        filled = image if valid.all() else np.where(valid, image, np.median(image[valid]))
        signs = None
        if found is not None:
            ctf, pixel_size, flipped = found
            signs = None if flipped else flip_signs(ctf, image.shape, pixel_size)
            binned = np.linspace(0.0, 0.5, CURVE) / (pixel_size * self.bin)
            flat = np.abs(ctf.radial(binned))
        pixels = bin_by(filled, self.bin, signs)
        if not valid.all():
            share = (~valid).reshape(shape[0], self.bin, shape[1], self.bin).mean(axis=(1, 3))
            pixels[share >= _SPOILT] = np.nan
        return pixels, flat

    def _ctf(self, micrograph: Micrograph | None) -> tuple[Ctf, float, bool] | None:
        ctf, pixel_size = (None, None) if micrograph is None else (micrograph.ctf, micrograph.pixel_size)
        if (
            micrograph is not None
            and ctf is not None
            and pixel_size is not None
            and self.flip_phases is not False
        ):
            return ctf, pixel_size, micrograph.phase_flipped
        if self.flip_phases:
            raise InputError(
                f"phase flipping needs the CTF and the pixel size of every micrograph; the {'CTF' if ctf is None else 'pixel size'} is "
                "unknown: give the STAR file of CTF estimation, or flip_phases=False (--no-ctf)."
            )
        return None

    def _mask(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """The image with outliers, edges and contaminants masked, and the share of contaminants."""
        bad = ~np.isfinite(image)
        if self.mask_beyond is not None:
            middle, std = scale(image)
            bad |= np.abs(image - middle) > self.mask_beyond * std
        if self.mask_edge:
            inside = np.zeros_like(bad)
            inside[self.mask_edge : -self.mask_edge, self.mask_edge : -self.mask_edge] = True
            bad |= ~inside
        masked = np.where(bad, np.float32(np.nan), image) if bad.any() else image
        if self.contaminants == "keep":
            return masked, 0.0
        foreign = find_contaminants(masked, self.contaminant_width) & ~bad
        return (np.where(foreign, np.float32(np.nan), masked) if foreign.any() else masked), float(
            foreign.mean()
        )

    def _flatten(self, image: np.ndarray) -> np.ndarray:
        if self.background == "gaussian":
            image = image - polynomial_background(image, 1)  # reflecting edges would keep a part of a ramp
            image = image - gaussian_background(image, self.background_width or min(image.shape) / 8)
        elif self.background == "polynomial":
            image = image - polynomial_background(image, self.background_degree)
        return image
