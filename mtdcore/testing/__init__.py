"""Conformance tests that ship with the package: one class for each kind of plug-in.

A subclass makes the object under test; pytest then runs the contract on it::

    class TestMyBackend(BackendConformance):
        def make_backend(self, precision):
            return MyBackend(precision)

pytest is needed to import this package, not to import mtdcore.
"""

from __future__ import annotations

from .backends import BackendConformance
from .cases import Case, SmallTilePatchLikelihood, SmallTileWindowLikelihood
from .compare import assert_same_bits, assert_same_statistics
from .matrix import covering, matrix
from .measurements import MeasurementConformance
from .priors import PriorConformance
from .views import ViewsConformance

__all__ = [
    "BackendConformance",
    "Case",
    "MeasurementConformance",
    "PriorConformance",
    "SmallTilePatchLikelihood",
    "SmallTileWindowLikelihood",
    "ViewsConformance",
    "assert_same_bits",
    "assert_same_statistics",
    "covering",
    "matrix",
]
