"""Noise levels at the start of a run: the common level, and those of single micrographs if they differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ...data import Measurement
from ...data.noise import estimate_noise_levels, estimate_noise_std
from ...errors import ParameterError
from ...model.filters.optics import Micrographs, check_number


def first_levels(
    source: Measurement, noise_std: float | Literal["auto"], micrographs: Micrographs | Literal["each"] | None
) -> tuple[float, Micrographs | None]:
    """Common noise level, and the differences between micrographs; "auto" estimates the levels of both from neighbouring pixels.

    Raises:
        ParameterError: a level that is not a number, or values for another number of micrographs.
    """
    if micrographs is None:
        return estimate_noise_std(source) if noise_std == "auto" else _number(noise_std), None
    optics = Micrographs(np.ones(source.shape[0])) if isinstance(micrographs, str) else micrographs
    check_number(optics, source.shape[0])
    if noise_std != "auto":
        return _number(noise_std), optics
    levels = estimate_noise_levels(source)
    return float(np.sqrt(np.mean(levels**2))), replace(optics, noise=levels)


def _number(noise_std: object) -> float:
    try:
        return float(noise_std)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ParameterError(f'noise_std must be a positive number, or "auto"; got {noise_std!r}.') from None
