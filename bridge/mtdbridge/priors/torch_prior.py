"""A PyTorch network as a prior of the engine."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtdcore._base.typing import Array
from mtdcore.errors import InputError, ParameterError

from .blocks import PriorNetwork
from .device import Replayed
from .dlpack import from_torch, normalise, shared_stream, to_torch, with_room
from .parameterisation import LevelRange, Parameterisation, check_parameterisation, smoothed_score
from .weights import ModelCard

#: Excess of the norm of standard normal numbers over its root mean square that is reached with a probability of 1 % at most.
_SURPRISE = 3.0


class TorchPrior:
    """Implements :class:`mtdcore.model.priors.Prior` with any network.

    The network is put into evaluation mode and called without gradients on the whole batch. Arrays of the
    network's dtype (float32 as a rule) share memory with torch, input and output; arrays of any other dtype are converted
    to it and back. The network must not write to its input.

    Args:
        network: the model; see :mod:`mtdbridge.priors.parameterisation` for how it is called.
        parameterisation: "score", "vp-score", "epsilon" or "denoiser": what its output means.
        box_size: side L of the images in pixels; of most of them, for a network of several boxes.
        levels: lowest and highest noise level it was trained on, in the units of the images; it is called within them
            only (see :func:`mtdbridge.priors.parameterisation.smoothed_score`). (0, 0) for "score".
        dimension: 2 for images, 3 for volumes.
        boxes: smallest and largest side that the network was trained on; None: ``box_size`` only.
        card: where the weights come from; None if unknown.

    Raises:
        ParameterError: the parameterisation is unknown, or the levels do not fit it.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterisation: Parameterisation,
        box_size: int,
        *,
        levels: LevelRange,
        dimension: int = 2,
        boxes: tuple[int, int] | None = None,
        card: ModelCard | None = None,
    ) -> None:
        check_parameterisation(parameterisation, levels)
        self.network = network.eval()
        self._replayed = Replayed(self.network)
        self.parameterisation = parameterisation
        self.box_size = box_size
        self.levels = levels
        self.dimension = dimension
        self.boxes = boxes or (box_size, box_size)
        self.card = card

    @classmethod
    def of(cls, network: PriorNetwork, card: ModelCard) -> TorchPrior:
        """The prior of a network of this package and its card."""
        return cls(
            network,
            network.parameterisation,
            card.box_size,
            levels=card.levels,
            dimension=network.dimension,
            boxes=network.boxes,
            card=card,
        )

    @property
    def own_units(self) -> bool:
        """Whether ``recover`` may estimate the scale between its units and the measurement's: not for a plain score, which has no noise level."""
        return self.parameterisation != "score"

    @property
    def centre(self) -> tuple[float, ...] | None:
        """Where recovered images are put in boxes of ``box_size`` pixels, see :meth:`centre_in`."""
        return self.centre_in(self.box_size)

    def centre_in(self, box_size: int) -> tuple[float, ...] | None:
        """(row, column), for volumes (z, y, x): the mean centre of mass of the training data in a box of ``box_size`` pixels.

        The card's centre where it names one; otherwise the middle of the box for a network of several boxes, whose training
        data lie around the middle of each; None if unknown.
        """
        centre = self.card.data.get("centre") if self.card else None
        if centre is None and self.boxes[0] < self.boxes[1]:
            centre = [(box_size - 1) / 2] * self.dimension
        return None if centre is None else tuple(float(c) for c in centre)

    def to(self, device: str | torch.device) -> TorchPrior:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    def score(self, images: Array, noise_std: float) -> Array:
        """Gradient of the log density of *image + N(0, noise_std^2)*, or of a volume.

        The network follows the array: it is moved to the array's device if it lies elsewhere.

        Args:
            images: (B, L, L) or (B, L, L, L) floating-point array of NumPy, CuPy or torch.
            noise_std: level s >= 0, in the units of the images.

        Returns:
            The same shape, library, dtype and device; at levels above 0 the norm is at most ``(sqrt(n) + 3) / s`` for n pixels,
            which keeps the answer bounded for images unlike the training data.

        Raises:
            ParameterError: the level is negative, not finite, or unknown to the network.
            InputError: the images have another shape or are no floating-point numbers, or the network's answer has
                another shape.
        """
        if not (math.isfinite(noise_std) and noise_std >= 0):
            raise ParameterError(f"the level must be finite and at least 0; got {noise_std}.")
        sides, (low, high) = set(images.shape[1:]), self.boxes
        if len(images.shape) != 1 + self.dimension or len(sides) != 1 or not low <= min(sides) <= high:
            shape = ", ".join(["B"] + [str(low) if low == high else "L"] * self.dimension)
            known = "" if low == high else f" with L from {low} to {high}"
            raise InputError(
                f"this prior knows {'images' if self.dimension == 2 else 'volumes'} of shape ({shape}){known}; "
                f"got {tuple(images.shape)}."
            )
        with torch.no_grad(), shared_stream(images):
            shared = to_torch(normalise(images))
            if not shared.is_floating_point():
                raise InputError(f"a prior needs floating-point images; got {shared.dtype}.")
            result = with_room(lambda: self._smoothed(shared, noise_std), images)
            if result.shape != shared.shape:
                raise InputError(f"the network answered {tuple(shared.shape)} with {tuple(result.shape)}.")
            return from_torch(result.to(shared.dtype), images)

    def _smoothed(self, images: Tensor, noise_std: float) -> Tensor:
        inputs = self._follow(images)
        score = smoothed_score(self._replayed, self.parameterisation, inputs, noise_std, self.levels)
        return _believable(score, max(noise_std, self.levels[0])) if noise_std > 0 else score

    def _follow(self, images: Tensor) -> Tensor:
        """``images`` in the dtype of the network, which is moved to their device if need be."""
        parameter = next(self.network.parameters(), None)
        if parameter is None:
            return images
        if parameter.device != images.device:
            self.network.to(images.device)
        return images.to(parameter.dtype)


def _believable(score: Tensor, level: float) -> Tensor:
    """The score of each image, shortened to the norm that noise of this level can have: ``||s score|| <= sqrt(n) + 3`` for n pixels.

    ``-s score`` is the network's estimate of the noise in an image, divided by the level s. The norm of n standard normal numbers exceeds
    the bound with a probability of 1 % at most. For images like the training data the estimate is the posterior mean of the noise, whose norm is smaller
    still. For other images the estimate is arbitrary and may grow from call to call; the bound keeps it within the norm of noise (the
    discrepancy principle, Morozov 1966).
    """
    longest = (math.sqrt(math.prod(score.shape[1:])) + _SURPRISE) / level
    norms: Tensor = torch.linalg.vector_norm(score.flatten(1), dim=1).clamp(min=longest)
    held: Tensor = score * (longest / norms).reshape(-1, *[1] * (score.ndim - 1))
    return held
