"""Starting targets: random images, draws from the prior, faint blobs and rings, or images of the user's.

U[0, 1] pixels and draws from a prior have units of their own. All other starts are in units of the noise, so that
the units of the measurement do not matter.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..._base.numerics.convolution import convolve
from ..._base.numerics.fourier import radial_filter
from ..._base.typing import plain
from ...errors import ParameterError
from ...model.likelihood import Likelihood
from ...model.priors import FlatPrior, Prior, is_flat
from ...model.sampling import sample_prior
from ...model.symmetry import invariant, order_of

Start: TypeAlias = Literal["random", "uniform", "samples", "blob", "faint", "several", "moments"]

#: Draws from the prior that race when no number is given.
_SAMPLES = 16

#: Starts of several kinds: three blobs, a ring, two faint ones; with a prior as many draws from it besides.
_SEVERAL = 6

#: Number of starts of random pixels: a single start misses the copies in a third of the runs (bench/accuracy/starts.py).
_RANDOM = 4

#: Norm of a faint start after transfer and filter, in units of the noise: two nats per copy, which favours some regions without deciding.
_FAINT_NORM = 2.0

#: Standard deviation of a blob in boxes, and the factor by which those of several blobs differ from it either way: up to a third
#: of the box. The last number is the standard deviation in diameters of a known object: that of a disc's second moments.
_BLOB_WIDTH, _BLOB_SPREAD, _OF_DIAMETER = 1 / 6, 2.0, 1 / 4

#: Largest power of two by which a seed changes the widths.
_JITTER = 0.25

#: Radius of a ring in widths of a blob, and its thickness in radii.
_RING, _THICKNESS = 1.5, 1 / 3

#: Relative deviation of the pixels of a blob, by which several classes differ at the start.
_GRAIN = 0.5


#: Number of starts of each kind if no number is given; one of any other kind.
_DEFAULT = {"samples": _SAMPLES, "several": _SEVERAL, "random": _RANDOM}


def choose_starts(
    initial: ArrayLike | Start,
    starts: int | None,
    prior: Prior,
    likelihood: Likelihood,
    seed: int,
    heat: float = 1.0,
    diameter: float | None = None,
) -> list[np.ndarray]:
    """Float64 targets to start from, (L, L) or (C, L, L) for several classes; arguments as in :func:`mtdcore.recover`.

    The widths of blobs and rings follow from the diameter, or from the box. The norm of random starts is in units of the noise
    at ``heat``, the temperature of the first iteration.
    """
    one = likelihood.views.target_shape
    if not isinstance(initial, str):
        return _given(initial, one)
    count = _DEFAULT.get(initial, 1) if starts is None else starts
    more = (likelihood, seed, heat, diameter)
    if initial == "several" and not is_flat(prior):
        drawn = _SEVERAL if starts is None else starts // 2
        others = choose_starts("several", count if starts is None else starts - drawn, FlatPrior(), *more)
        return others + (choose_starts("samples", drawn, prior, *more) if drawn else [])
    match initial:
        case "uniform" | "random" | "faint":
            images = np.random.default_rng(seed).uniform(size=(count, *one))
            if initial == "uniform":
                return list(images)
            # random starts are as faint relative to the noise at the first temperature
            hot = math.sqrt(heat) if initial == "random" else 1.0
            return [_faint(image, likelihood, _FAINT_NORM * hot) for image in images]
        case "samples":
            if is_flat(prior):
                raise ParameterError(
                    'initial="samples" draws from the prior, and there is none: give a prior or another start.'
                )
            images = sample_prior(
                prior, count * likelihood.classes, plain(*likelihood.views.box_shape), seed=seed
            )
            return list(images.reshape(count, *one))
        case "blob":
            # Equal classes would stay equal for ever, and so would a blob and its rotated or mirrored views: EM would end at their mean.
            uneven = likelihood.templates > 1
            rng = np.random.default_rng(seed)
            grain = rng.uniform(1.0 - _GRAIN, 1.0 + _GRAIN, size=one)
            widths = _width(likelihood, diameter, rng) * _BLOB_SPREAD ** _steps(count)
            blobs = [_blob(likelihood.views.box_shape, width) for width in widths]
            # two nats for the blob without grain: behind a filter of slow noise the grain alone would determine the norm
            return [_faint(blob, likelihood) * (grain if uneven else 1.0) for blob in blobs]
        case "several":
            rings, faint = count // 4, count // 3
            found = choose_starts("blob", count - rings - faint, prior, *more)
            if rings:
                rng = np.random.default_rng((seed, rings))
                grain = rng.uniform(1.0 - _GRAIN, 1.0 + _GRAIN, size=one)
                radii = _RING * _width(likelihood, diameter, rng) * _BLOB_SPREAD ** (0.5 * _steps(rings))
                found += [_faint(_ring(likelihood.views.box_shape, r) * grain, likelihood) for r in radii]
            return found + (choose_starts("faint", faint, prior, *more) if faint else [])
    raise ParameterError(
        f'initial must be "random", "uniform", "samples", "blob", "faint", "several", "moments" or an image; got {initial!r}.'
    )


def _given(images: ArrayLike, one: tuple[int, ...]) -> list[np.ndarray]:
    stack = np.array(images, dtype=np.float64)
    if stack.ndim == len(one):
        stack = stack[None]
    if stack.shape[1:] != one or len(stack) == 0 or not np.isfinite(stack).all():
        raise ParameterError(
            f"initial images should be finite and of shape {one}; got an array of shape {stack.shape}."
        )
    return list(stack)


def _width(likelihood: Likelihood, diameter: float | None, rng: np.random.Generator) -> float:
    """Middle standard deviation of blobs in pixels, varied a little by the seed."""
    middle = max(likelihood.views.box_shape) * _BLOB_WIDTH if diameter is None else diameter * _OF_DIAMETER
    return float(middle * 2.0 ** rng.uniform(-_JITTER, _JITTER))


def _steps(count: int) -> np.ndarray:
    """``count`` numbers evenly spaced from -1 to 1; a single number is 0."""
    return np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1)


def _ring(shape: tuple[int, int], radius: float) -> np.ndarray:
    """A soft ring of this radius in pixels."""
    down, across = (np.arange(n) - (n - 1) / 2 for n in shape)
    distance = np.hypot(down[:, None], across)
    return np.asarray(np.exp(-0.5 * ((distance - radius) / (_THICKNESS * radius)) ** 2))


def _blob(shape: tuple[int, int], width: float) -> np.ndarray:
    """A Gaussian blob of this standard deviation, in pixels."""
    down, across = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / width) ** 2) for n in shape)
    return np.outer(down, across)


def _faint(images: np.ndarray, likelihood: Likelihood, wanted: float = _FAINT_NORM) -> np.ndarray:
    """Images, (L, L) or (C, L, L), made symmetric and scaled to a norm of ``wanted`` noise standard deviations in a typical micrograph."""
    images = invariant(images, order_of(likelihood.views))
    seen, optics = np.reshape(images, (-1, *images.shape[-2:])), likelihood.micrographs
    if optics is not None and optics.transfer is not None:
        power = np.mean((optics.transfer / optics.noise_ratio[:, None]) ** 2, axis=0)
        seen = radial_filter(seen, np.sqrt(power))
    if likelihood.whitening is not None:
        seen = convolve(seen, likelihood.whitening.kernel)
    norm = np.sqrt(np.mean(np.square(seen).sum(axis=(1, 2))))
    return np.asarray(images * (wanted * likelihood.noise_std / norm))
