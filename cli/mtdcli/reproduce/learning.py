"""The networks of the experiments, trained when no weights are given; a finished training is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mtdbridge.priors.library import load_prior
from mtdbridge.priors.parameterisation import VP_LEVELS
from mtdbridge.priors.torch_prior import TorchPrior
from mtdbridge.training.options import Callback, Pace
from mtdbridge.training.train import train_prior
from mtdcore.errors import ParameterError

from .cases import Experiment

MethodName = Literal["paper", "patch", "best"]

#: Trainings of (experiment, method), with steps that take about 1, 10 and 1 minutes on two cores. The paper trains until convergence
#: and does not state a number of steps. Methods other than the paper's use a denoiser, which for digits is shipped.
_RECIPES: dict[tuple[str, str], dict[str, Any]] = {
    ("gaussian", "paper"): {"network": "mlp", "steps": 2000, "validation": 500},
    ("mnist", "paper"): {"network": "unet", "steps": 1500, "validation": 500},
    ("gaussian", "denoiser"): {
        "network": "denoiser",
        "network_options": {"channels": (16, 24, 32)},
        "steps": 1000,
        "validation": 500,
        # At a level of 10 the posterior mean is almost the prior mean of N(mu, I).
        "levels": (0.02, 10.0),
    },
}


def learned_prior(
    experiment: Experiment,
    method: MethodName,
    folder: Path,
    *,
    weights: str | Path | None = None,
    steps: int | None = None,
    callback: Callback | None = None,
    stopping: Callable[[], bool] | None = None,
) -> tuple[str, TorchPrior]:
    """The learned prior of a method, and its weights: given, shipped, or trained into ``folder``.

    Args:
        experiment: provides the training images.
        method: "patch" and "best" share their prior.
        folder: existing folder; a training in it is continued, or only loaded when it is finished.
        weights: name of a shipped prior or a .safetensors file, for boxes of the experiment's size.
        steps: of the training; None: those of ``_RECIPES``.
        callback: called with the progress of a training.
        stopping: called after every step of a training; returning True stops it.

    Returns:
        The argument of :func:`mtdbridge.load_prior` for these weights, and the prior.

    Raises:
        ParameterError: the prior has no score at the noise level that the method needs.
        InputError: the weights do not fit.
    """
    recipe = _RECIPES.get((experiment.name, method if method == "paper" else "denoiser"))
    if weights is None and recipe is None:
        weights = "glyphs" if experiment.source == "glyphs" else "mnist"
    if weights is None and recipe is not None:
        recipe = recipe | ({"steps": steps} if steps else {})
        path = folder / f"{experiment.name}-{recipe['network']}-{recipe['steps']}.safetensors"
        pace = Pace(stopping=stopping)
        prior = train_prior(
            experiment.training, output=path, resume=True, callback=callback, pace=pace, **recipe
        )
        return str(path), prior
    prior = load_prior(str(weights), box_size=experiment.box_size)
    if method != "paper" and prior.parameterisation == "score":
        raise ParameterError(
            f"this method asks its prior at many noise levels; {weights} is a plain score, which knows none: "
            "train a denoiser."
        )
    return str(weights), prior


def paper_level(prior: TorchPrior) -> float:
    """Noise level at which the paper calls its networks: 0 for a plain score, else that of t = 0.01."""
    return 0.0 if prior.parameterisation == "score" else VP_LEVELS[0]
