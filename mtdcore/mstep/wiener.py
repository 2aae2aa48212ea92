"""M-steps without a learned prior: Wiener filters whose strength follows from the data, for micrographs with a transfer, and for targets of known
diameter.
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

#: Exponents of the power spectrum that are compared, and number of amplitudes per decade.
_EXPONENTS, _PER_DECADE = np.arange(0.0, 4.5, 0.5), 10

#: Least norm of a target, in noise standard deviations, at which its energy is estimated: that of a faint start, so that no start is shrunk to nothing.
_LEAST_NORM = 2.0

#: The same for the power law of a back-projection, which follows its noise: at 2 one of two faint starts at temperature 1 behind two transfers is
#: lost; at 3 the image is a little worse.
_LEAST_OF_LAW = 2.5

#: Values of a spectrum at equally spaced frequencies from 0 to 1/2.
_VALUES = 33


@dataclass(frozen=True, eq=False)
class SpectralPrior:
    """A stationary Gaussian of mean 0: independent frequencies, with a variance that depends on the radial frequency alone.

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

    Whitening and CTFs suppress some frequencies. Without a prior these frequencies fill with noise, which in the end exceeds the
    image. As in regularised-likelihood refinement (Scheres, J. Struct. Biol. 180 (2012) 519) the strength of the filter follows
    from the power of the image at each frequency; here the power is a power law, since few copies determine no more. If poses are
    uncertain, the back-projection of a faint target is hardly more than noise; so the energy of the law is at least a little more than
    that of a faint start.

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
    """The power law ``P_f = A (f + 1 / L)^-g`` under which the back-projection is most likely; None: it is empty.

    At frequency f the back-projection has the variance ``c_f^2 P_f + c_f sigma^2``, with c_f the number of copies weighted by
    the squared transfer at f.

    Returns:
        (33,) variance per pixel at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
    """
    xp, shape = array_namespace(statistics.right), tuple(statistics.right.shape)
    side = max(shape)
    spectrum = xp.abs(xp.fft.rfftn(statistics.right)) ** 2 / math.prod(shape)
    frequency = radial_frequencies(shape, np.float64)
    ring = np.minimum(np.rint(frequency * side).astype(int), side // 2)
    pixels = np.bincount(ring.ravel())
    # ring by ring; only these few numbers go to the host
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
    """(33,) this spectrum, scaled up if needed so that a copy in the micrographs has at least this expected energy."""
    return np.asarray(power * max(1.0, energy / max(_seen_energy(power, statistics), 1e-300)))


def _seen_energy(power: np.ndarray, statistics: Statistics) -> float:
    """Expected energy of a copy in the micrographs, after their transfer, for a spectrum (33,) as of :func:`target_spectrum`."""
    at = _lengths(tuple(statistics.right.shape))
    grid = np.linspace(0.0, 0.5, _VALUES)
    return float(np.interp(at, grid, power * _share_seen(grid, statistics)).sum())


def _lengths(shape: tuple[int, ...]) -> np.ndarray:
    """Radial frequency, in cycles per pixel, on the whole ``fft2`` grid of an image of this shape."""
    return np.asarray(np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape))))


def _share_seen(frequencies: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Squared transfer at each frequency, averaged over copies."""
    return statistics.normal.copies(frequencies) / max(statistics.expected_count, 1e-300)


@dataclass(frozen=True)
class CompactUpdate:
    """Maximiser of Q plus the log density of images of compact bodies, a :class:`SpectralPrior`; the prior is not used.

    If poses are uncertain, an average over p copies holds a few per cent of the information of p copies with known poses, and free pixels fit noise:
    they reach more evidence than the right image, and another image from each start. A body has a surface, so the spectrum of its projections falls as
    the fourth power of the frequency (Porod 1951). The spectrum here is that of a medium with exponential correlation, ``(1 + (f D)^2)^-2`` (Debye and
    Bueche 1949), at the energy of the target; behind a noise filter it is raised until its filtered energy is at least that of the filtered target.
    Strong signals overrule it: at SNR .2 and a thousand copies it changes nothing.

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
        # a filter hides the low frequencies, which hold most of a compact body's energy: the energy is set by the visible frequencies
        shown = radial_filter(target[None], np.sqrt(_share_seen(np.linspace(0.0, 0.5, _VALUES), statistics)))
        seen = float(xp.sum(shown * shown))
        prior = SpectralPrior(_not_fainter(power, max(seen, least), statistics))
        return DenoisingUpdate()(target, statistics, prior, iteration, iterations)


def compact_spectrum(shape: tuple[int, ...], diameter: float, energy: float) -> np.ndarray:
    """Spectrum of a body of this diameter in pixels, whose image of this shape has this expected sum of squares.

    Returns:
        (33,) variance per pixel at frequencies evenly spaced from 0 to 1/2 cycles per pixel.
    """
    everywhere = _debye_bueche(_lengths(shape), diameter)
    profile = _debye_bueche(np.linspace(0.0, 0.5, _VALUES), diameter)
    return np.asarray(energy / everywhere.sum() * profile)


def _debye_bueche(frequency: np.ndarray, diameter: float) -> np.ndarray:
    return np.asarray((1.0 + (frequency * diameter) ** 2) ** -2)
