"""mtdcore: recover an image from a noisy measurement that hides many copies of it, without picking them.

::

    measurement --tiles--> backend: correlate -> posterior -> back-project --Statistics(+)--> M-step <-- prior
         ^                        ^ rotated targets                                              |
      Zarr / array                +-------------------------- target F <-------------------------+

What belongs to a result lies in modules of its own, imported by name:

- ``mtdcore.trust``: null runs, the threshold of their evidence, the verdict
- ``mtdcore.halfsets``: two halves of the data, recovered separately
- ``mtdcore.uncertainty``: draws from the posterior of the target, the share of the data
- ``mtdcore.detections``, ``mtdcore.matching``: the copies, as CSV and STAR, and against a truth
- ``mtdcore.extent``: the size of an object in its box
- ``mtdcore.metrics``: errors, Fourier ring correlation
"""

from __future__ import annotations

from . import datasets
from .backends import get_backend
from .em import recover
from .errors import MtdError
from .estep import e_step
from .likelihood import Micrographs, PatchLikelihood, WindowLikelihood
from .measurement import open_measurement
from .metrics import relative_error
from .mstep import DenoisingUpdate, ExactUpdate, GradientAscent
from .online import OnlineEM
from .priors import FlatPrior, GaussianPrior, Prior
from .recovery import EMState, IterationRecord, Recovery
from .rotation import RotationSet
from .simulate import simulate
from .statistics import Statistics

__version__ = "0.1.0"

__all__ = [
    "DenoisingUpdate",
    "EMState",
    "ExactUpdate",
    "FlatPrior",
    "GaussianPrior",
    "GradientAscent",
    "IterationRecord",
    "Micrographs",
    "MtdError",
    "OnlineEM",
    "PatchLikelihood",
    "Prior",
    "Recovery",
    "RotationSet",
    "Statistics",
    "WindowLikelihood",
    "datasets",
    "e_step",
    "get_backend",
    "open_measurement",
    "recover",
    "relative_error",
    "simulate",
]
