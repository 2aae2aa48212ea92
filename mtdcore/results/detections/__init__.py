"""Detection of copies in a measurement: search, sub-pixel positions, and tables in the formats of the field."""

from __future__ import annotations

from .detect import detect
from .table import Detections, no_copies

__all__ = ["Detections", "detect", "no_copies"]
