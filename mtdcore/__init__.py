"""mtdcore: recover an image from a noisy measurement that hides many copies of it, without picking them.

::

    measurement --tiles--> backend: correlate -> posterior -> back-project --Statistics(+)--> M-step <-- prior
         ^                        ^ templates = views of F                                       |
      Zarr / array                +-------------------------- target F <-------------------------+

Tools for a result:

- ``mtdcore.results.judge``: whether the data support it; ``null_runs``: recoveries from noise alone; ``held_out_evidence``,
  ``half_recoveries``: evidence and agreement between halves of the data
- ``mtdcore.results.detect``: the copies, as CSV and STAR; ``match``: against a truth
- ``mtdcore.results.posterior_samples``: draws from the posterior of the target, with the share of the data
- ``mtdcore.results.relative_error``, ``fourier_ring_correlation``: errors
- ``mtdcore.results.volumes``: ``find_copies``, with Euler angles; ``volume_halves``: half maps; ``judge_volume``: whether the data support
  it; ``align_volumes``, ``shape_correlation``: against another volume; ``read_map``, ``write_map``: MRC files
"""

from __future__ import annotations

from ._base.version import __version__ as __version__
from .data import open_measurement
from .em.online.batches import OnlineEM
from .em.recover import recover
from .em.state import EMState, IterationRecord, Recovery
from .em.volumes.noise import NoiseModel
from .em.volumes.plan import VolumePlan
from .em.volumes.recover import recover_volume
from .em.volumes.recovery import VolumeRecovery
from .em.volumes.state import VolumeRecord, VolumeState
from .errors import MtdError
from .estep.backends import get_backend
from .estep.expectation import e_step
from .estep.statistics import Statistics
from .model.filters.optics import Micrographs
from .model.likelihood import PatchLikelihood, WindowLikelihood
from .model.priors import FlatPrior, GaussianPrior, Prior
from .model.rotations import Rotations
from .model.shifts import Shifted
from .model.symmetry import Mirrored
from .model.views import Classes, Views
from .model.volumes.projections import Projections
from .moments.fit import MomentFit, fit_moments
from .moments.measure import measure_moments
from .moments.sums import Moments
from .mstep.annealed import AnnealedUpdate
from .mstep.updates import DenoisingUpdate, ExactUpdate, GradientAscent
from .mstep.wiener import CompactUpdate, WienerUpdate
from .results import relative_error
from .synthetic import glyphs as datasets
from .synthetic.particles import simulate_volume
from .synthetic.simulate import simulate

__all__ = [
    "AnnealedUpdate",
    "Classes",
    "CompactUpdate",
    "DenoisingUpdate",
    "EMState",
    "ExactUpdate",
    "FlatPrior",
    "GaussianPrior",
    "GradientAscent",
    "IterationRecord",
    "Micrographs",
    "Mirrored",
    "MomentFit",
    "Moments",
    "MtdError",
    "NoiseModel",
    "OnlineEM",
    "PatchLikelihood",
    "Prior",
    "Projections",
    "Recovery",
    "Rotations",
    "Shifted",
    "Statistics",
    "Views",
    "VolumePlan",
    "VolumeRecord",
    "VolumeRecovery",
    "VolumeState",
    "WienerUpdate",
    "WindowLikelihood",
    "datasets",
    "e_step",
    "fit_moments",
    "get_backend",
    "measure_moments",
    "open_measurement",
    "recover",
    "recover_volume",
    "relative_error",
    "simulate",
    "simulate_volume",
]
