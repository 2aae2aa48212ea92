"""Base of the two likelihoods: their views, classes and noise, and the M-step of their common numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import ClassVar, Protocol, Self

import numpy as np

from ..._base.typing import Lengths, pair
from ...data import Measurement
from ...data.derived import filtered, without_offset
from ...data.tiles import TileGeometry
from ...errors import ParameterError
from ..filters.optics import Micrographs, check_number
from ..filters.whitening import Whitening
from ..views import Views
from .amplitudes import Amplitudes

#: Largest deviation from 1 of the sum of the class weights.
_TOLERANCE = 1e-6

#: Early in a run, while the targets are still meaningless, the count and the class weights stay above this share of their
#: start values: otherwise EM can converge to "there are no copies" (docs/model.md 11), or to one class.
FLOOR = 0.5

#: Smallest weight of a class, one copy in a hundred thousand: no class is lost.
_LEAST_WEIGHT = 1e-5

#: Noise level of a micrograph, in units of the common one, below which it counts as damaged rather than quiet.
_QUIETEST = 1e-3


class Found(Protocol):
    """The sums of an E-step from which a likelihood updates its numbers; :class:`mtdcore.Statistics`."""

    @property
    def log_likelihood(self) -> float:
        """Nats."""
        ...

    @property
    def energy(self) -> float:
        """Sum of the squared valid pixels."""
        ...

    @property
    def expected_count(self) -> float:
        """Posterior expected number of copies."""
        ...

    @property
    def empty_mass(self) -> float:
        """Posterior mass of the empty poses."""
        ...

    @property
    def amplitude_sum(self) -> float:
        """Sum of the posterior mean amplitudes of the copies."""
        ...

    @property
    def amplitude_squares(self) -> float:
        """Sum of the posterior mean squares of the amplitudes of the copies."""
        ...

    @property
    def class_mass(self) -> np.ndarray:
        """(C,) posterior mass of the copies of each class."""
        ...

    @property
    def sites(self) -> float:
        """Patches or corners that were scored."""
        ...

    @property
    def pixels(self) -> float:
        """Valid pixels."""
        ...

    @property
    def noise_std(self) -> float:
        """Noise level of the posterior."""
        ...

    @property
    def ledger(self) -> np.ndarray | None:
        """Rows of micrographs, see :class:`mtdcore.Statistics`."""
        ...


@dataclass(frozen=True)
class Likelihood(ABC):
    """A frozen observation model: views of the target, geometry, pose prior, and its numbers with their M-step.

    Subclasses are frozen dataclasses; all fields but the first two are keywords.

    Attributes:
        views: what copies of the target look like.
        noise_std: standard deviation of the white noise, in the units of the measurement.
        margin: extra pixels kept around the box in the statistics (for gauge moves): one number, or (along rows, along
            columns), 0 along an axis on which a copy has one place.
        class_weights: share of each of C classes among the copies; None: one class.
        micrographs: noise levels, counts and optics of the micrographs; None: all are alike.
        offset: value of a pixel without noise and copies, in the units of the measurement.
        whitening: whitening filter of the noise; None: the noise is white.
        amplitude_std: standard deviation of the amplitudes of copies about their mean 1; 0: all are 1.
    """

    views: Views
    noise_std: float
    margin: Lengths = field(default=0, kw_only=True)
    class_weights: tuple[float, ...] | None = field(default=None, kw_only=True)
    micrographs: Micrographs | None = field(default=None, kw_only=True)
    offset: float = field(default=0.0, kw_only=True)
    whitening: Whitening | None = field(default=None, kw_only=True)
    amplitude_std: float = field(default=0.0, kw_only=True)

    #: Whether a copy has one pose, so that its place is defined.
    localises: ClassVar[bool]

    #: Whether strong signals need a falling temperature to be found from random pixels (docs/model.md 8).
    tempered: ClassVar[bool]

    @property
    @abstractmethod
    def geometry(self) -> TileGeometry:
        """The cut of a measurement into tiles."""

    @abstractmethod
    def updated(
        self,
        statistics: Found,
        residual_energy: Callable[[], float] | None,
        first_count: float,
        corners: float,
        early: bool,
    ) -> Self:
        """M-step of every number of the likelihood.

        Args:
            statistics: of the E-step.
            residual_energy: of the new target; None: the noise level is known.
            first_count: expected number of copies at the start of the run.
            corners: sites of one micrograph.
            early: whether counts and weights stay above their share :data:`FLOOR`.
        """

    @abstractmethod
    def evidence(self, statistics: Found) -> float:
        """Nats in favour of the target of an E-step against "no copies"."""

    @property
    def box_size(self) -> int:
        """Side L of the square box in pixels.

        Raises:
            ParameterError: the box is no square.
        """
        height, width = self.views.box_shape
        if height != width:
            raise ParameterError(
                f"a square box is needed here; the views have a box of {height} x {width} pixels."
            )
        return height

    @property
    def margins(self) -> tuple[int, int]:
        """``margin`` along rows and columns."""
        return pair(self.margin)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(h, w) of the box with its margin."""
        (height, width), (above, beside) = self.views.box_shape, self.margins
        return height + 2 * above, width + 2 * beside

    @property
    def inner(self) -> tuple[slice, slice]:
        """The box in a frame."""
        (height, width), (above, beside) = self.views.box_shape, self.margins
        return slice(above, above + height), slice(beside, beside + width)

    @property
    def square(self) -> bool:
        """Whether box and margin are square, as the kernels of the fast backends require."""
        height, width = self.frame_shape
        return height == width and self.margins[0] == self.margins[1]

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.views.classes

    @property
    def templates(self) -> int:
        """Number of templates T of all classes."""
        return self.views.count

    @property
    def template_bias(self) -> np.ndarray:
        """(T,) float64 nats: log prior of each template, minus that of equally likely templates.

        The weights w_c of C classes enter as one number per template, ``log(C w_c)``.
        """
        bias = np.zeros(self.templates) if self.views.log_weights is None else self.views.log_weights
        if self.class_weights is None:
            return bias
        shares = np.log(np.asarray(self.class_weights) * self.classes)
        return np.asarray(bias + np.repeat(shares, self.templates // self.classes))

    @property
    def separation(self) -> int:
        """Smallest distance of two copies in pixels (max norm): the side of the box, if copies do not compete.

        It holds along the longer side of a box that is no square, see :attr:`separations`.
        """
        return max(self.views.box_shape)

    @property
    def separations(self) -> tuple[int, int]:
        """The separation along rows and along columns; along the shorter side of a box at most that side."""
        longest, distance = max(self.views.box_shape), self.separation
        rows, columns = (distance if n == longest else min(distance, n) for n in self.views.box_shape)
        return rows, columns

    @property
    def amplitudes(self) -> Amplitudes | None:
        """The distribution of the amplitudes of copies; None: all are 1."""
        return Amplitudes(self.amplitude_std**2) if self.amplitude_std else None

    @property
    def copies(self) -> float:
        """Expected number of copies in the measurement; 0 where the model has no such number."""
        return 0.0

    def bind(self, shape: tuple[int, int, int]) -> Self:
        """The likelihood of a measurement of this (micrographs, rows, columns) shape.

        Raises:
            ParameterError: its ``micrographs`` are of another number.
        """
        check_number(self.micrographs, shape[0])
        return self

    def of_micrograph(self, index: int) -> Self:
        """The bound likelihood of one micrograph, with its own noise level and transfer."""
        optics = self.micrographs
        if optics is None:
            return self
        noise_std = self.noise_std * float(optics.noise_ratio[index])
        return replace(
            self,
            views=optics.seen_through(self.shown, index),
            noise_std=noise_std,
            micrographs=None,
            whitening=None,
        )

    def of_times(self, factor: float, micrographs: Micrographs | None) -> Self:
        """The same likelihood for ``factor`` times the data, with the numbers ``micrographs``."""
        return replace(self, micrographs=micrographs)

    def with_separation(self, separation: int) -> Self:
        """The same likelihood with another minimum separation in pixels; itself where it has none, or nothing changes."""
        return self

    @property
    def shown(self) -> Views:
        """The views as a measurement of :meth:`whitened` shows them."""
        return self.views if self.whitening is None else self.whitening.seen_through(self.views)

    def whitened(self, measurement: Measurement) -> Measurement:
        """A measurement as the E-step scores it: minus the offset, and whitened."""
        level = without_offset(measurement, self.offset)
        return level if self.whitening is None else filtered(level, self.whitening.kernel)

    def with_whitening(self, whitening: Whitening | None) -> Self:
        """The same likelihood with another whitening filter."""
        return replace(self, whitening=whitening)

    def with_noise_std(self, noise_std: float) -> Self:
        """The same likelihood at another noise level."""
        return replace(self, noise_std=noise_std)

    def with_offset(self, offset: float) -> Self:
        """The same likelihood at another offset."""
        return replace(self, offset=offset)

    def with_amplitude_std(self, amplitude_std: float) -> Self:
        """The same likelihood with another standard deviation of the amplitudes; itself where nothing changes."""
        return self if amplitude_std == self.amplitude_std else replace(self, amplitude_std=amplitude_std)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_std) and self.noise_std > 0):
            raise ParameterError(
                f"noise_std must be a positive finite number in the units of the measurement; got {self.noise_std}."
            )
        if not math.isfinite(self.offset):
            raise ParameterError(
                f"offset must be a finite number in the units of the measurement; got {self.offset}."
            )
        if not (math.isfinite(self.amplitude_std) and self.amplitude_std >= 0.0):
            raise ParameterError(
                f"amplitude_std must be zero or a positive finite number; got {self.amplitude_std}."
            )
        if min(self.margins) < 0:
            raise ParameterError(f"margin must be zero or a positive number of pixels; got {self.margin}.")
        weights = self.class_weights
        if weights is None:
            return
        if len(weights) != self.classes or not all(0.0 < w <= 1.0 for w in weights):
            raise ParameterError(
                f"class weights should be numbers in (0, 1], one for each of {self.classes} classes; got {weights}."
            )
        if not math.isclose(sum(weights), 1.0, abs_tol=_TOLERANCE):
            raise ParameterError(f"class weights should sum to 1; {weights} sum to {sum(weights)}.")

    def _common_numbers(
        self, statistics: Found, residual_energy: Callable[[], float] | None, corners: float, early: bool
    ) -> Self:
        """M-step of class weights, of the numbers of micrographs, and of the noise level."""
        model = self
        if model.class_weights is not None:
            weights = shares(statistics.class_mass, FLOOR if early else 0.0)
            model = replace(model, class_weights=weights)
        if model.micrographs is not None and statistics.ledger is not None:
            optics = model.entered(model.micrographs, statistics.ledger, corners, residual_energy is not None)
            model = replace(model, micrographs=optics)
        if residual_energy is None or not statistics.pixels:  # a mini-batch may lie under a mask
            return model
        return model.with_noise_std(math.sqrt(max(residual_energy(), 0.0) / statistics.pixels))

    def entered(
        self, optics: Micrographs, ledger: np.ndarray, corners: float, learn_noise: bool
    ) -> Micrographs:
        """M-step of the numbers of micrographs, in absolute terms; micrographs outside of a mini-batch keep theirs.

        Args:
            optics: numbers of the micrographs so far.
            ledger: of the E-step, see :mod:`mtdcore.estep.ledger`.
            corners: sites of one micrograph.
            learn_noise: whether noise levels are learned, ``sigma_m^2 = residual energy / pixels``.
        """
        seen, _, pixels, residual, _ = ledger.T
        index = seen.astype(np.int64)
        noise = self.noise_std * optics.noise_ratio
        if learn_noise:
            known = pixels > 0
            noise[index[known]] = np.sqrt(np.maximum(residual[known] / pixels[known], 0.0))
            noise = np.maximum(noise, _QUIETEST * self.noise_std)
        return replace(optics, noise=noise)


def equal_weights(views: Views) -> tuple[float, ...] | None:
    """Weights of classes at the start; None: there is one class."""
    return None if views.classes == 1 else (1.0 / views.classes,) * views.classes


def shares(mass: np.ndarray, least: float) -> tuple[float, ...]:
    """Weights of the classes: their shares of the posterior mass, none below ``least`` / C.

    Args:
        mass: (C,) posterior mass of each class.
        least: smallest share relative to equal weights, 0 .. 1.
    """
    total = mass.sum()
    weights = mass / total if total > 0.0 else np.full(len(mass), 1.0 / len(mass))
    floor = max(least / len(mass), _LEAST_WEIGHT)
    low = np.zeros(len(mass), bool)
    while (weights < floor).any():  # raising some weights may bring others below the floor
        low |= weights < floor
        rest = np.where(low, 0.0, mass)
        weights = np.where(low, floor, rest * (1.0 - floor * low.sum()) / max(rest.sum(), 1e-300))
    return tuple(float(w) for w in weights)


def check_whole(name: str, value: object, unit: str) -> None:
    """Raise ParameterError unless the value is a positive whole number."""
    if not isinstance(value, Integral) or value < 1:
        raise ParameterError(f"{name} must be a positive number of {unit}; got {value!r}.")
