"""The observation model of a run: how it begins, and the M-step of everything in it that is not an image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from ..data import Measurement
from ..data.noise import default_expected_count, estimate_noise_std
from ..errors import ParameterError
from ..estep.statistics import Statistics
from ..model.likelihood import Likelihood, PatchLikelihood, WindowLikelihood
from ..model.likelihood.checks import check_whole
from ..model.optics import Micrographs
from .classes import shares

#: While the targets are still meaningless neither the count nor the weight of a class may fall below this share of its
#: start: otherwise EM can settle on "there are no copies" (docs/model.md 11), or on one class.
_FLOOR = 0.5

#: Noise level of a micrograph, in units of the common one, below which it counts as damaged rather than quiet.
_QUIETEST = 1e-3


def begin_model(
    likelihood: Literal["window", "patch"] | Likelihood,
    source: Measurement,
    box_size: int,
    rotations: int,
    noise_std: float | Literal["auto"],
    min_separation: int | None,
    expected_count: float | None,
    classes: int,
    micrographs: Micrographs | Literal["each"] | None,
) -> Likelihood:
    """The model at the start; arguments as in :func:`mtdcore.recover`."""
    if not isinstance(likelihood, str):
        if micrographs is not None:
            raise ParameterError(
                "a likelihood object holds the micrographs itself: give it to recover without them."
            )
        if (likelihood.box_size, likelihood.rotations, likelihood.classes) != (box_size, rotations, classes):
            raise ParameterError(
                f"the likelihood has {likelihood.classes} class(es), a box of {likelihood.box_size} and "
                f"{likelihood.rotations} rotations; recover was asked for classes={classes}, box_size={box_size} and "
                f"rotations={rotations}: give the same to both."
            )
        return likelihood
    if classes < 1:
        raise ParameterError(f"classes must be a positive number; got {classes}.")
    if likelihood not in ("window", "patch"):
        raise ParameterError(
            f'likelihood must be "window", "patch" or a likelihood object; got {likelihood!r}.'
        )
    check_whole("box_size", box_size, "pixels")
    sigma, facts = _noise(source, noise_std, micrographs)
    weights = None if classes == 1 else (1.0 / classes,) * classes
    if likelihood == "patch":
        return PatchLikelihood(box_size, rotations, sigma, class_weights=weights, micrographs=facts)
    if expected_count is None:
        expected_count = default_expected_count(source.shape, box_size)
    model = WindowLikelihood(box_size, rotations, sigma, expected_count, min_separation)
    return replace(model, class_weights=weights, micrographs=facts)


def updated(
    model: Likelihood,
    statistics: Statistics,
    residual_energy: Callable[[], float] | None,
    first_count: float,
    corners: float,
    early: bool,
) -> Likelihood:
    """M-step of noise, count, class weights, and of the same micrograph by micrograph.

    Args:
        model: at temperature 1.
        statistics: of the E-step.
        residual_energy: of the new target; None: the noise level is known.
        first_count: expected number of copies at the start of the run.
        corners: sites of one micrograph.
        early: whether counts and weights are still held up.
    """
    floor = _FLOOR if early else 0.0
    if isinstance(model, WindowLikelihood):
        model = replace(model, expected_count=max(statistics.expected_count, floor * first_count, 1e-3))
    elif model.empty_probability is not None:
        share = statistics.empty_mass / max(1, statistics.sites)
        model = replace(model, empty_probability=float(np.clip(share, 1e-6, 1.0 - 1e-6)))
    if model.class_weights is not None:
        model = replace(model, class_weights=shares(statistics, floor))
    if model.micrographs is not None and statistics.ledger is not None:
        facts = _entered(model, model.micrographs, statistics.ledger, corners, residual_energy is not None)
        model = replace(model, micrographs=facts)
    if residual_energy is None or not statistics.pixels:  # a mini-batch may lie under a mask
        return model
    return model.with_noise_std(math.sqrt(max(residual_energy(), 0.0) / statistics.pixels))


def _noise(
    source: Measurement, noise_std: float | Literal["auto"], micrographs: Micrographs | Literal["each"] | None
) -> tuple[float, Micrographs | None]:
    """Common noise level, and the facts with the levels of each micrograph; "auto" estimates both."""
    if micrographs is None:
        return estimate_noise_std(source) if noise_std == "auto" else _number(noise_std), None
    count = source.shape[0]
    facts = Micrographs(np.ones(count)) if micrographs == "each" else micrographs
    if noise_std != "auto":
        return _number(noise_std), facts
    levels = np.array([estimate_noise_std(one) for one in source.split(count)])
    return float(np.sqrt(np.mean(levels**2))), replace(facts, noise=levels)


def _number(noise_std: object) -> float:
    try:
        return float(noise_std)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ParameterError(f'noise_std must be a positive number, or "auto"; got {noise_std!r}.') from None


def _entered(
    model: Likelihood, facts: Micrographs, ledger: np.ndarray, corners: float, learn_noise: bool
) -> Micrographs:
    """Facts after an E-step; micrographs that it did not see (mini-batches) keep theirs.

    The count of a micrograph is drawn towards the mean: with an exponential prior on its expectation, n copies seen
    mean ``(n + 1) / (1 + 1 / mean)``. A micrograph without copies so keeps the chance of having some.
    """
    seen, sites, pixels, residual, copies = ledger.T
    index = seen.astype(np.int64)
    noise = model.noise_std * facts.noise_ratio
    if learn_noise:
        known = pixels > 0
        noise[index[known]] = np.sqrt(np.maximum(residual[known] / pixels[known], 0.0))
        noise = np.maximum(noise, _QUIETEST * model.noise_std)
    if not isinstance(model, WindowLikelihood):
        return replace(facts, noise=noise)
    mean = model.expected_count / len(facts)
    count = model.expected_count * facts.count_share
    found = copies / np.maximum(sites, 1.0) * corners  # of a mini-batch, copies and sites are scaled alike
    count[index] = (found + 1.0) / (1.0 + 1.0 / mean)
    return replace(facts, noise=noise, count=count)
