"""The two observation models. Each is a frozen description: views, geometry, pose prior, and numbers with their M-step."""

from __future__ import annotations

from .base import Likelihood
from .patch import PatchLikelihood
from .window import WindowLikelihood

__all__ = ["Likelihood", "PatchLikelihood", "WindowLikelihood"]
