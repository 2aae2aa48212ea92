"""Copies: found in a measurement, placed between pixels, and listed in the tables of the field."""

from __future__ import annotations

from .detect import detect
from .table import Detections, no_copies

__all__ = ["Detections", "detect", "no_copies"]
