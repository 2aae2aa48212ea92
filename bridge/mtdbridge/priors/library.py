"""The priors that ship with the package, and any other weights file."""

from __future__ import annotations

from pathlib import Path

from mtdcore._base.plugins import plugin_names
from mtdcore.errors import InputError

from .device import torch_device
from .torch_prior import TorchPrior
from .weights import load_weights


def shipped_priors() -> list[str]:
    """Names that :func:`load_prior` takes besides a path."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def load_prior(source: str | Path, *, device: str = "cpu", box_size: int | None = None) -> TorchPrior:
    """A prior from shipped or own weights.

    Args:
        source: the name of a shipped prior ("mnist", "glyphs", "proteins-2d", "proteins-3d"), or the path of a .safetensors file written by
            :func:`mtdbridge.train_prior`.
        device: where the network is loaded; it later moves to the device of the arrays it is called with.
        box_size: side of the box that the prior must support; None: any. A prior of several boxes takes it as its ``box_size``.

    Raises:
        InputError: there is no such prior, its weights are damaged, or it is for another box.
        DeviceError: the device is not usable here.
        StorageError: the file cannot be read.
    """
    path = _folder() / f"{source}.safetensors" if str(source) in shipped_priors() else Path(source)
    if path.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        raise InputError(
            f"{path}: pickled checkpoints can run code and are never loaded here; "
            "make a .safetensors file of it with mtdbridge.convert_checkpoint first."
        )
    if not path.is_file():
        raise InputError(
            f"expected one of the shipped priors {', '.join(shipped_priors())}, or the path of a .safetensors file"
            f"{_of_plugins()}; got {str(source)!r}."
        )
    network, card = load_weights(path)
    low, high = network.boxes or (card.box_size, card.box_size)
    if box_size is not None and not low <= box_size <= high:
        trained = f"{low}" if low == high else f"{low} to {high}"
        raise InputError(
            f"{path}: expected a prior for boxes of {box_size} pixels; this one was trained on {trained}."
        )
    prior = TorchPrior.of(network.to(torch_device(device)), card)
    prior.box_size = box_size or card.box_size
    return prior


def _of_plugins() -> str:
    names = plugin_names("mtdcore.priors")
    return f", or with `mtd recover --prior` a plug-in: {', '.join(names)}" if names else ""


def _folder() -> Path:
    return Path(__file__).parents[1] / "weights"
