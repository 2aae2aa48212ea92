"""Checks of the arguments of :func:`mtdcore.recover_volume`, before anything is computed."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real
from typing import Any

from ...errors import ParameterError
from ...model.priors import Prior
from ..checks.arguments import check_amplitude_std, check_diameter, is_whole
from .noise import NoiseModel, VolumeNoise
from .plan import VolumePlan
from .state import VolumeState


def check_volume_arguments(
    *,
    box_size: object,
    noise_std: object,
    noise: VolumeNoise,
    diameter: object,
    min_separation: object,
    expected_count: object,
    amplitude_std: object,
    prior: Prior | None,
    micrographs: object,
    each: object,
    subpixel: object,
    starts: object,
    callback: object,
) -> None:
    """Raise ParameterError for the first argument outside its domain; arguments as in :func:`mtdcore.recover_volume`."""
    if not (is_whole(box_size) and box_size > 3):  # type: ignore[operator]
        raise ParameterError(f"box_size must be a whole number of pixels, 4 at least; got {box_size!r}.")
    if noise_std != "auto" and not _positive(noise_std):
        raise ParameterError(f'noise_std must be "auto" or a positive number; got {noise_std!r}.')
    if not (isinstance(noise, NoiseModel) or noise in ("auto", "white")):
        raise ParameterError(
            f'noise must be "auto", "white", or the `noise_model` of an earlier run; got {noise!r}.'
        )
    check_diameter(diameter, (box_size, box_size))  # type: ignore[arg-type]
    if not (min_separation is None or (is_whole(min_separation) and min_separation > 0)):  # type: ignore[operator]
        raise ParameterError(
            f"min_separation must be a positive whole number of pixels, or None; got {min_separation!r}."
        )
    if not (expected_count is None or _positive(expected_count)):
        raise ParameterError(f"expected_count must be a positive number, or None; got {expected_count!r}.")
    check_amplitude_std(amplitude_std, "window")
    if not (micrographs is None or hasattr(micrographs, "noise_ratio")):
        raise ParameterError(f"micrographs must be a Micrographs object or None; got {micrographs!r}.")
    for name, value in {"each": each, "subpixel": subpixel}.items():
        if not isinstance(value, bool):
            raise ParameterError(f"{name} must be true or false; got {value!r}.")
    if prior is not None and not callable(getattr(prior, "score", None)):
        raise ParameterError(
            f"prior must be an object with a method score(volumes, noise_std), or None; got {prior!r}: a name stands for a file, "
            "load it first (mtdbridge.load_prior)."
        )
    if isinstance(noise, NoiseModel) and noise.whitening is not None and prior is not None:
        raise ParameterError(
            'a prior of volumes knows none through a filter; give noise="white", or no prior.'
        )
    if not (is_whole(starts) and starts > 0):  # type: ignore[operator]
        raise ParameterError(f"a run has at least one start; got {starts!r}.")
    if callback is not None and not callable(callback):
        raise ParameterError(f"callback must be a function of the state, or None; got {callback!r}.")


def check_state(state: VolumeState, each: bool) -> None:
    """Raise ParameterError if a state and the resumed run differ in whether each micrograph's numbers are learned."""
    if (state.best.micrographs is not None) != each:
        raise ParameterError(
            f"a state goes on with what the run that it is of was told; its own was each={not each}, and each={each} is asked for."
        )


def planned(plan: VolumePlan | None, box_size: int, seed: int | None, **options: Any) -> VolumePlan:
    """The plan of a run: from its options, or the given plan, with the seed if one is given.

    Args:
        plan: given plan; None: the options decide.
        box_size: L in pixels.
        seed: None: that of the plan.
        options: further arguments of :meth:`VolumePlan.of`.

    Raises:
        ParameterError: a plan is given beside options that it would overrule.
    """
    if seed is not None and not (is_whole(seed) and seed >= 0):
        raise ParameterError(f"seed must be a whole number of at least 0; got {seed!r}.")
    asked = VolumePlan.of(box_size, **options)
    if plan is None:
        plan = asked
    elif plan.box_size != box_size:
        raise ParameterError(
            f"the plan is for a box of {plan.box_size} pixels, and box_size is {box_size}: give the same to both."
        )
    elif asked != VolumePlan.of(box_size):
        raise ParameterError(
            f"a plan says symmetry, iterations, views and band itself; got {', '.join(map(repr, options.values()))} beside it: say it "
            "in the plan, or leave out the plan."
        )
    return plan if seed is None else replace(plan, seed=seed)


def _positive(value: object) -> bool:
    return isinstance(value, Real) and 0.0 < float(value) < math.inf
