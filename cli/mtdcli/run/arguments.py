"""The options of a run as arguments of the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

import mtdcore as mtd
from mtdcore._base.optional import optional
from mtdcore._base.plugins import plugin
from mtdcore.em.starts import Start
from mtdcore.mstep.wiener import WienerUpdate

from ..inputs.sources import read_image
from .parameters import RunParameters

if TYPE_CHECKING:
    from mtdcore.data.micrographs.table import MicrographTable
    from mtdcore.mstep.updates import Update

#: What tells the micrographs apart, as :func:`mtdcore.recover` takes it.
Optics: TypeAlias = mtd.Micrographs | Literal["each"] | None


def optics(table: MicrographTable | None, asked: Literal["auto", "each", "alike"]) -> Optics:
    """What the likelihood is told about the micrographs.

    Args:
        table: what is known of them; None: nothing.
        asked: the option ``--micrographs``.
    """
    transfer = None if table is None else table.transfer
    if asked == "alike" or transfer is None:
        return "each" if asked == "each" else None
    return mtd.Micrographs(np.ones(len(transfer)), transfer=transfer)


def arguments(parameters: RunParameters, micrographs: Optics = None) -> dict[str, Any]:
    """The options and what tells the micrographs apart, as arguments of :func:`mtdcore.recover`."""
    same = (
        "box_size", "rotations", "coarse_rotations", "noise_std", "likelihood", "min_separation", "expected_count",
        "iterations", "tolerance", "temperature", "seed", "starts", "classes",
    )  # fmt: skip
    initial = parameters.initial
    return {
        **{name: getattr(parameters, name) for name in same},
        "initial": initial if initial is None or initial in get_args(Start) else read_image(Path(initial)),
        "prior": named_prior(parameters.prior),
        "micrographs": micrographs,
        "update": _update(parameters),
        "online": mtd.OnlineEM(parameters.batches, seed=parameters.seed),
    }


def named_prior(name: str | None) -> mtd.Prior | None:
    """The prior of this name: of a plug-in (entry point ``mtdcore.priors``), shipped, or a file; None: no prior.

    Raises:
        DependencyError: PyTorch is not installed, or the plug-in cannot be loaded.
        InputError: there is no such prior; the message lists those there are.
    """
    if name is None:
        return None
    own = plugin("mtdcore.priors", name)
    if own is not None:
        made: mtd.Prior = own(name)
        return made
    torch = optional("torch", "torch")
    from mtdbridge import load_prior

    # This process is ours to configure: on one small image more threads only wait for each other.
    torch.set_num_threads(1)
    loaded: mtd.Prior = load_prior(name)
    return loaded


def _update(parameters: RunParameters) -> Update | None:
    match parameters.update:
        case "gradient":
            return mtd.GradientAscent(parameters.step)
        case "exact":
            return mtd.ExactUpdate()
        case "denoising":
            return mtd.DenoisingUpdate()
        case "wiener":
            return WienerUpdate()
    return None
