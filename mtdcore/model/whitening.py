"""Noise that is not white: its spectrum, and the filter that makes it so (docs/model.md 13).

Measurement and templates pass one over the amplitude spectrum of the noise; the target does not. What is left is white
noise and copies seen through a filter, for which everything else holds as it stands.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .._base.numerics.convolution import convolve, wrapped
from .._base.typing import Array
from ..errors import ParameterError
from .normal import Normal, PerView
from .views import EVERY, Classes, Composed, Views, extended

#: Largest gain of the filter, and of its inverse: where a detector or an earlier filter left nothing, nothing is.
MOST = 20.0


@dataclass(frozen=True, eq=False)
class Whitening:
    """The noise of a measurement as a filter.

    Attributes:
        amplitude: (P, P // 2 + 1) positive, on the ``rfft2`` grid of P x P pixels, P even: standard deviation of the noise at each
            frequency, relative to the ``noise_std`` of the likelihood.
        background: whether periods beyond about four boxes are removed altogether.

    Raises:
        ParameterError: amplitudes of another shape, or not positive.
    """

    amplitude: np.ndarray
    background: bool = False

    def __post_init__(self) -> None:
        amplitude = np.array(self.amplitude, np.float32).astype(np.float64)  # what a record holds
        side = len(amplitude)
        if amplitude.ndim != 2 or side % 2 or amplitude.shape[1] != side // 2 + 1:
            raise ParameterError(
                f"the amplitude spectrum of noise should have the shape (P, P // 2 + 1), P even; got {amplitude.shape}."
            )
        if not (np.isfinite(amplitude).all() and amplitude.min() > 0.0):
            raise ParameterError("the amplitude spectrum of noise should be positive and finite everywhere.")
        amplitude.flags.writeable = False
        object.__setattr__(self, "amplitude", amplitude)

    @property
    def reach(self) -> int:
        """Pixels that the filter reaches to each side."""
        return len(self.amplitude) // 2 - 1

    @cached_property
    def kernel(self) -> np.ndarray:
        """(2 R + 1, 2 R + 1) the filter: point-symmetric, and blind to constants and slopes where there is a background."""
        kernel = self._kernel(1.0 / self.amplitude)
        if self.background:
            hill = _taper(len(kernel)) ** 2
            kernel = kernel - hill * (kernel.sum() / hill.sum())
        return kernel

    @cached_property
    def colouring(self) -> np.ndarray:
        """(2 R + 1, 2 R + 1) its inverse, which gives white noise the spectrum; within the bounds of the gain."""
        return self._kernel(np.minimum(self.amplitude, MOST))

    @cached_property
    def power(self) -> np.ndarray:
        """Squared gain of the filter at each frequency of a grid of its own."""
        side = 2 * len(self.amplitude)
        return np.asarray(np.abs(np.fft.rfft2(wrapped(self.kernel, (side, side)))) ** 2)

    def seen_through(self, views: Views) -> Views:
        """The views as the filtered measurement shows them."""
        if isinstance(views, Classes):
            return Classes(Whitened(views.views, self), views.number)
        return Whitened(views, self)

    def agrees(self, other: Whitening | None, tolerance: float) -> bool:
        """Whether another filter differs by no more than this share of the gain, root mean square."""
        if other is None or other.background != self.background:
            return False
        ratio = np.log(self.amplitude / other.amplitude)
        weight = 1.0 / self.amplitude**2
        return math.sqrt(float(np.average(ratio**2, weights=weight))) <= tolerance

    def record(self) -> dict[str, Any]:
        """The filter as JSON-able values; the spectrum as base64 of little-endian float32, which holds it exactly."""
        packed = base64.b64encode(self.amplitude.astype("<f4").tobytes()).decode("ascii")
        return {"side": len(self.amplitude), "amplitude": packed, "background": self.background}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Whitening:
        """The filter of which :meth:`record` made this."""
        side, packed = int(record["side"]), base64.b64decode(record["amplitude"], validate=True)
        amplitude = np.frombuffer(packed, "<f4").reshape(side, side // 2 + 1)
        return cls(amplitude, bool(record["background"]))

    @property
    def sentence(self) -> str:
        """What was found, in plain words."""
        low, high = np.quantile(self.amplitude, (0.05, 0.95))
        slow = "; a slow background was found and removed" if self.background else ""
        return (
            f"the noise is not white (9 of 10 frequencies: {low:.2g} to {high:.2g} times noise_std, the strongest {self.amplitude.max():.2g} "
            f"times): its spectrum was learned with the image{slow}"
        )

    def _kernel(self, factors: np.ndarray) -> np.ndarray:
        side, reach = len(factors), self.reach
        whole = np.fft.fftshift(np.fft.irfft2(factors, (side, side)))
        middle = whole[side // 2 - reach :, side // 2 - reach :][: 2 * reach + 1, : 2 * reach + 1]
        symmetric = 0.5 * (middle + middle[::-1, ::-1])
        return np.asarray(symmetric * _taper(2 * reach + 1))


@dataclass(frozen=True, eq=False)
class Whitened(Composed):
    """Views through the filter that makes the noise white.

    Attributes:
        views: without it.
        whitening: the noise.
    """

    whitening: Whitening

    @property
    def exact(self) -> bool:
        """A filter permutes nothing."""
        return False

    @property
    def gain(self) -> float:
        """That of the views, times the largest squared gain of the filter."""
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
    """A weight for each pixel of each template, some of whose frequencies weigh much less than others."""

    views: Whitened

    @property
    def spread(self) -> float:
        """See :class:`mtdcore.model.normal.Normal`."""
        power = self.views.whitening.power
        return float(power.max() / power.mean())


def _taper(side: int) -> np.ndarray:
    """(side, side) 1 in the middle, a cosine to 0 over the outer half of the way to an edge."""
    way = np.abs(np.linspace(-1.0, 1.0, side))
    line = 0.5 * (1.0 + np.cos(np.pi * np.clip(2.0 * way - 1.0, 0.0, 1.0)))
    return np.outer(line, line)
