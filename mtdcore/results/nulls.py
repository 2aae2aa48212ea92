"""Null runs: the same recovery from measurements without copies (docs/model.md 10).

Templates and learned priors make structure out of noise. A recovery is therefore repeated on white noise, and on the same
measurement with its phases randomised (:mod:`mtdcore.results.surrogates`). The verdict is in :mod:`mtdcore.results.verdict`;
docs/trust.md states how often it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.special import stdtrit

from ..data import Measurement, MeasurementLike, open_measurement
from ..data.derived import DerivedMeasurement, filtered
from ..data.noise import estimate_noise_levels
from ..data.tiles import Tile
from ..em.checks.doubts import undoubted
from ..em.recover import recover
from ..em.state import Recovery
from ..errors import ParameterError
from ..model.filters.whitening import Whitening
from ..model.likelihood import Likelihood
from .surrogates import surrogate_measurement

#: Kind of a measurement without copies: white noise (or noise of the learned spectrum), or the measurement with its phases randomised.
Null: TypeAlias = Literal["white", "phases"]

#: Side of the blocks that noise is drawn in, whatever the tiles: part of what a seed means.
_BLOCK = 64

#: Rate at which noise would exceed the prediction limit if its evidence were normal. The evidence is skewed: the rate found
#: by calibration is up to three times this rate, and stays below 1 % (docs/trust.md).
_NOMINAL_RATE = 0.002

#: Least threshold in nats. With a prior most null runs end near 0 nats and a few at ten, so four of them can agree by
#: chance (docs/trust.md).
SMALLEST_THRESHOLD = 15.0


#: Null runs with random phases share one periodogram; measurements of the same noise do not, and their evidence differs more: by 40 nats
#: of 185 in pink noise, where random phases of one of them differ by 15 (docs/trust.md). Relative standard deviation that is added.
SHARED_SPECTRUM = 0.1

#: Nats below which a run has ended at the blank image. Such a run still has a few nats from the copies that it expects.
_BLANK = 5.0


@dataclass(frozen=True)
class NullMeasurement(DerivedMeasurement):
    """White noise in the place of every valid pixel of another measurement, made tile by tile; see :class:`Measurement`.

    Attributes:
        source: what it imitates: shape, dtype, masks and cut.
        noise_std: (micrographs,) standard deviation of the noise in each.
        seed: the same seed gives the same pixels, however they are cut.
        offset: mean of the noise.
    """

    noise_std: tuple[float, ...]
    seed: int = 0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (all(math.isfinite(level) and level > 0 for level in self.noise_std) and self.seed >= 0):
            raise ParameterError(
                "null measurements need a positive noise_std and a seed of at least 0; "
                f"got {self.noise_std} and {self.seed}."
            )
        if len(self.noise_std) != self.shape[0]:
            raise ParameterError(
                f"expected one noise_std, or one for each of the {self.shape[0]} micrographs; got {len(self.noise_std)}."
            )

    def derive(self, tile: Tile) -> Tile:
        """The tile with noise in it."""
        values = (self._pixels(tile.micrograph, *tile.region.read) + self.offset).astype(self.dtype)
        if tile.valid is not None:
            values[~tile.valid] = 0
        return replace(tile, values=values)

    def _pixels(self, micrograph: int, rows: slice, columns: slice) -> np.ndarray:
        """(h, w) float64 noise of a rectangle, cut out of the blocks that it touches."""
        across, down = (range(s.start // _BLOCK, -(-s.stop // _BLOCK)) for s in (columns, rows))
        blocks = [[self._block(micrograph, i, j) for j in across] for i in down]
        top, left = rows.start - down.start * _BLOCK, columns.start - across.start * _BLOCK
        return np.block(blocks)[
            top : top + rows.stop - rows.start, left : left + columns.stop - columns.start
        ]

    def _block(self, micrograph: int, *place: int) -> np.ndarray:
        stream = np.random.SeedSequence(self.seed, spawn_key=(micrograph, *place))
        return self.noise_std[micrograph] * np.random.default_rng(stream).standard_normal((_BLOCK, _BLOCK))


def null_measurement(
    measurement: MeasurementLike,
    noise_std: float | Sequence[float],
    seed: int = 0,
    offset: float = 0.0,
) -> NullMeasurement:
    """White noise of the shape, dtype and mask of a measurement; nothing is held in memory.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        noise_std: standard deviation, for instance ``Recovery.noise_std``, or that of each micrograph.
        seed: of the noise.
        offset: its mean, for instance ``Recovery.offset``.
    """
    source = open_measurement(measurement)
    levels = np.atleast_1d(np.asarray(noise_std, dtype=np.float64))
    each = np.repeat(levels, source.shape[0]) if levels.size == 1 else levels
    return NullMeasurement(source, tuple(each.tolist()), seed, offset)


def coloured(measurement: Measurement, whitening: Whitening | None) -> Measurement:
    """White noise coloured with the spectrum that a recovery learned; unchanged if that spectrum is white."""
    return measurement if whitening is None else filtered(measurement, whitening.colouring)


def null_like(measurement: Measurement, likelihood: Likelihood, kind: Null, seed: int = 0) -> Measurement:
    """A measurement without copies that otherwise resembles another measurement.

    Args:
        measurement: the other measurement.
        likelihood: at the end of its recovery: noise level, offset, box.
        kind: noise of the spectrum that was learned, or the measurement with its phases randomised.
        seed: of the noise, or of the phases.
    """
    if kind == "white":
        white = null_measurement(measurement, noise_levels(measurement, likelihood), seed, likelihood.offset)
        return coloured(white, likelihood.whitening)
    return surrogate_measurement(measurement, max(likelihood.views.box_shape), seed)


def null_runs(
    measurement: MeasurementLike,
    likelihood: Likelihood,
    /,
    runs: int = 8,
    seed: int = 0,
    kind: Null = "white",
    **options: Any,
) -> Iterator[Recovery]:
    """The recovery repeated on measurements without copies, one run after the other.

    Args:
        measurement: of the recovery.
        likelihood: ``Recovery.likelihood``, whose noise white noise imitates. (The runs themselves get the options alone.)
        runs: number of measurements without copies; with 4 the threshold is about twice as high (docs/trust.md).
        seed: of the first of them and of its starts; further runs count up from it.
        kind: see :func:`null_like`.
        options: keyword arguments that :func:`mtdcore.recover` was called with, without ``seed``.
    """
    source = open_measurement(measurement, options.pop("mask", None))
    for run in range(seed, seed + runs):
        with undoubted():
            found = recover(null_like(source, likelihood, kind, run), seed=run, **options)
        yield found


def noise_levels(measurement: Measurement, likelihood: Likelihood) -> list[float]:
    """Noise level of each micrograph: from the likelihood, or relative levels from neighbouring pixels if it has a common level."""
    count, optics = measurement.shape[0], likelihood.micrographs
    if optics is not None:
        ratios = optics.noise_ratio
    elif count == 1:
        ratios = np.ones(1)
    else:
        ratios = estimate_noise_levels(measurement)
        ratios = ratios / np.sqrt(np.mean(ratios**2))
    return list((likelihood.noise_std * ratios).tolist())


def evidence_threshold(null_evidence: Sequence[float] | np.ndarray, shared: float = 0.0) -> float:
    """Nats that one more null run exceeds with a probability below 1 %.

    The 99.8 % prediction limit of a normal sample, mean + t s sqrt(1 + 1/n) with Student's t at n - 1 degrees of
    freedom, but no less than 15 nats and no less than any of the runs. More runs lower it, because they leave less to
    chance. The limit assumes that null evidence is about normal: n runs alone show a rate of no less than 1 in n + 1.

    Runs that end at the blank image do not show how far other runs fit noise. If at least four runs did not end there, the limit is the lower of
    those with and without the blank runs.

    Args:
        null_evidence: ``Recovery.evidence`` of two or more null runs.
        shared: relative spread of the evidence that the runs do not show, as they share a spectrum: :data:`SHARED_SPECTRUM` for random phases.

    Raises:
        ParameterError: fewer than two values, or one that is not finite.
    """
    values = np.asarray(null_evidence, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ParameterError(
            f"a threshold needs the finite evidence of two null runs or more; got {null_evidence}."
        )
    fitted = values[values >= _BLANK]
    limits = [
        _prediction_limit(sample, shared)
        for sample in (values, fitted)
        if sample is values or len(sample) >= 4
    ]
    return max(SMALLEST_THRESHOLD, min(limits), float(values.max()))


def _prediction_limit(values: np.ndarray, shared: float) -> float:
    quantile = stdtrit(len(values) - 1, 1.0 - _NOMINAL_RATE)
    spread = math.hypot(values.std(ddof=1), shared * values.mean())
    return float(values.mean() + quantile * spread * math.sqrt(1.0 + 1.0 / len(values)))
