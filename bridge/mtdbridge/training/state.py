"""The resumable state of a training as safetensors: weights, averaged weights and Adam's moments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from mtdcore.errors import CheckpointError, InputError

from ..priors.weights import ModelCard, check_tensors, read_tensors, write_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")


def path_of(output: Path) -> Path:
    """Path of the state of a training that writes its weights to ``output``."""
    return output.with_name(output.name + ".state")


def save(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Adam, card: ModelCard
) -> None:
    """Write everything that :func:`load` needs, in one step."""
    write_tensors(path, _tensors(model, average, optimizer), asdict(card))


def load(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Adam, expected: ModelCard
) -> ModelCard:
    """Fill model, average and optimiser from a state file; returns its card.

    Raises:
        CheckpointError: the file is damaged, or was written by a training with other images or options.
    """
    try:
        tensors, content = read_tensors(path)
        card = ModelCard(**content)
        steps = int(card.training["steps_done"])
        require_same(path, card, expected)
        blank = _tensors(model, average, optimizer)
        check_tensors(path, tensors, blank)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: expected the state of a training; {error}") from error
    for prefix, module in (("model.", model), ("average.", average)):
        module.load_state_dict({n: tensors[prefix + n] for n in module.state_dict()})
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(float(steps))
        for moment in _MOMENTS:
            state[moment] = torch.empty_like(parameter).copy_(tensors[f"{moment}.{name}"])
    return card


def _tensors(model: nn.Module, average: nn.Module, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"{moment}.{name}": state.get(moment, parameter) for moment in _MOMENTS}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def require_same(
    path: Path, card: ModelCard, expected: ModelCard, may_change: Sequence[str] = ("steps",)
) -> None:
    """Require a state of the same training; only the options in ``may_change`` may differ.

    Raises:
        CheckpointError: the first difference.
    """
    pairs = {
        what: (getattr(card, what), getattr(expected, what))
        for what in ("network", "options", "box_size", "levels")
    }
    pairs["images"] = (card.data.get("sha256"), expected.data["sha256"])
    pairs |= {
        name: (card.training.get(name), value)
        for name, value in expected.training.items()
        if name not in ("device", "torch", *may_change)
    }
    for what, (found, wanted) in pairs.items():
        if json.dumps(found, sort_keys=True) != json.dumps(
            wanted, sort_keys=True
        ):  # JSON has lists for tuples
            raise CheckpointError(
                f"{path}: cannot resume: {what} was {found}, now it is {wanted}; restore it, or train anew without resume."
            )
