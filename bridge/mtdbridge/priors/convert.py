"""Conversion of pickled checkpoints (.pt, .pth) to safetensors in a separate process that accepts tensors and plain containers only."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mtdcore.errors import InputError, StorageError

from .networks import build_network
from .parameterisation import LevelRange, check_parameterisation
from .weights import ModelCard, check_tensors, save_weights

TIMEOUT_SECONDS = 120


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    *,
    network: str,
    box_size: int,
    levels: LevelRange,
    network_options: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of a pickled state dict as a .safetensors file that :func:`mtdbridge.load_prior` takes.

    The file is unpickled by a separate Python process with ``torch.load(weights_only=True)``, which accepts tensors and
    plain containers only; a file with any other content is refused before code in it can run.

    Args:
        source: .pt or .pth file: a state dict, or a dict that holds one under "state_dict" or "model".
        output: .safetensors file to write.
        network: the architecture the weights belong to, see :data:`mtdbridge.priors.networks.NETWORKS`.
        box_size: side L of its images in pixels.
        levels: lowest and highest noise level it was trained on; (0, 0) for "mlp".
        network_options: keyword arguments of the network.

    Raises:
        InputError: the file is refused, or does not fit the network.
        StorageError: a file cannot be read or written.
    """
    source = Path(source)
    if not source.is_file():
        raise StorageError(f"{source}: there is no such checkpoint.")
    model = build_network(network, box_size, **dict(network_options or {}))
    check_parameterisation(model.parameterisation, levels)
    with tempfile.TemporaryDirectory() as folder:
        tensors_path = Path(folder) / "tensors.safetensors"
        worker = Path(__file__).with_name("_unpickle.py")
        command = [sys.executable, "-I", str(worker), str(source.resolve()), str(tensors_path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{source}: not converted within {TIMEOUT_SECONDS} s; refused.") from error
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"{source}: expected a checkpoint of tensors only; refused: {reason}")
        try:
            tensors = load_file(tensors_path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{source}: the converted tensors cannot be read: {error}.") from error
    check_tensors(source, tensors, model.state_dict())
    model.load_state_dict(tensors)
    card = ModelCard(
        network,
        model.options,
        box_size,
        levels,
        training={"converted_from": source.name, "torch": torch.__version__},
    )
    save_weights(output, model, card)
