"""Learned priors for mtdcore: PyTorch networks behind the engine's one-method ``Prior``.

Nothing here imports torch until one of the names below is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .priors.convert import convert_checkpoint as convert_checkpoint
    from .priors.dlpack import ZeroCopyError as ZeroCopyError
    from .priors.dlpack import copy_from_torch as copy_from_torch
    from .priors.dlpack import copy_to_torch as copy_to_torch
    from .priors.dlpack import from_torch as from_torch
    from .priors.dlpack import normalise as normalise
    from .priors.dlpack import to_torch as to_torch
    from .priors.library import load_prior as load_prior
    from .priors.library import shipped_priors as shipped_priors
    from .priors.networks import build_network as build_network
    from .priors.torch_prior import TorchPrior as TorchPrior
    from .proteins.train import train_protein_prior as train_protein_prior
    from .training.draws import Augmentation as Augmentation
    from .training.options import Pace as Pace
    from .training.options import TrainingProgress as TrainingProgress
    from .training.train import train_prior as train_prior

_HOMES = {
    "convert_checkpoint": "priors.convert",
    "ZeroCopyError": "priors.dlpack",
    "copy_from_torch": "priors.dlpack",
    "copy_to_torch": "priors.dlpack",
    "from_torch": "priors.dlpack",
    "normalise": "priors.dlpack",
    "to_torch": "priors.dlpack",
    "load_prior": "priors.library",
    "shipped_priors": "priors.library",
    "build_network": "priors.networks",
    "Augmentation": "training.draws",
    "TorchPrior": "priors.torch_prior",
    "Pace": "training.options",
    "TrainingProgress": "training.options",
    "train_prior": "training.train",
    "train_protein_prior": "proteins.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the home of a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f".{_HOMES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        from mtdcore.errors import DependencyError

        raise DependencyError(
            f"mtdbridge.{name} needs the package {error.name!r}, which is not installed: "
            'pip install "mtdcore[torch]".'
        ) from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return __all__
