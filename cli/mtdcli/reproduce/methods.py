"""The methods of the experiments, which are the columns of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

import mtdcore as mtd
from mtdbridge.priors.library import load_prior
from mtdbridge.priors.torch_prior import TorchPrior
from mtdcore.model.priors import denoise
from mtdcore.mstep.updates import rising
from mtdcore.synthetic.simulate import Simulation

from .cases import ROTATIONS, Case, Experiment, pixels_of
from .learning import MethodName, paper_level

#: A prior as it is sent to another process: the object itself if it is small, else the argument of ``load_prior``.
PriorSource = mtd.Prior | str | None

#: Initial probability of an empty patch: with copies on a tenth of the area about half of the patches hold no part of a copy.
_EMPTY_AT_FIRST = 0.5

_PAPER_STEP, _PAPER_ITERATIONS, _PAPER_TOLERANCE = 1e-3, 100, 1e-5


class Method(Protocol):
    """A method of recovering an image; picklable."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    def __call__(self, case: Case, simulation: Simulation) -> np.ndarray:
        """(L, L) float64 estimate of the target of a case, whose measurement is given."""
        ...


@dataclass(frozen=True)
class Recover:
    """:func:`mtdcore.recover` with fixed arguments.

    Attributes:
        name: name in the table.
        prior: the prior.
        arguments: of :func:`mtdcore.recover`.
        from_start: begin at the start of the case; otherwise ``arguments`` say where.
        tied_patches: the patch model with a learned probability of empty patches (docs/model.md 3).
        device: of the E-steps, as :func:`mtdcore.get_backend` takes it; the prior follows.
    """

    name: str
    prior: PriorSource = None
    arguments: dict[str, Any] = field(default_factory=dict)
    from_start: bool = False
    tied_patches: bool = False
    device: str = "cpu"

    def __call__(self, case: Case, simulation: Simulation) -> np.ndarray:
        """See :class:`Method`."""
        more: dict[str, Any] = {"initial": case.start} if self.from_start else {}
        if self.prior is not None:
            more["prior_scale"] = (
                1.0  # targets and prior have the same units, which the methods of the paper assume
            )
        if self.tied_patches:
            more["likelihood"] = mtd.PatchLikelihood(
                mtd.Rotations(ROTATIONS, len(case.image)), simulation.noise_std, _EMPTY_AT_FIRST
            )
        return mtd.recover(
            simulation.measurement,
            box_size=len(case.image),
            rotations=ROTATIONS,
            noise_std=simulation.noise_std,
            prior=_prior(self.prior),
            backend=mtd.get_backend(self.device, threads=1 if self.device == "cpu" else None),
            **more,
            **self.arguments,
        ).target


@dataclass(frozen=True)
class Start:
    """The start of the paper's method as its estimate, which gives the error before any iteration."""

    name: str = "start"

    def __call__(self, case: Case, simulation: Simulation) -> np.ndarray:
        """See :class:`Method`."""
        return case.start


@dataclass(frozen=True)
class Oracle:
    """The average of the copies at their true places and rotations, denoised where there is a prior.

    With the prior it is the best result to expect, on average, of a method that has to find the copies.
    """

    name: str = "oracle"
    prior: PriorSource = None

    def __call__(self, case: Case, simulation: Simulation) -> np.ndarray:
        """See :class:`Method`."""
        average = aligned_copies(simulation).mean(axis=0)
        prior = _prior(self.prior)
        if prior is None:
            return np.asarray(average)
        level = simulation.noise_std / np.sqrt(len(simulation.positions))
        return np.asarray(denoise(prior, average[None], float(level))[0])


def aligned_copies(simulation: Simulation) -> np.ndarray:
    """(p, L, L) float64: the copies of a simulation with one micrograph, cut out and turned back."""
    side = len(simulation.target)
    assert simulation.rotation_indices is not None
    pixels = pixels_of(simulation)
    copies = [
        np.rot90(pixels[row : row + side, column : column + side], -int(k))
        for (_, row, column), k in zip(simulation.positions, simulation.rotation_indices, strict=True)
    ]
    return np.asarray(copies, dtype=np.float64)


def methods_of(
    experiment: Experiment,
    method: MethodName,
    weights: str,
    prior: TorchPrior,
    *,
    iterations: int | None = None,
    device: str = "cpu",
) -> list[Method]:
    """The columns of an experiment.

    Args:
        experiment: the experiment.
        method: "paper": Table I of the paper; "best": the defaults of :func:`mtdcore.recover`; "patch": the same starts,
            M-steps and gauge with the paper's likelihood and tied empty patches.
        weights: of the learned prior, as :func:`mtdbridge.load_prior` takes it.
        prior: the same prior, loaded.
        iterations: of every recovery; None: 100 for "paper", the default for the others.
        device: of the E-steps.
    """
    exact = experiment.prior
    floor: list[Method] = [Oracle(), Oracle("oracle + prior", exact or weights)]
    if method == "paper":
        update = mtd.GradientAscent(
            _PAPER_STEP,
            prior_weight=1.0 if experiment.name == "gaussian" else rising,
            prior_level=paper_level(prior),
        )
        settings = {
            "likelihood": "patch",
            "update": update,
            "iterations": iterations or _PAPER_ITERATIONS,
            "tolerance": _PAPER_TOLERANCE,
        }
        return [
            Start(),
            Recover("without prior", None, settings, from_start=True, device=device),
            Recover("with prior", weights, settings, from_start=True, device=device),
            *floor,
        ]
    # the noise of the paper has mean 0, which its methods assume
    length = {"offset": None, **({"iterations": iterations} if iterations else {})}
    random = {"initial": "uniform", "temperature": "auto", **length}
    tied = method == "patch"
    # Without a prior cooling raises the error of patches in the Gaussian experiment (SNR 5: E .73 against .43); digits need it.
    cold = tied and experiment.name == "gaussian"
    alone = random | ({"temperature": 1.0} if cold else {})
    if exact is None:
        learned: list[Method] = [Recover("with prior", weights, length, tied_patches=tied, device=device)]
    else:
        learned = [
            Recover("with prior", weights, random, tied_patches=tied, device=device),
            Recover("with the exact prior", exact, random, tied_patches=tied, device=device),
        ]
    return [Recover("without prior", None, alone, tied_patches=tied, device=device), *learned, *floor]


def _prior(source: PriorSource) -> mtd.Prior | None:
    return _loaded(source) if isinstance(source, str) else source


@lru_cache(maxsize=2)
def _loaded(weights: str) -> TorchPrior:
    """Read the weights once per process."""
    return load_prior(weights)
