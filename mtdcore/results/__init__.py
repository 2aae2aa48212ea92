"""Results from a finished recovery: copies, maps, null runs, half sets, uncertainty, errors against a truth."""

from __future__ import annotations

from ..drawing.live import Live
from .chains import posterior_chains
from .detections import Detections, detect
from .halves import half_recoveries, half_set_correlation, held_out_evidence
from .matching import match
from .metrics import align, correlation, fourier_ring_correlation, relative_error
from .nulls import evidence_threshold, null_measurement, null_runs
from .posterior_map import posterior_maps
from .uncertainty import posterior_samples, unbiased_average
from .verdict import Verdict, judge
from .volumes import align_volumes, fourier_shell_correlation, shape_correlation

__all__ = [
    "Detections",
    "Live",
    "Verdict",
    "align",
    "align_volumes",
    "correlation",
    "detect",
    "evidence_threshold",
    "fourier_ring_correlation",
    "fourier_shell_correlation",
    "half_recoveries",
    "half_set_correlation",
    "held_out_evidence",
    "judge",
    "match",
    "null_measurement",
    "null_runs",
    "posterior_chains",
    "posterior_maps",
    "posterior_samples",
    "relative_error",
    "shape_correlation",
    "unbiased_average",
]
