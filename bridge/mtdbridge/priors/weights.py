"""Weights as safetensors: tensors plus one JSON card; nothing in a file is ever executed.

A file is used only after its size, header, names, shapes, dtypes and values have been checked against the network
that its card describes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as encode
from torch import Tensor, nn

from mtdcore._base.files import write_whole
from mtdcore._base.guarded import opened
from mtdcore._base.records import from_record
from mtdcore.errors import InputError, MtdError, StorageError

from .blocks import PriorNetwork
from .networks import build_network
from .parameterisation import LevelRange, check_parameterisation

MAX_FILE_BYTES = 1 << 30
MAX_BOX_SIZE = 4096


@dataclass(frozen=True)
class ModelCard:
    """The description of network, data and training in a weights file.

    Attributes:
        network: name of the architecture, see :data:`mtdbridge.priors.networks.NETWORKS`.
        options: its keyword arguments.
        box_size: side L of the images in pixels.
        levels: lowest and highest noise level trained on, in the units of the images; (0, 0) for a plain score.
        data: source, number, hash and statistics of the training images.
        training: every parameter of the training and how far it came.
        metrics: validation figures.
    """

    network: str
    options: dict[str, Any]
    box_size: int
    levels: LevelRange
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def save_weights(path: str | Path, network: nn.Module, card: ModelCard) -> None:
    """Write the weights and their card; an existing file is replaced in one step or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(path, tensors, asdict(card))


def load_weights(path: str | Path) -> tuple[PriorNetwork, ModelCard]:
    """The network of a weights file, on the CPU and in evaluation mode.

    Raises:
        StorageError: the file cannot be read.
        InputError: it is no weights file, is damaged, or does not fit the network of its own card.
    """
    path = Path(path)
    tensors, content = read_tensors(path)
    card = _card(path, content)
    try:
        with torch.device("meta"):  # shapes only: a hostile card cannot make us allocate
            expected = build_network(card.network, card.box_size, **card.options).state_dict()
        check_tensors(path, tensors, expected)
        with torch.random.fork_rng(
            devices=[]
        ):  # drawing initial weights must not advance the caller's generator
            network = build_network(card.network, card.box_size, **card.options)
        check_parameterisation(network.parameterisation, card.levels)
    except InputError:
        raise
    except (MtdError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the card of these weights describes no usable network: {error}") from error
    network.load_state_dict(tensors)
    return network.eval(), card


def write_tensors(path: str | Path, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Write tensors and a JSON card, whole or not at all."""
    path = Path(path)
    blob = encode(tensors, metadata={"mtdbridge": json.dumps(content, sort_keys=True)})
    write_whole(path, lambda file: file.write(blob))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON card of a file that :func:`write_tensors` wrote; errors as in :func:`load_weights`."""
    try:
        opened(path, MAX_FILE_BYTES).close()
        with safe_open(path, framework="pt") as file:  # maps the file: tensors are copied out of it
            metadata, names = file.metadata(), file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except OSError as error:
        raise StorageError(f"{path}: the weights cannot be read: {error}.") from error
    except SafetensorError as error:
        raise InputError(
            f"{path}: expected a whole safetensors file; got another one, or a damaged one ({error}): fetch or train it "
            "again, and make one of a .pt or .pth file with convert_checkpoint."
        ) from error
    try:
        content = json.loads(metadata["mtdbridge"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: these weights carry no mtdbridge card; convert them with convert_checkpoint."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object as card; got {type(content).__name__}.")
    return tensors, content


def check_tensors(path: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Names, shapes, dtypes and finiteness.

    Raises:
        InputError: the first thing that is wrong.
    """
    if tensors.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
        raise InputError(
            f"{path}: the tensors do not fit the network: missing {missing[:3]}, unknown {extra[:3]}."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{path}: expected shape {tuple(expected[name].shape)} for {name!r}; got {tuple(tensor.shape)}."
            )
        if not tensor.is_floating_point():
            raise InputError(f"{path}: expected floating-point weights in {name!r}; got {tensor.dtype}.")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name!r} holds NaN or infinite weights; this training went wrong.")


def _card(path: Path, content: dict[str, Any]) -> ModelCard:
    try:
        card = from_record(ModelCard, content)
    except ValueError as error:
        raise InputError(f"{path}: the card of these weights is incomplete: {error}.") from error
    if not 1 <= card.box_size <= MAX_BOX_SIZE:
        raise InputError(f"{path}: expected a box size from 1 to {MAX_BOX_SIZE}; got {card.box_size}.")
    return card
