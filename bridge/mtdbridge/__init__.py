"""Learned priors for mtdcore: PyTorch networks behind the engine's one-method ``Prior``.

Nothing here imports torch until one of the names below is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert import convert_checkpoint as convert_checkpoint
    from .dlpack import ZeroCopyError as ZeroCopyError
    from .dlpack import copy_from_torch as copy_from_torch
    from .dlpack import copy_to_torch as copy_to_torch
    from .dlpack import from_torch as from_torch
    from .dlpack import normalise as normalise
    from .dlpack import to_torch as to_torch
    from .library import load_prior as load_prior
    from .library import shipped_priors as shipped_priors
    from .networks import build_network as build_network
    from .sampling import Augmentation as Augmentation
    from .torch_prior import TorchPrior as TorchPrior
    from .training import train_prior as train_prior
    from .training_options import Pace as Pace
    from .training_options import TrainingProgress as TrainingProgress

_HOMES = {
    "convert_checkpoint": "convert",
    "ZeroCopyError": "dlpack",
    "copy_from_torch": "dlpack",
    "copy_to_torch": "dlpack",
    "from_torch": "dlpack",
    "normalise": "dlpack",
    "to_torch": "dlpack",
    "load_prior": "library",
    "shipped_priors": "library",
    "build_network": "networks",
    "Augmentation": "sampling",
    "TorchPrior": "torch_prior",
    "Pace": "training_options",
    "TrainingProgress": "training_options",
    "train_prior": "training",
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
