"""The interface of a prior: one method, the score of the smoothed density (docs/model.md 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array, Lengths
from ..errors import ParameterError


@runtime_checkable
class Prior(Protocol):
    """A density over images, known through its score at every noise level.

    Optional attributes:

    - ``centre``, (row, column) in pixels: place of the centres of mass of its images (the middle of L pixels is (L - 1) / 2). The
      gauge puts the target there. Without ``centre``, or if it is None, the centre is that of a few samples, which costs denoiser
      calls. A prior of several boxes has a method ``centre_in(box_size)`` instead (:func:`centre_of` asks for either);
    - ``own_units``: true if the images have units of their own, as those of a trained network. ``recover`` then estimates the size
      of one such unit in units of the measurement;
    - ``spread``: typical size of the pixel values of its images, in its units, if far from 1 (:func:`spread_of`);
    - ``flat``: true if the prior has no preference (:func:`is_flat`).
    """

    def score(self, images: Array, noise_std: float) -> Array:
        """Gradient of the log density of *image + N(0, noise_std^2)*.

        Args:
            images: (B, L, L) floating-point array of any library.
            noise_std: diffusion level s >= 0, in the units of the images.

        Returns:
            (B, L, L) of the same library, dtype and device.
        """
        ...


def denoise(prior: Prior, images: Array, level: float) -> Array:
    """Posterior mean of the clean images given images with white noise of standard deviation ``level``.

    Tweedie's formula ``D(y; s) = y + s^2 score(y, s)`` (docs/model.md 5); shapes as in :meth:`Prior.score`.
    """
    return images + level**2 * prior.score(images, level)


def spread_of(prior: Prior) -> float:
    """Typical size of the pixel values of a prior's images, in its units: its attribute ``spread``, 1 where it has none."""
    return float(getattr(prior, "spread", 1.0))


def has_own_units(prior: Prior) -> bool:
    """Whether the images of a prior have units of their own."""
    return bool(getattr(prior, "own_units", False))


def centre_of(prior: Prior, box_size: Lengths) -> tuple[float, ...] | None:
    """(row, column), for volumes (z, y, x): centre of the images of a prior in a box of ``box_size`` pixels; None: unknown."""
    asked = getattr(prior, "centre_in", None)
    centre = getattr(prior, "centre", None) if asked is None else asked(box_size)
    return None if centre is None else tuple(float(c) for c in centre)


@dataclass(frozen=True)
class ScaledPrior:
    """A prior in other units: ``scale`` times an image of ``prior``, ``D_scale(y; s) = scale D(y / scale; s / scale)``.

    Attributes:
        prior: over images in its own units.
        scale: alpha > 0, size of one such unit in units of the measurement.
    """

    prior: Prior
    scale: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ParameterError(f"the scale of a prior must be positive and finite; got {self.scale}.")

    def score(self, images: Array, noise_std: float) -> Array:
        """``score(x / alpha, s / alpha) / alpha``, see :meth:`Prior.score`."""
        return self.prior.score(images / self.scale, noise_std / self.scale) / self.scale

    @property
    def spread(self) -> float:
        """See :func:`spread_of`."""
        return self.scale * spread_of(self.prior)

    def centre_in(self, box_size: Lengths) -> tuple[float, ...] | None:
        """See :func:`centre_of`: units do not move an image."""
        return centre_of(self.prior, box_size)


@dataclass(frozen=True)
class FlatPrior:
    """No preference: the score is zero and the denoiser the identity."""

    flat: ClassVar[bool] = True

    def score(self, images: Array, noise_std: float) -> Array:
        """Zeros like ``images``."""
        return array_namespace(images).zeros_like(images)


def is_flat(prior: Prior) -> bool:
    """Whether a prior has no preference: its attribute ``flat``, false where it has none."""
    return bool(getattr(prior, "flat", False))


@dataclass(frozen=True)
class GaussianPrior:
    """N(mean, std^2 I), for which every step of the engine is exact.

    Mean and std are in the units of the measurement: for c times the measurement they are c times as large.

    Attributes:
        mean: scalar or array of the shape of the box, prior mean of each pixel.
        std: positive standard deviation of each pixel.
    """

    mean: float | np.ndarray
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.std) and self.std > 0):
            raise ParameterError(f"the std of a Gaussian prior must be positive; got {self.std}.")
        if not np.all(np.isfinite(self.mean)):
            raise ParameterError("the mean of a Gaussian prior must be finite.")

    @property
    def spread(self) -> float:
        """Root mean square of the pixels under the prior."""
        return math.sqrt(float(np.mean(np.square(self.mean))) + self.std**2)

    def score(self, images: Array, noise_std: float) -> Array:
        """``(mean - x) / (std^2 + noise_std^2)``."""
        xp = array_namespace(images)
        mean = xp.asarray(self.mean, dtype=images.dtype, device=device(images))
        return (mean - images) / (self.std**2 + noise_std**2)
