"""Sufficient statistics of an E-step, in target space (docs/model.md 3 and 7).

Statistics are a sum over tiles: chunks, threads, processes and machines add them, and they suffice for the M-step.
They do not depend on the scored views: iterations, batches and workers may use different sets of rotations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace

from .._base.numerics.conversion import on_host
from .._base.records import Sealed
from .._base.typing import Array, Lengths, plain
from ..errors import ParameterError
from ..model.normal import Blocks, Normal
from ..model.records import normal_from_record, normal_record
from ..model.views import Views
from .ledger import joined
from .sums import SCALARS, TemplateSums

#: Names of the saved numbers, and of the terms that ``+`` adds beside the quadratic.
_NUMBERS = (*SCALARS, "noise_std")
_SUMMED = ("class_mass", *SCALARS)


@dataclass(frozen=True)
class Quadratic:
    """``<F, N F> - 2 <F, right>``: the part of the expected squared residual that depends on the target.

    Attributes:
        right: ``sum_t A_t^T b_t``, float64 of the shape of the target.
        normal: ``N = sum_t A_t^T c_t A_t``.
    """

    right: Array
    normal: Normal

    def __add__(self, other: Quadratic) -> Quadratic:
        return Quadratic(self.right + other.right, self.normal + other.normal)

    def scaled(self, factor: float) -> Quadratic:
        """Both times a factor."""
        return Quadratic(self.right * factor, self.normal.scaled(factor))

    def moved(self, convert: Callable[[Array], Array]) -> Quadratic:
        """The same with converted arrays."""
        return Quadratic(convert(self.right), self.normal.moved(convert))

    def of_class(self, index: int) -> Quadratic:
        """The quadratic of one of several classes."""
        assert isinstance(self.normal, Blocks)
        return Quadratic(self.right[index, ...], self.normal.blocks[index])


@dataclass(frozen=True)
class Statistics(Sealed):
    """The sufficient statistics of an E-step.

    Attributes:
        right: ``sum_t A_t^T b_t`` float64 of the shape of the target, b_t the posterior-weighted sum of measurement pixels
            in the frame of template t.
        normal: ``N = sum_t A_t^T c_t A_t``, c_t the posterior mass on each of these pixels.
        log_likelihood: nats. Patch model: log p(valid pixels | F). Window model: evidence against
            "no copies" (docs/model.md 7).
        energy: sum of the squared valid pixels, after subtraction of the offset of the likelihood.
        expected_count: posterior expected number of copies (patch model: mean coverage of a target pixel).
        class_mass: (C,) NumPy float64, posterior mass of the non-empty poses of each class.
        empty_mass: posterior mass of the empty poses (patch model; 0 in the window model).
        sites: patches (patch model) or corners (window model) that were scored.
        pixels: valid pixels that ``energy`` sums over. ``sites`` and ``pixels`` are whole numbers unless :meth:`scaled`.
        noise_std: noise level at which the posterior was computed.
        frame: ``right`` and ``normal`` for the target with the margin of the likelihood around it; None: there is no margin.
        ledger: sums of each micrograph, if the likelihood distinguishes micrographs, see :mod:`.ledger`.
        total: sum of the valid pixels, including the offset.
        footprint: ``sum_t A_t^T c_t`` of the shape of the target, here with c_t weighted by amplitudes, not by their squares:
            ``<footprint, F>`` is the contribution of the copies to ``total``; None: unknown.
        amplitude_sum: sum of the posterior mean amplitudes of the copies.
        amplitude_squares: sum of the posterior mean squared amplitudes.

    If the likelihood distinguishes micrographs, the sums over pixels weight each by ``noise_std^2 / sigma_m^2``, as if
    all had the noise level ``noise_std``.
    """

    right: Array
    normal: Normal
    log_likelihood: float
    energy: float
    expected_count: float
    class_mass: np.ndarray
    empty_mass: float
    sites: float
    pixels: float
    noise_std: float
    frame: Quadratic | None = None
    ledger: np.ndarray | None = None
    total: float = 0.0
    footprint: Array | None = None
    amplitude_sum: float = 0.0
    amplitude_squares: float = 0.0

    @classmethod
    def of(cls, sums: TemplateSums, views: Views, offset: float = 0.0) -> Statistics:
        """Sums of templates, taken back to the target by their views; a margin of the sums gives the frame.

        Args:
            sums: of pixels minus the offset.
            views: of the likelihood.
            offset: of the likelihood.
        """
        inner, margin = sums.cropped(), sums.margin
        frame = None
        if margin:
            wide = views.framed(margin)
            frame = Quadratic(wide.adjoint(sums.backprojection), wide.normal(sums.coverage))
        # from squared amplitudes to amplitudes: exact for full coverage
        share = sums.amplitude_sum / sums.amplitude_squares if sums.amplitude_squares else 1.0
        return cls(
            views.adjoint(inner.backprojection),
            views.normal(inner.coverage),
            log_likelihood=sums.log_likelihood,
            energy=sums.energy,
            expected_count=sums.expected_count,
            class_mass=sums.class_mass,
            empty_mass=sums.empty_mass,
            sites=sums.sites,
            pixels=sums.pixels,
            noise_std=sums.noise_std,
            frame=frame,
            total=sums.total + offset * sums.pixels,
            footprint=views.adjoint(inner.coverage) * share,
            amplitude_sum=sums.amplitude_sum,
            amplitude_squares=sums.amplitude_squares,
        )

    def __add__(self, other: Statistics) -> Statistics:
        if not isinstance(other, Statistics):
            return NotImplemented
        mine, theirs = (
            (tuple(s.right.shape), s.frame and tuple(s.frame.right.shape), s.noise_std) for s in (self, other)
        )
        if mine != theirs:
            raise ParameterError(
                "statistics add only when target, margin and noise_std agree; got "
                f"{mine[0]} at noise {mine[2]} and {theirs[0]} at {theirs[2]} (with margin: {mine[1]} and {theirs[1]})."
            )
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        whole = self.quadratic + other.quadratic
        frame = self.frame + other.frame if self.frame and other.frame else None
        ledger = joined(self.ledger, other.ledger)
        footprint = None
        if self.footprint is not None and other.footprint is not None:
            footprint = self.footprint + other.footprint
        return replace(
            self,
            **sums,
            right=whole.right,
            normal=whole.normal,
            frame=frame,
            ledger=ledger,
            footprint=footprint,
        )

    @property
    def quadratic(self) -> Quadratic:
        """``right`` and ``normal`` together."""
        return Quadratic(self.right, self.normal)

    def scaled(self, factor: float) -> Statistics:
        """Every sum times ``factor``: statistics of ``factor`` times the data."""
        if factor == 1.0:
            return self
        whole = self.quadratic.scaled(factor)
        return replace(
            self,
            **{name: getattr(self, name) * factor for name in _SUMMED},
            right=whole.right,
            normal=whole.normal,
            frame=self.frame and self.frame.scaled(factor),
            footprint=None if self.footprint is None else self.footprint * factor,
            ledger=None
            if self.ledger is None
            else np.hstack([self.ledger[:, :1], self.ledger[:, 1:] * factor]),
        )

    def normalised(self) -> Statistics:
        """Statistics of amplitudes with mean 1: the mean amplitude of the copies is moved to the target, as only ``a F`` is determined.

        Parameter-expanded EM (Liu, Rubin and Wu 1998): without it, the scales of F and a drift apart, and a prior shrinks F needlessly.
        """
        if not self.amplitude_sum > 0.0 or self.amplitude_sum == self.expected_count:
            return self
        mean = self.amplitude_sum / self.expected_count

        def parts(whole: Quadratic) -> Quadratic:
            return Quadratic(whole.right / mean, whole.normal.scaled(1.0 / mean**2))

        whole = parts(self.quadratic)
        return replace(
            self,
            right=whole.right,
            normal=whole.normal,
            frame=self.frame and parts(self.frame),
            footprint=None if self.footprint is None else self.footprint / mean,
            amplitude_sum=self.expected_count,
            amplitude_squares=self.amplitude_squares / mean**2,
        )

    def moved(self, convert: Callable[[Array], Array]) -> Self:
        """The same statistics with converted arrays, for example by ``Backend.to_host``."""
        whole = self.quadratic.moved(convert)
        frame = self.frame and self.frame.moved(convert)
        footprint = None if self.footprint is None else convert(self.footprint)
        return replace(self, right=whole.right, normal=whole.normal, frame=frame, footprint=footprint)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.class_mass)

    @property
    def margin(self) -> Lengths:
        """Pixels kept around the target on each side."""
        if self.frame is None:
            return 0
        wide, shape = self.frame.right.shape[-2:], self.right.shape[-2:]
        rows, columns = (int(n - m) // 2 for n, m in zip(wide, shape, strict=True))
        return plain(rows, columns)

    def of_class(self, index: int) -> Statistics:
        """Statistics of one class; sums over the measurement (energy, pixels, ...) stay those of all classes."""
        if self.classes == 1:
            return self
        mine, mass = self.quadratic.of_class(index), self.class_mass[index : index + 1]
        total = float(self.class_mass.sum())
        return replace(
            self,
            right=mine.right,
            normal=mine.normal,
            expected_count=self.expected_count * float(mass[0]) / total if total > 0.0 else 0.0,
            class_mass=mass,
            frame=self.frame and self.frame.of_class(index),
            footprint=None if self.footprint is None else self.footprint[index, ...],
        )

    def framed(self) -> Statistics:
        """Statistics of the target with the margin around it."""
        if self.frame is None:
            return self
        return replace(self, right=self.frame.right, normal=self.frame.normal, frame=None)

    def gradient(self, target: Array) -> Array:
        """Gradient of Q at any target: ``(right - N F) / sigma^2`` (docs/model.md 3).

        Args:
            target: float array of the shape of ``right``, of its library.
        """
        return (self.right - self.normal(target)) / self.noise_std**2

    def aligned(self, target: Array) -> tuple[Array, float]:
        """The average z that a denoising step starts from, and its noise level: ``F + sigma^2 grad Q(F) / c`` and ``sigma / sqrt(c)`` (docs/model.md 8).

        c > 0 is the bound of the normal operator: the number of copies, if the coverage is uniform.

        Args:
            target: F, at which the statistics were computed.
        """
        variance = self.noise_std**2 / self.normal.bound
        return target + variance * self.gradient(target), math.sqrt(variance)

    def residual_energy(self, target: Array) -> float:
        """Expected squared residual of the measurement given the target, summed over the valid pixels."""
        xp = array_namespace(target)
        return self.energy + float(xp.sum(target * (self.normal(target) - 2.0 * self.right)))

    def copy_energy(self, target: Array) -> float:
        """``||A_t F||^2 / sigma^2`` of a copy of amplitude 1, averaged over the copies; 0 without copies."""
        if not self.amplitude_squares > 0.0:
            return 0.0
        energy = float(array_namespace(target).sum(target * self.normal(target)))
        return energy / self.amplitude_squares / self.noise_std**2

    def offset(self, target: Array) -> float | None:
        """Most likely offset of the measurement given the target: the mean of the residual pixels; None: unknown.

        Args:
            target: as :meth:`gradient` takes it.
        """
        if self.footprint is None or not self.pixels:
            return None
        copies = float(array_namespace(target).sum(self.footprint * target))
        return (self.total - copies) / self.pixels

    def record(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON-able values, host arrays by name), whatever the array library."""
        arrays = {"class_mass": self.class_mass}
        if self.ledger is not None:
            arrays["ledger"] = self.ledger
        if self.footprint is not None:
            arrays["footprint"] = on_host(self.footprint)
        values: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        for name, part in (("target", self.quadratic), ("frame", self.frame)):
            if part is not None:
                arrays[f"{name}.right"] = on_host(part.right)
                values[name] = normal_record(part.normal, f"{name}.normal", arrays)
        return values, {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_record(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The statistics of a result of :meth:`record`, with NumPy arrays."""
        parts = {
            name: Quadratic(
                arrays[f"{name}.right"], normal_from_record(values[name], f"{name}.normal", arrays)
            )
            for name in ("target", "frame")
            if name in values
        }
        return cls(
            parts["target"].right,
            parts["target"].normal,
            **{name: values[name] for name in _NUMBERS},
            class_mass=arrays["class_mass"],
            frame=parts.get("frame"),
            ledger=arrays.get("ledger"),
            footprint=arrays.get("footprint"),
        )
