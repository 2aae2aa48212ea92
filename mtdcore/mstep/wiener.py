"""M-steps without a learned prior whose strength follows from the data: a Wiener filter where micrographs have a transfer, and one where the
diameter of the target is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace

from .._base.numerics.fourier import radial_filter, radial_frequencies
from .._base.typing import Array
from ..estep.statistics import Statistics
from ..model.priors import Prior
from .updates import DenoisingUpdate, Frame, Random

#: Exponents of the power spectrum that are compared, and how many powers a decade.
_EXPONENTS, _PER_DECADE = np.arange(0.0, 4.5, 0.5), 10

#: Least norm of a target in noise standard deviations that its energy is taken from: that of a faint start, so that none is shrunk to nothing.
_LEAST_NORM = 2.0

#: The same of the power law of a back-projection, which follows its noise: at 2, of two cold starts behind two transfers one is lost; at 3 the
#: image is a little worse.
_LEAST_OF_LAW = 2.5

#: Values of a spectrum at equally spaced frequencies from 0 to 1/2.
_VALUES = 33


@dataclass(frozen=True, eq=False)
class SpectralPrior:
    """A stationary Gaussian of mean 0: independent frequencies, with a variance that depends on their length alone.

    Attributes:
        power: (R,) variance per pixel at R frequencies evenly spaced from 0 to 1/2 cycles per pixel, positive.
    """

    power: np.ndarray

    def score(self, images: Array, noise_std: float) -> Array:
        """``-(P + noise_std^2)^-1 x``, frequency by frequency."""
        return radial_filter(images, -1.0 / (self.power + noise_std**2))


@dataclass(frozen=True)
class WienerUpdate:
    """Maximiser of Q plus the log density of a :class:`SpectralPrior`, estimated anew in every M-step; the prior is not used.

    Whitening and CTFs hardly let some frequencies through. Without a prior these fill up with noise, in the end more than there is
    image. As in regularised-likelihood refinement (Scheres, J. Struct. Biol. 180 (2012) 519) the strength of the filter follows
    from the power of the image at each frequency; here a power law, since few copies do not tell more. Where poses are in doubt the
    back-projection of a faint target is hardly more than noise; the image that is expected is kept a little stronger than a faint start.

    Attributes:
        steps: proximal-gradient steps per E-step, see :class:`DenoisingUpdate`.
    """

    steps: int = 20

    uses_prior: ClassVar[bool] = False
    fits_scale: ClassVar[bool] = False
    gauge: ClassVar[Frame] = "centre"
    start: ClassVar[Random] = "faint"
    learns_offset: ClassVar[bool] = True

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`mtdcore.mstep.updates.Update`."""
        power = target_spectrum(statistics)
        if power is None:
            return target
        prior = SpectralPrior(_not_fainter(power, (_LEAST_OF_LAW * statistics.noise_std) ** 2, statistics))
        return DenoisingUpdate(self.steps)(target, statistics, prior, iteration, iterations)


def target_spectrum(statistics: Statistics) -> np.ndarray | None:
    """The power law ``P_f = A (f + 1 / L)^-g`` under which the back-projection is most likely; None: nothing was seen.

    At frequency f the back-projection has the variance ``c_f^2 P_f + c_f sigma^2``, with c_f the copies, weighed by the squared
    transfer, that saw f.

    Returns:
        (33,) variance per pixel at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
    """
    xp, shape = array_namespace(statistics.right), tuple(statistics.right.shape)
    side = max(shape)
    spectrum = xp.abs(xp.fft.rfftn(statistics.right)) ** 2 / math.prod(shape)
    frequency = radial_frequencies(shape, np.float64)
    ring = np.minimum(np.rint(frequency * side).astype(int), side // 2)
    pixels = np.bincount(ring.ravel())
    # ring by ring on the host: a few numbers
    measured = np.array(
        [float(xp.sum(xp.where(xp.asarray(ring == r), spectrum, 0.0))) for r in range(len(pixels))]
    )
    measured /= pixels
    at = np.minimum(np.arange(len(pixels)) / side, 0.5)
    copies = statistics.normal.copies(at)
    if not (copies.max() > 0.0 and measured.max() > 0.0):
        return None
    noise = copies * statistics.noise_std**2
    largest = float((measured / np.maximum(copies, 1e-6 * copies.max()) ** 2).max())
    amplitudes = largest * 10.0 ** np.arange(-12, 3, 1 / _PER_DECADE)
    shapes = (at + 1 / side) ** -_EXPONENTS[:, None] / (1 / side) ** -_EXPONENTS[:, None]
    variance = amplitudes[:, None, None] * shapes * copies**2 + noise + 1e-300
    likelihood = -np.sum(pixels * (np.log(variance) + measured / variance), axis=-1)
    best, law = np.unravel_index(int(np.argmax(likelihood)), likelihood.shape)
    wanted = (np.linspace(0.0, 0.5, _VALUES) + 1 / side) * side
    return np.asarray(amplitudes[best] * wanted ** -_EXPONENTS[law])


def _not_fainter(power: np.ndarray, energy: float, statistics: Statistics) -> np.ndarray:
    """(33,) this spectrum, raised until a copy is expected to show so much energy in the micrographs."""
    return np.asarray(power * max(1.0, energy / max(_seen_energy(power, statistics), 1e-300)))


def _seen_energy(power: np.ndarray, statistics: Statistics) -> float:
    """Mean sum of squares of images of this spectrum, (33,) as of :func:`target_spectrum`, as a copy in the micrographs shows it."""
    at = _lengths(tuple(statistics.right.shape))
    grid = np.linspace(0.0, 0.5, _VALUES)
    return float(np.interp(at, grid, power * _share_seen(grid, statistics)).sum())


def _lengths(shape: tuple[int, ...]) -> np.ndarray:
    """Cycles per pixel of every frequency of an image of this shape, each of a pair of opposite ones."""
    return np.asarray(np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape))))


def _share_seen(frequencies: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Squared transfer at each frequency, the mean over copies."""
    return statistics.normal.copies(frequencies) / max(statistics.expected_count, 1e-300)


@dataclass(frozen=True)
class CompactUpdate:
    """Maximiser of Q plus the log density of images of compact bodies, a :class:`SpectralPrior`; the prior is not used.

    Where poses are in doubt an average over p copies tells a few per cent of what p copies tell, and free pixels fit noise: with more evidence than
    the right image has, and another image from each start. A body has a surface, so the spectrum of its projections falls as the fourth power of
    the frequency (Porod 1951). Here it is that of a medium whose correlation is exponential, ``(1 + (f D)^2)^-2`` (Debye and Bueche 1949), at the
    energy of the target, behind a filter of the noise at least at the energy that the filter shows. Strong signals overrule it: at SNR .2 and a thousand copies it changes nothing.

    Attributes:
        diameter: D of the body, pixels.
    """

    diameter: float

    uses_prior: ClassVar[bool] = False
    fits_scale: ClassVar[bool] = False
    gauge: ClassVar[Frame] = "energy"
    start: ClassVar[Random] = "random"
    learns_offset: ClassVar[bool] = True

    def __call__(
        self, target: Array, statistics: Statistics, prior: Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`mtdcore.mstep.updates.Update`."""
        xp = array_namespace(target)
        least = (_LEAST_NORM * statistics.noise_std) ** 2
        power = compact_spectrum(
            tuple(target.shape), self.diameter, max(float(xp.sum(target * target)), least)
        )
        # a filter hides the slow frequencies, where a compact body has most of its energy: what the others show counts
        shown = radial_filter(target[None], np.sqrt(_share_seen(np.linspace(0.0, 0.5, _VALUES), statistics)))
        seen = float(xp.sum(shown * shown))
        prior = SpectralPrior(_not_fainter(power, max(seen, least), statistics))
        return DenoisingUpdate()(target, statistics, prior, iteration, iterations)


def compact_spectrum(shape: tuple[int, ...], diameter: float, energy: float) -> np.ndarray:
    """Of a body of this diameter in pixels whose image, of this shape, has this sum of squares.

    Returns:
        (33,) variance per pixel at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
    """
    everywhere = _debye_bueche(_lengths(shape), diameter)
    profile = _debye_bueche(np.linspace(0.0, 0.5, _VALUES), diameter)
    return np.asarray(energy / everywhere.sum() * profile)


def _debye_bueche(frequency: np.ndarray, diameter: float) -> np.ndarray:
    return np.asarray((1.0 + (frequency * diameter) ** 2) ** -2)
