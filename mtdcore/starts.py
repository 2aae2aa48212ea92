"""Where a run starts: random images, draws from the prior, a faint blob, or images of the user's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .errors import ParameterError
from .likelihood import Likelihood
from .priors import FlatPrior, Prior
from .sampling import sample_prior

Start: TypeAlias = Literal["uniform", "samples", "blob"]

#: Draws from the prior that race when no number is given.
_SAMPLES = 16

#: Norm of a blob in units of the noise: two nats per copy, which prefers bright regions without deciding.
_BLOB_NORM = 2.0

#: Standard deviation of a blob in boxes, and the factor by which those of several blobs differ from it either way.
_BLOB_WIDTH, _BLOB_SPREAD = 1 / 6, 2.0

#: Relative deviation of the pixels of a blob, by which several classes differ at the start.
_GRAIN = 0.5


def default_start(prior: Prior) -> Start:
    """Draws from the prior where there is one, random pixels otherwise."""
    return "uniform" if isinstance(prior, FlatPrior) else "samples"


def choose_starts(
    initial: ArrayLike | Start, starts: int | None, prior: Prior, model: Likelihood, seed: int
) -> list[np.ndarray]:
    """(L, L) float64 images to start from, (C, L, L) for several classes; arguments as in :func:`mtdcore.recover`."""
    one = (model.box_size,) * 2 if model.class_weights is None else (model.classes, *(model.box_size,) * 2)
    if not isinstance(initial, str):
        return _given(initial, one)
    count = starts or (_SAMPLES if initial == "samples" else 1)
    if count < 1:
        raise ParameterError(f"starts must be a positive number; got {starts}.")
    match initial:
        case "uniform":
            return list(np.random.default_rng(seed).uniform(size=(count, *one)))
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
            return [_blob(model, width) * (grain if model.classes > 1 else 1.0) for width in widths]
    raise ParameterError(f'initial must be "uniform", "samples", "blob" or an image; got {initial!r}.')


def _given(images: ArrayLike, one: tuple[int, ...]) -> list[np.ndarray]:
    stack = np.array(images, dtype=np.float64)
    if stack.ndim == len(one):
        stack = stack[None]
    if stack.shape[1:] != one or len(stack) == 0 or not np.isfinite(stack).all():
        raise ParameterError(
            f"initial images should be finite and of shape {one}; got an array of shape {stack.shape}."
        )
    return list(stack)


def _blob(model: Likelihood, width: float) -> np.ndarray:
    """A Gaussian blob of this standard deviation, in pixels."""
    offset = np.arange(model.box_size) - (model.box_size - 1) / 2
    line = np.exp(-0.5 * (offset / width) ** 2)
    blob = np.outer(line, line)
    return np.asarray(blob * (_BLOB_NORM * model.noise_std / np.linalg.norm(blob)))
