"""Train a prior on images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtdcore.em.gauge.frames import centre_of_mass
from mtdcore.errors import InputError, ParameterError, StorageError

from ..priors.device import torch_device
from ..priors.torch_prior import TorchPrior
from ..priors.weights import ModelCard, load_weights
from . import state as training_state
from .images import data_hash, load_images
from .loop import Trainer
from .options import LOSS_OF, Callback, Loss, Pace, TrainingOptions


def train_prior(
    images: str | Path | np.ndarray,
    *,
    output: str | Path | None = None,
    network: str = "denoiser",
    loss: Loss | None = None,
    network_options: Mapping[str, Any] | None = None,
    key: str | None = None,
    device: str = "cpu",
    resume: bool = False,
    pace: Pace | None = None,
    callback: Callback | None = None,
    **options: Any,
) -> TorchPrior:
    """Train a prior on images and return it; with ``output``, also write it there as safetensors.

    The averaged weights are at ``output`` from the first save on, so an unfinished training can be used; the card
    holds the number of steps done. Beside it, ``<output>.state`` holds what a resume needs and is removed at the end.
    A resumed run ends with the same weights, bit for bit, as one that was never stopped (same machine, same
    number of threads).

    Args:
        images: anything :func:`mtdbridge.training.images.load_images` takes.
        output: path of the .safetensors file; an existing one is replaced at the first save.
        network: "denoiser" (the prior of choice), "unet" or "mlp" (the paper's).
        loss: None: the one that fits the network.
        network_options: keyword arguments of the network, for instance ``{"channels": (16, 32, 64)}``.
        key: name of the array inside an .npz file.
        device: "cpu", "cuda", "cuda:1", ...
        resume: go on from ``<output>.state`` if it exists; a finished training is only loaded. ``steps`` may differ
            from before: the learning rate then follows the new schedule, and the card records the step of the change.
        pace: how often to report, validate and save.
        callback: called with :class:`TrainingProgress` at every report; returning True stops after a save.
        **options: the other fields of :class:`TrainingOptions`.

    Returns:
        The prior of the averaged weights, on ``device``.

    Raises:
        ParameterError: an option is outside its domain.
        InputError: the images cannot be used, or the loss became NaN.
        DeviceError: the device is not usable here.
        CheckpointError: the state to resume from belongs to another training.
        StorageError: reading or writing failed.
    """
    try:
        settings = TrainingOptions(network=network, loss=loss or LOSS_OF.get(network, "edm"), **options)
    except TypeError as error:
        raise ParameterError(f"unknown training option: {error}.") from error
    if resume and output is None:
        raise ParameterError("resume needs an output: the state lies beside it.")
    path = None if output is None else Path(output)
    if path is not None and not path.parent.is_dir():
        raise StorageError(f"{path}: expected an existing folder for the weights; make {path.parent} first.")
    where = torch_device(device)
    data = load_images(images, key=key, seed=settings.seed)
    count = len(data) - settings.validation
    if count < settings.batch_size:
        raise InputError(
            f"expected at least {settings.batch_size + settings.validation} images (one batch of "
            f"{settings.batch_size} and {settings.validation} for validation); got {len(data)}: give more, or a smaller batch_size or validation."
        )
    train, held_out = data[:count], data[count:]
    described = dict(network_options or {})
    if network == "denoiser":
        described = {"data_mean": float(train.mean()), "data_std": float(train.std()), **described}
    card = ModelCard(
        network,
        described,
        data.shape[-1],
        settings.trained_levels,
        data={
            "source": Path(images).name if isinstance(images, str | Path) else "array",
            "sha256": data_hash(data),
            "count": count,
            "validation_count": settings.validation,
            "centre": centre_of_mass(train.mean(axis=0)),
        },
        training={**asdict(settings), "device": device, "torch": torch.__version__},
    )
    if resume and path is not None and (finished := _finished(path, card)):
        return finished
    trainer = Trainer(card, settings, torch.from_numpy(train), torch.from_numpy(held_out), where, path)
    if resume and path is not None and training_state.path_of(path).exists():
        trainer.restore(training_state.path_of(path))
    trainer.run(pace or Pace(), callback)
    return TorchPrior.of(trainer.average, trainer.card())


def _finished(path: Path, card: ModelCard) -> TorchPrior | None:
    """The prior at ``path`` if it is the complete result of this training; None: there is none, or an incomplete one."""
    if not path.exists() or training_state.path_of(path).exists():
        return None
    network, found = load_weights(path)
    if not found.training.get("complete"):
        return None
    training_state.require_same(path, found, card, may_change=())
    return TorchPrior.of(network, found)
