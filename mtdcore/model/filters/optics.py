"""Differences between the micrographs of one measurement: noise, number of copies, optics.

The micrographs of a stack share only the target. Micrograph m has white noise of standard deviation
sigma_m, p_m expected copies, and shows the target through a real, isotropic transfer function H_m: the radial gain of a
whitening filter, or the magnitude of the CTF where phases were flipped. Such a filter commutes with rotations.
Which pixels may be used belongs to the measurement (:func:`mtdcore.open_measurement`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._base.numerics.fourier import radial_filter
from ..._base.typing import Array
from ...errors import ParameterError
from ..normal import Blocks, Normal, PerView, Spectral
from ..views import EVERY, Classes, Composed, Views, extended


@dataclass(frozen=True, eq=False)
class Micrographs:
    """Noise level, expected count and optics of each of M micrographs, carried by a likelihood.

    Noise levels and counts are relative: only their ratios matter. The likelihood has their scale, ``noise_std``
    (root mean square of the noise levels) and ``expected_count`` (sum of the counts). Absolute values may therefore be given
    as well, and a likelihood at another noise level or temperature uses the same ones.

    Attributes:
        noise: (M,) positive, noise levels relative to one another.
        count: (M,) positive, expected numbers of copies relative to one another (window model); None: equal.
        transfer: (M, R) finite, R >= 2: the factor H_m that the target meets at R frequencies evenly spaced from 0 to
            1/2 cycles per pixel, both included; linear between them, constant beyond. None: 1 everywhere.

    Raises:
        ParameterError: arrays of other shapes or values.
    """

    noise: np.ndarray
    count: np.ndarray | None = None
    transfer: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, ndim in (("noise", 1), ("count", 1), ("transfer", 2)):
            given = getattr(self, name)
            if given is not None:
                array = np.array(given, dtype=np.float64)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
                self._check(name, array, ndim)

    def __len__(self) -> int:
        return len(self.noise)

    @property
    def noise_ratio(self) -> np.ndarray:
        """(M,) sigma_m over the root mean square of all sigma_m."""
        return np.asarray(self.noise / np.sqrt(np.mean(self.noise**2)))

    @property
    def weights(self) -> np.ndarray:
        """(M,) sigma^2 / sigma_m^2: weight of each micrograph in the statistics, sigma the common noise level."""
        return np.asarray(1.0 / self.noise_ratio**2)

    @property
    def count_share(self) -> np.ndarray:
        """(M,) p_m over the sum of all p_m."""
        count = np.ones(len(self)) if self.count is None else self.count
        return np.asarray(count / count.sum())

    def seen_through(self, views: Views, index: int) -> Views:
        """The views as one micrograph shows them."""
        return views if self.transfer is None else Defocused(views, self.transfer[index])

    def _check(self, name: str, array: np.ndarray, ndim: int) -> None:
        fits = array.ndim == ndim and len(array) == len(self.noise) and array.size and array.shape[-1] >= ndim
        if not fits or not np.isfinite(array).all() or (ndim == 1 and array.min() <= 0.0):
            wanted = "(M, R) finite numbers, R >= 2," if ndim == 2 else "(M,) positive numbers"
            raise ParameterError(
                f"{name} should hold {wanted} for the M = {len(self.noise)} micrographs; got an array of shape "
                f"{array.shape} from {array.min(initial=math.inf):g} to {array.max(initial=-math.inf):g}."
            )


def check_number(facts: Micrographs | None, micrographs: int) -> None:
    """Raise ParameterError if ``facts`` are of another number of micrographs."""
    if facts is not None and len(facts) != micrographs:
        raise ParameterError(
            f"the measurement has {micrographs} micrographs, the facts about them are for {len(facts)}: give one of "
            "each per micrograph, in the order of the stack."
        )


@dataclass(frozen=True, eq=False)
class Defocused(Composed):
    """Views through a real, isotropic transfer function.

    Attributes:
        views: without transfer.
        transfer: (R,) NumPy float64, factors as in :attr:`Micrographs.transfer`.
    """

    transfer: np.ndarray

    @property
    def exact(self) -> bool:
        """False: a filter does not permute pixels."""
        return False

    @property
    def gain(self) -> float:
        """The gain of the views, times the largest squared factor."""
        return self.views.gain * float(np.square(self.transfer).max())

    def seen(self, templates: Array) -> Array:
        """Filter the (t, h, w) templates of the views by the transfer."""
        return radial_filter(templates, self.transfer)

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        return self.seen(self.views.apply(target, part))

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        return self.views.adjoint(self.seen(stack), part)

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """See :class:`Views`."""
        return PerView(self, extended(coverage, part, self.count))


def spectral(views: Views, spectrum: np.ndarray) -> Normal:
    """The normal operator of views through transfers, as a weight for each frequency of each template.

    Args:
        views: without transfer.
        spectrum: (T, R) NumPy float64, ``sum_m c_mt H_m^2``, c_mt the copies of template t in micrograph m.
    """
    if isinstance(views, Classes):
        return Blocks(tuple(Spectral(views.views, part) for part in np.split(spectrum, views.classes)))
    return Spectral(views, spectrum)
