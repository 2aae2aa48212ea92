"""One denoiser for images and volumes of any box: a U-Net over as many resolutions as it has channel counts.

``D(y; s)`` with the preconditioning of :class:`mtdbridge.priors.networks.DenoisingUNet`. The network is fully convolutional;
a second input channel holds the squared distance from the centre of the box over its half side, so that the position of a voxel
is known in a box of any size. The decoder is conditioned on the noise level and on the mean of the features at every resolution,
so that the filter adapts to the band limit and the size of the object. Boxes are padded with zeros, evenly on both sides, to a multiple of the coarsest
resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtdcore.errors import ParameterError

from .blocks import LevelFeatures, PriorNetwork

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class MultiscaleDenoiser(PriorNetwork):
    """Noise-conditional denoiser of (B, L, L) images or (B, L, L, L) volumes, L within ``boxes``.

    With u = (y - mean) / std and r = s / std, ``D = mean + std (u / (1 + r^2) + r / sqrt(1 + r^2) f(u / sqrt(1 + r^2), ln r))``
    (Karras et al., *Elucidating the design space of diffusion-based generative models*, 2022, eq. 7): D is the identity
    at s = 0, and f is 0 before training, so that D starts as the linear denoiser of white data.

    Args:
        box_size: side L of most of its boxes in pixels.
        dimension: 2 or 3.
        boxes: smallest and largest side it was trained on; None: ``box_size`` only.
        data_mean: mean pixel of the training data.
        data_std: root mean square of their pixels, > 0.
        channels: channels at full, half, quarter, ... resolution, at least two.
        embedding: width of the noise-level embedding.
    """

    parameterisation = "denoiser"

    def __init__(
        self,
        box_size: int,
        dimension: int = 2,
        boxes: Sequence[int] | None = None,
        data_mean: float = 0.0,
        data_std: float = 1.0,
        channels: Sequence[int] = (32, 64, 80, 96),
        embedding: int = 64,
    ) -> None:
        low, high = (box_size, box_size) if boxes is None else boxes
        if dimension not in (2, 3) or len(channels) < 2:
            raise ParameterError(
                f"expected 2 or 3 dimensions and channels at two resolutions or more; got {dimension} and {channels}."
            )
        if not 1 <= low <= box_size <= high:
            raise ParameterError(f"boxes must enclose the box of {box_size} pixels; got {boxes}.")
        if not (math.isfinite(data_mean) and math.isfinite(data_std) and data_std > 0):
            raise ParameterError(
                f"data_std must be positive and data_mean finite; got {data_std}, {data_mean}."
            )
        super().__init__(
            dimension=dimension,
            boxes=[low, high],
            data_mean=data_mean,
            data_std=data_std,
            channels=list(channels),
            embedding=embedding,
        )
        self.dimension, self.boxes = dimension, (low, high)
        self.data_mean, self.data_std = data_mean, data_std
        convolution, transposed = _CONVOLUTION[dimension], _TRANSPOSED[dimension]
        steps = list(pairwise(channels))
        self.embed = nn.Sequential(LevelFeatures(embedding), nn.Linear(embedding, embedding), nn.SiLU())
        self.first = convolution(2, channels[0], 3, padding=1)
        self.before = nn.ModuleList(_Block(dimension, width, embedding) for width in channels)
        self.down = nn.ModuleList(convolution(a, b, 2, stride=2) for a, b in steps)
        self.gather = nn.Linear(sum(channels), embedding)
        self.coarsest = _Block(dimension, channels[-1], embedding)
        self.up = nn.ModuleList(transposed(b, a, 2, stride=2) for a, b in steps)
        self.after = nn.ModuleList(_Block(dimension, width, embedding) for width in channels[:-1])
        self.last = convolution(channels[0], 1, 3, padding=1)
        for parameter in (*self.last.parameters(), *self.gather.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
        """Posterior mean of the clean data.

        Args:
            noisy: (B, L, ...) images or volumes plus white noise.
            level: (B,) standard deviation s > 0 of that noise, in the units of the data.
        """
        ratio = (level / self.data_std).view((-1,) + (1,) * self.dimension)
        gain = torch.rsqrt(1 + ratio**2)
        unit = (noisy - self.data_mean) / self.data_std
        hidden = self._network(unit * gain, (level / self.data_std).log())
        return self.data_mean + self.data_std * (unit * gain**2 + ratio * gain * hidden)

    def _network(self, x: Tensor, log_ratio: Tensor) -> Tensor:
        code = self.embed(log_ratio)
        distance = squared_distance(x.shape[1:], x.device).to(x.dtype).expand_as(x)
        stack, crop = pad_evenly(torch.stack((x, distance), dim=1), 1 << len(self.down))
        x, passed, means = self.first(stack), [], []
        for block, down in zip(self.before, [*self.down, None], strict=True):
            x = block(x, code)
            means.append(x.flatten(2).mean(2))
            if down is not None:
                passed.append(x)
                x = down(x)
        code = code + self.gather(torch.cat(means, dim=1))
        x = self.coarsest(x, code)
        for block, up in zip(reversed(self.after), reversed(self.up), strict=True):
            x = block(up(x) + passed.pop(), code)
        out: Tensor = self.last(F.silu(x))
        return out[:, 0][(slice(None), *crop)]


class _Block(nn.Module):
    """Two convolutions of side 3 around a channel-wise affine map of the noise level; starts as the identity."""

    def __init__(self, dimension: int, channels: int, embedding: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[dimension]
        self.one = convolution(channels, channels, 3, padding=1)
        self.two = convolution(channels, channels, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * channels)
        for parameter in (*self.two.parameters(), *self.affine.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        affine = self.affine(code)
        scale, shift = affine.view(*affine.shape, *(1,) * (x.dim() - 2)).chunk(2, dim=1)
        hidden = self.one(F.silu(x))
        out: Tensor = self.two(F.silu(torch.addcmul(hidden + shift, hidden, scale)))
        return x + out


def squared_distance(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Squared distance of every pixel from the centre of the box over its half side: 1 at the middle of a face."""
    axes = [((torch.arange(n, device=device) - (n - 1) / 2) / (n / 2)).square() for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)


def pad_evenly(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Zero-pad all axes of (B, C, ...) but the first two to a multiple; also the slices that undo it."""
    pads: list[tuple[int, int]] = []
    crop: list[slice] = []
    for n in x.shape[2:]:
        extra = -n % multiple
        pads.append((extra // 2, extra - extra // 2))
        crop.append(slice(extra // 2, extra // 2 + n))
    if any(sum(pad) for pad in pads):
        x = F.pad(x, [side for pad in reversed(pads) for side in pad])
    return x, tuple(crop)
