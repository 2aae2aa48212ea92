"""Validation shared by the likelihoods."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Protocol

from ...errors import ParameterError


class _Common(Protocol):
    @property
    def box_size(self) -> int: ...
    @property
    def rotations(self) -> int: ...
    @property
    def noise_std(self) -> float: ...
    @property
    def margin(self) -> int: ...


def check_whole(name: str, value: object, unit: str) -> None:
    """Raise ParameterError unless the value is a positive whole number."""
    if not isinstance(value, Integral) or value < 1:
        raise ParameterError(f"{name} must be a positive number of {unit}; got {value}.")


def check_common(likelihood: _Common) -> None:
    """Raise ParameterError unless box, rotations, noise and margin make sense."""
    check_whole("box_size", likelihood.box_size, "pixels")
    check_whole("rotations", likelihood.rotations, "equally spaced angles")
    if not (math.isfinite(likelihood.noise_std) and likelihood.noise_std > 0):
        raise ParameterError(
            f"noise_std must be a positive finite number in the units of the measurement; got {likelihood.noise_std}."
        )
    if likelihood.margin < 0:
        raise ParameterError(f"margin must be zero or a positive number of pixels; got {likelihood.margin}.")
