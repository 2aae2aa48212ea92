"""Train a prior on protein structures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mtdcore.errors import ParameterError, StorageError

from ..priors.device import torch_device
from ..priors.torch_prior import TorchPrior
from .loading import load_structures
from .plans import PLANS, TrainingPlan
from .structures import Structures
from .training import ProteinTraining, Report

_ON_A_CPU = {"pixels": 1 << 16, "precision": "float32"}


def train_protein_prior(
    structures: str | Path | Structures,
    *,
    output: str | Path | None = None,
    plan: str | TrainingPlan = "proteins-2d",
    device: str = "cpu",
    start: str | Path | None = None,
    callback: Report | None = None,
    report_seconds: float = 60.0,
    **changes: Any,
) -> TorchPrior:
    """Train a denoiser on drawings of structures and return it as a prior; with ``output``, also write it there.

    Drawings of the part "train" are trained on, those of "validation" give the validation figures, "test" is never read. The
    averaged weights are at ``output`` (float16) from the first report on, with a .full.safetensors in float32, which
    ``start`` takes, and a .json with the validation curves beside them. A plan limited by ``seconds`` gives other weights on another
    machine; a plan limited by ``steps`` gives the same weights on the same machine. On a CPU the batches are smaller and in float32 unless
    ``pixels`` and ``precision`` say otherwise.

    Args:
        structures: anything :func:`mtdbridge.proteins.structures.load_structures` takes, or structures.
        output: path of the .safetensors file.
        plan: "proteins-2d" (projections), "proteins-3d" (densities), or a plan.
        device: "cpu", "cuda", "cuda:1", ...
        start: weights to start from.
        callback: called with step, seconds, loss and validation at every report; returning True stops after a save.
        report_seconds: least time between reports.
        **changes: fields of :class:`mtdbridge.proteins.plans.TrainingPlan` that differ from the plan.

    Raises:
        ParameterError: an option is unknown or outside its domain.
        InputError: the structures cannot be used, or the loss became NaN.
        DeviceError: the device is not usable here.
        StorageError: reading or writing failed.
    """
    if isinstance(plan, str) and plan not in PLANS:
        raise ParameterError(f"plan must be one of {', '.join(PLANS)}; got {plan!r}.")
    where = torch_device(device)
    if where.type == "cpu":
        changes = {**_ON_A_CPU, **changes}
    try:
        chosen = replace(PLANS[plan] if isinstance(plan, str) else plan, **changes)
    except TypeError as error:
        raise ParameterError(f"unknown training option: {error}.") from error
    path = None if output is None else Path(output)
    if path is not None and not path.parent.is_dir():
        raise StorageError(f"{path}: expected an existing folder for the weights; make {path.parent} first.")
    known = structures if isinstance(structures, Structures) else load_structures(structures)
    training = ProteinTraining(
        known,
        chosen,
        device=str(where),
        output=path,
        start=None if start is None else Path(start),
        source="structures" if isinstance(structures, Structures) else Path(structures).name,
        report_seconds=report_seconds,
    )
    training.run(callback)
    return TorchPrior.of(training.average, training.card())
