"""Results from a recovered volume: comparisons, copies with their angles, gold-standard halves, the verdict, the omit test, posterior draws."""

from __future__ import annotations

from ...estep.volumes.templates import Search
from ...model.volumes.maps import read_map, write_map
from .comparison import (
    LEAST_ORIENTATION,
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
from .copies import VolumeCopies, find_copies
from .draws import VolumeDraws, posterior_volumes
from .halves import VolumeHalves, halves_of, volume_halves
from .omission import Omission, omit_test
from .trials import judge_volume

__all__ = [
    "LEAST_ORIENTATION",
    "Omission",
    "Search",
    "VolumeAlignment",
    "VolumeCopies",
    "VolumeDraws",
    "VolumeHalves",
    "align_volumes",
    "aspherical",
    "cosine",
    "find_copies",
    "fourier_shell_correlation",
    "halves_of",
    "judge_volume",
    "matched_to",
    "mirror_volume",
    "omit_test",
    "orientation_information",
    "posterior_volumes",
    "read_map",
    "shape_correlation",
    "volume_halves",
    "write_map",
]
