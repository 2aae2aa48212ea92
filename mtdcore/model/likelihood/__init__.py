"""The two observation models. Each is a frozen description: geometry, pose prior, tied parameters."""

from __future__ import annotations

from typing import TypeAlias

from ...data.tiles import Region, Tile, TileGeometry
from ..optics import Micrographs
from .patch import PatchLikelihood
from .window import WindowLikelihood

Likelihood: TypeAlias = PatchLikelihood | WindowLikelihood

__all__ = [
    "Likelihood",
    "Micrographs",
    "PatchLikelihood",
    "Region",
    "Tile",
    "TileGeometry",
    "WindowLikelihood",
]
