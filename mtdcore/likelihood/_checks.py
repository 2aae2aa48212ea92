"""Validation shared by the likelihoods."""

from __future__ import annotations

import math
from typing import Protocol

from ..errors import ParameterError


class _Common(Protocol):
    @property
    def box_size(self) -> int: ...
    @property
    def rotations(self) -> int: ...
    @property
    def noise_std(self) -> float: ...
    @property
    def margin(self) -> int: ...


def check_common(likelihood: _Common) -> None:
    """Raise ParameterError unless box, rotations, noise and margin make sense."""
    if likelihood.box_size < 1:
        raise ParameterError(f"box_size must be a positive number of pixels; got {likelihood.box_size}.")
    if likelihood.rotations < 1:
        raise ParameterError(
            f"rotations must be a positive count of equally spaced angles; got {likelihood.rotations}."
        )
    if not (math.isfinite(likelihood.noise_std) and likelihood.noise_std > 0):
        raise ParameterError(
            f"noise_std must be a positive finite number in the units of the measurement; got {likelihood.noise_std}."
        )
    if likelihood.margin < 0:
        raise ParameterError(f"margin must be zero or a positive number of pixels; got {likelihood.margin}.")
