"""Where a run starts: random images, strong or faint, draws from the prior, a faint blob, or images of the user's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ParameterError
from ..model.likelihood import Likelihood
from ..model.optics import radial_filter
from ..model.priors import FlatPrior, Prior
from ..model.sampling import sample_prior
from ..mstep.updates import Update
from ..mstep.wiener import WienerUpdate

Start: TypeAlias = Literal["uniform", "samples", "blob", "faint"]

#: Draws from the prior that race when no number is given.
_SAMPLES = 16

#: Norm of a faint start as micrographs show it, in units of their noise: two nats per copy, which prefers some regions without deciding.
_FAINT_NORM = 2.0

#: Standard deviation of a blob in boxes, and the factor by which those of several blobs differ from it either way.
_BLOB_WIDTH, _BLOB_SPREAD = 1 / 6, 2.0

#: Relative deviation of the pixels of a blob, by which several classes differ at the start.
_GRAIN = 0.5


def default_start(prior: Prior, update: Update) -> Start:
    """Draws from the prior where there is one, random pixels otherwise.

    For :class:`WienerUpdate` these are faint, instead of cooled: at the noise level of a high temperature the filter
    leaves the mean over rotations at best, an image that looks the same at all of them, which EM never leaves.
    """
    if not isinstance(prior, FlatPrior):
        return "samples"
    return "faint" if isinstance(update, WienerUpdate) else "uniform"


def choose_starts(
    initial: ArrayLike | Start, starts: int | None, prior: Prior, model: Likelihood, seed: int
) -> list[np.ndarray]:
    """(L, L) float64 images to start from, (C, L, L) for several classes; arguments as in :func:`mtdcore.recover`."""
    one = (model.box_size,) * 2 if model.class_weights is None else (model.classes, *(model.box_size,) * 2)
    if not isinstance(initial, str):
        return _given(initial, one)
    count = (_SAMPLES if initial == "samples" else 1) if starts is None else starts
    if count < 1:
        raise ParameterError(f"starts must be a positive number; got {starts}.")
    match initial:
        case "uniform" | "faint":
            images = np.random.default_rng(seed).uniform(size=(count, *one))
            return [_faint(image, model) for image in images] if initial == "faint" else list(images)
        case "samples":
            if isinstance(prior, FlatPrior):
                raise ParameterError(
                    'initial="samples" draws from the prior, and there is none: give a prior or another start.'
                )
            images = sample_prior(prior, count * model.classes, model.box_size, seed=seed)
            return list(images.reshape(count, *one))
        case "blob":
            # Equal classes would stay equal for ever.
            grain = np.random.default_rng(seed).uniform(1.0 - _GRAIN, 1.0 + _GRAIN, size=one)
            steps = np.linspace(-1.0, 1.0, count + 2)[1:-1]  # a single blob has the middle width
            widths = model.box_size * _BLOB_WIDTH * _BLOB_SPREAD**steps
            blobs = [_blob(model.box_size, width) for width in widths]
            return [_faint(blob, model) * (grain if model.classes > 1 else 1.0) for blob in blobs]
    raise ParameterError(
        f'initial must be "uniform", "samples", "blob", "faint" or an image; got {initial!r}.'
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


def _blob(side: int, width: float) -> np.ndarray:
    """A Gaussian blob of this standard deviation, in pixels."""
    offset = np.arange(side) - (side - 1) / 2
    line = np.exp(-0.5 * (offset / width) ** 2)
    return np.outer(line, line)


def _faint(images: np.ndarray, model: Likelihood) -> np.ndarray:
    """Images, (L, L) or (C, L, L), scaled to the norm of a faint start in a typical micrograph."""
    seen, facts = np.reshape(images, (-1, *images.shape[-2:])), model.micrographs
    if facts is not None and facts.transfer is not None:
        power = np.mean((facts.transfer / facts.noise_ratio[:, None]) ** 2, axis=0)
        seen = radial_filter(seen, np.sqrt(power))
    norm = np.sqrt(np.mean(np.square(seen).sum(axis=(1, 2))))
    return np.asarray(images * (_FAINT_NORM * model.noise_std / norm))
