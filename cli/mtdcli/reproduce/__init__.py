"""The two experiments of arXiv:2312.08500 (Gaussian images and MNIST), by the paper's method and by ours.

``cases`` says what is hidden in which noise, ``learning`` trains the networks, ``methods`` are the columns of the
table, ``runner`` runs every method on every case, ``tables`` sums up.
"""

from __future__ import annotations

from .cases import Case, Experiment, digit_experiment, gaussian_experiment, pixels_of
from .learning import learned_prior
from .methods import Method, methods_of
from .runner import Outcome, run_all
from .tables import Cell, published, tabulate

__all__ = [
    "Case",
    "Cell",
    "Experiment",
    "Method",
    "Outcome",
    "digit_experiment",
    "gaussian_experiment",
    "learned_prior",
    "methods_of",
    "pixels_of",
    "published",
    "run_all",
    "tabulate",
]
