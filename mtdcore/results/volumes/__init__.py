"""What belongs to a recovered volume: comparisons, maps on disk, copies with their angles, gold-standard halves."""

from __future__ import annotations

from .comparison import (
    VolumeAlignment,
    align_volumes,
    aspherical,
    cosine,
    fourier_shell_correlation,
    matched_to,
    mirror_volume,
    orientation_information,
    shape_correlation,
)

__all__ = [
    "VolumeAlignment",
    "align_volumes",
    "aspherical",
    "cosine",
    "fourier_shell_correlation",
    "matched_to",
    "mirror_volume",
    "orientation_information",
    "shape_correlation",
]
