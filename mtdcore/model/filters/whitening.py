"""Coloured noise: its spectrum, and its whitening filter (docs/model.md 15).

The filter, the reciprocal of the amplitude spectrum of the noise, acts on measurement and templates, not on the target. The
filtered measurement has white noise and filtered copies; the rest of the model is unchanged.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..._base.numerics.convolution import convolve, wrapped
from ..._base.numerics.fourier import radial_frequencies
from ..._base.typing import Array
from ...errors import ParameterError
from ..normal import Normal, PerView
from ..views import EVERY, Classes, Composed, Views, extended

#: Largest gain of the filter, relative to that at a typical frequency: a detector or an earlier filter may have removed some frequencies.
MOST = 20.0

#: Largest side of a spectrum that is read from a record.
_LARGEST = 4096


@dataclass(frozen=True, eq=False)
class Whitening:
    """The noise of a measurement as a filter.

    Attributes:
        amplitude: (P, P // 2 + 1) positive, on the ``rfft2`` grid of P x P pixels, P even: standard deviation of the noise at each
            frequency, relative to that at the median frequency.
        cutoff: cycles per pixel up to which a slow background is removed; 0: there is no background.

    Raises:
        ParameterError: amplitudes of another shape, or not positive.
    """

    amplitude: np.ndarray
    cutoff: float = 0.0

    def __post_init__(self) -> None:
        amplitude = np.array(self.amplitude, np.float32).astype(np.float64)  # what a record holds
        side = len(amplitude)
        if amplitude.ndim != 2 or side % 2 or amplitude.shape[1] != side // 2 + 1:
            raise ParameterError(
                f"the amplitude spectrum of noise should have the shape (P, P // 2 + 1), P even; got {amplitude.shape}."
            )
        if not 0.0 <= self.cutoff <= 0.5:
            raise ParameterError(f"the cutoff should be from 0 to 1/2 cycles per pixel; got {self.cutoff}.")
        if not (np.isfinite(amplitude).all() and amplitude.min() > 0.0):
            raise ParameterError("the amplitude spectrum of noise should be positive and finite everywhere.")
        amplitude.flags.writeable = False
        object.__setattr__(self, "amplitude", amplitude)

    @property
    def background(self) -> bool:
        """Whether there is a slow background."""
        return self.cutoff > 0.0

    @property
    def reach(self) -> int:
        """Pixels that the filter reaches to each side."""
        return len(self.amplitude) // 2 - 1

    @cached_property
    def kernel(self) -> np.ndarray:
        """(2 R + 1, 2 R + 1) filter: point-symmetric; with a background it removes constants and slopes."""
        gains = 1.0 / self.amplitude
        if not self.background:
            return self._kernel(gains)
        side = len(gains)
        frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
        kernel = self._kernel(np.where(frequency <= self.cutoff, 0.0, gains))
        hill = _taper(len(kernel)) ** 2
        return np.asarray(kernel - hill * (kernel.sum() / hill.sum()))

    @cached_property
    def colouring(self) -> np.ndarray:
        """(2 R + 1, 2 R + 1) filter that gives white noise this spectrum."""
        return self._kernel(self.amplitude)

    @cached_property
    def power(self) -> np.ndarray:
        """(2 P, P + 1) squared gain of the filter on the ``rfft2`` grid of 2 P x 2 P pixels."""
        side = 2 * len(self.amplitude)
        return np.asarray(np.abs(np.fft.rfft2(wrapped(self.kernel, (side, side)))) ** 2)

    def radial_power(self, frequencies: np.ndarray) -> np.ndarray:
        """(n,) squared gain of the filter at (n,) frequencies from 0 to 1/2 cycles per pixel, averaged over directions."""
        side = 2 * len(self.amplitude)
        ring = np.rint(side * radial_frequencies((side, side), np.float64)).astype(int)
        mean = np.bincount(ring.ravel(), self.power.ravel()) / np.bincount(ring.ravel())
        return np.asarray(np.interp(frequencies * side, np.arange(len(mean)), mean))

    def seen_through(self, views: Views) -> Views:
        """The views as the filtered measurement shows them."""
        if isinstance(views, Classes):
            return Classes(Whitened(views.views, self), views.number)
        return Whitened(views, self)

    def agrees(self, other: Whitening | None, tolerance: float) -> bool:
        """Whether the relative difference to another filter (root mean square) is at most ``tolerance``."""
        if other is None or other.cutoff != self.cutoff or other.amplitude.shape != self.amplitude.shape:
            return False
        ratio = np.log(self.amplitude / other.amplitude)
        weight = 1.0 / self.amplitude**2
        return math.sqrt(float(np.average(ratio**2, weights=weight))) <= tolerance

    def record(self) -> dict[str, Any]:
        """The filter as JSON-able values; the spectrum as base64 of deflated little-endian float32, which hold it exactly."""
        packed = base64.b64encode(zlib.compress(self.amplitude.astype("<f4").tobytes(), 9)).decode("ascii")
        return {"side": len(self.amplitude), "cutoff": self.cutoff, "amplitude": packed}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Whitening:
        """The filter of a record of :meth:`record`."""
        side, packed = int(record["side"]), base64.b64decode(record["amplitude"], validate=True)
        if not 0 < side <= _LARGEST:
            raise ValueError(f"side of the noise spectrum should be at most {_LARGEST} pixels; it is {side}")
        size = 4 * side * (side // 2 + 1)
        unpacked = zlib.decompressobj().decompress(packed, size)
        return cls(np.frombuffer(unpacked, "<f4").reshape(side, side // 2 + 1), float(record["cutoff"]))

    @property
    def sentence(self) -> str:
        """The noise described in one sentence."""
        low, high = np.quantile(self.amplitude, (0.05, 0.95))
        slow = (
            f"; a slow background, of periods beyond {1.0 / self.cutoff:.0f} pixels, is removed"
            if self.background
            else ""
        )
        return (
            f"the noise is not white: its spectrum was learned with the target (amplitudes {low:.3g} to {high:.3g} times the median at nine "
            f"frequencies of ten, {self.amplitude.max():.3g} at most){slow}"
        )

    def _kernel(self, factors: np.ndarray) -> np.ndarray:
        side, reach = len(factors), self.reach
        whole = np.fft.fftshift(np.fft.irfft2(factors, (side, side)))
        middle = whole[side // 2 - reach :, side // 2 - reach :][: 2 * reach + 1, : 2 * reach + 1]
        symmetric = 0.5 * (middle + middle[::-1, ::-1])
        return np.asarray(symmetric * _taper(2 * reach + 1))


@dataclass(frozen=True, eq=False)
class Whitened(Composed):
    """Views through the whitening filter of the noise.

    Attributes:
        views: without the filter.
        whitening: the noise.
    """

    whitening: Whitening

    @property
    def exact(self) -> bool:
        """False: a filter does not permute pixels."""
        return False

    @property
    def gain(self) -> float:
        """The gain of the views, times the largest squared gain of the filter."""
        return self.views.gain * float(self.whitening.power.max())

    def apply(self, target: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        return convolve(self.views.apply(target, part), self.whitening.kernel)

    def adjoint(self, stack: Array, part: slice = EVERY) -> Array:
        """See :class:`Views`."""
        return self.views.adjoint(convolve(stack, self.whitening.kernel), part)

    def normal(self, coverage: Array, part: slice = EVERY) -> Normal:
        """See :class:`Views`."""
        return Uneven(self, extended(coverage, part, self.count))


@dataclass(frozen=True)
class Uneven(PerView):
    """A weight for each pixel of each filtered template; frequencies that the filter damps weigh much less than others."""

    views: Whitened

    @property
    def spread(self) -> float:
        """See :class:`mtdcore.model.normal.Normal`."""
        power = self.views.whitening.power
        return float(power.max() / power.mean())

    def copies(self, frequencies: np.ndarray) -> np.ndarray:
        """See :class:`mtdcore.model.normal.Normal`; averaged over directions."""
        xp = array_namespace(self.coverage)
        counted = self.views.views.gain * float(xp.sum(xp.max(self.coverage, axis=(1, 2))))
        return counted * self.views.whitening.radial_power(frequencies)


def _taper(side: int) -> np.ndarray:
    """(side, side) taper: 1 in the middle, falling to 0 as a cosine over the outer half of the distance to an edge."""
    way = np.abs(np.linspace(-1.0, 1.0, side))
    line = 0.5 * (1.0 + np.cos(np.pi * np.clip(2.0 * way - 1.0, 0.0, 1.0)))
    return np.outer(line, line)
