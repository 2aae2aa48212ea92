"""Micrographs in the formats of cryo-EM, prepared for the engine; tables and images for the programs that come after.

As a measurement: :func:`mtdcore.measurement.micrographs.open_micrographs`.
"""

from __future__ import annotations

from .ctf import Ctf
from .micrographs import Micrograph, find_micrographs
from .preparation import Preparation, Prepared

__all__ = [
    "Ctf",
    "Micrograph",
    "Preparation",
    "Prepared",
    "find_micrographs",
]
