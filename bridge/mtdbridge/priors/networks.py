"""The networks of the bridge: the paper's MLP and its U-Net, and the denoisers of docs/model.md 8.

All take images (B, L, L) and return (B, L, L). What the output means is the network's *parameterisation*,
which :mod:`mtdbridge.priors.parameterisation` translates into the score of the smoothed density:

==========  ===========================  ========================================================
network     called as                    output
==========  ===========================  ========================================================
mlp         ``net(x)``                   score of the density itself, level 0 (implicit score matching)
unet        ``net(x_t, t)``              score of the VP process at time t (denoising score matching)
denoiser    ``net(y, level)``            posterior mean of the clean image (EDM loss)
multiscale  ``net(y, level)``            the same for images and volumes of any box, :mod:`mtdbridge.priors.multiscale`
==========  ===========================  ========================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtdcore.errors import ParameterError

from . import sde
from .blocks import LevelFeatures, PriorNetwork
from .multiscale import MultiscaleDenoiser


class ScoreMLP(PriorNetwork):
    """The paper's score network for small boxes: three fully connected layers of width 256, Softplus.

    Args:
        box_size: side L of the images in pixels.
        width: units of each hidden layer.
    """

    parameterisation = "score"

    def __init__(self, box_size: int, width: int = 256) -> None:
        super().__init__(width=width)
        pixels = box_size * box_size
        self.layers = nn.Sequential(
            nn.Linear(pixels, width),
            nn.Softplus(),
            nn.Linear(width, width),
            nn.Softplus(),
            nn.Linear(width, pixels),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score of the density at ``images`` (B, L, L)."""
        out: Tensor = self.layers(images.flatten(1))
        return out.view_as(images)


class ScoreUNet(PriorNetwork):
    """The paper's VP score network: ten convolutions, LogSigmoid, the time t as an extra input channel.

    Three resolutions (L, L/2, L/4) with two convolutions each on the way down and up; the last layer is linear and
    its output divided by the noise in x_t, so that it has unit size at every t.

    Args:
        box_size: side L of the images in pixels; odd sizes are padded inside.
        width: channels at full resolution, doubled at each of the two coarser ones.
    """

    parameterisation = "vp-score"

    def __init__(self, box_size: int, width: int = 32) -> None:
        super().__init__(width=width)
        w1, w2, w3 = width, 2 * width, 4 * width
        pairs = [(2, w1, w1), (w1, w2, w2), (w2, w3, w3), (w3 + w2, w2, w2), (w2 + w1, w1, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for i, m, o in pairs for a, b in ((i, m), (m, o))
        )

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        """Score of the VP process at ``images`` (B, L, L) and ``time`` (B,) in [0, 1]."""
        side = images.shape[-1]
        x = _pad(torch.stack((images, time[:, None, None].expand_as(images)), dim=1), 4)
        fine = self._pair(0, x)
        middle = self._pair(1, F.avg_pool2d(fine, 2))
        coarse = self._pair(2, F.avg_pool2d(middle, 2))
        middle = self._pair(3, torch.cat((_double(coarse), middle), dim=1))
        hidden = F.logsigmoid(self.convolutions[8](torch.cat((_double(middle), fine), dim=1)))
        out: Tensor = self.convolutions[9](hidden)
        return out[:, 0, :side, :side] / sde.noise_factor(time.clamp_min(1e-5))[:, None, None]

    def _pair(self, index: int, x: Tensor) -> Tensor:
        x = F.logsigmoid(self.convolutions[2 * index](x))
        return F.logsigmoid(self.convolutions[2 * index + 1](x))


class DenoisingUNet(PriorNetwork):
    """Noise-conditional denoiser ``D(y; s)`` with EDM preconditioning and skips at every resolution.

    With u = (y - mean) / std and r = s / std, ``D = mean + std (u / (1 + r^2) + r / sqrt(1 + r^2) f(u / sqrt(1 + r^2), ln r))``:
    the network f sees and predicts unit variance at every level (Karras et al., *Elucidating the design space of
    diffusion-based generative models*, 2022, eq. 7), and D is the identity at s = 0.

    Args:
        box_size: side L of the images in pixels; sides that are no multiple of 4 are padded inside.
        data_mean: mean pixel of the training images.
        data_std: standard deviation of their pixels, > 0.
        channels: channels at full, half and quarter resolution.
        embedding: width of the noise-level embedding.
    """

    parameterisation = "denoiser"

    def __init__(
        self,
        box_size: int,
        data_mean: float = 0.0,
        data_std: float = 0.5,
        channels: Sequence[int] = (32, 64, 96),
        embedding: int = 64,
    ) -> None:
        if not (math.isfinite(data_mean) and math.isfinite(data_std) and data_std > 0):
            raise ParameterError(
                f"data_std must be positive and data_mean finite; got {data_std}, {data_mean}."
            )
        super().__init__(data_mean=data_mean, data_std=data_std, channels=list(channels), embedding=embedding)
        self.data_mean, self.data_std = data_mean, data_std
        c1, c2, c3 = channels
        self.embed = nn.Sequential(LevelFeatures(embedding), nn.Linear(embedding, embedding), nn.SiLU())
        self.first = nn.Conv2d(1, c1, 3, padding=1)
        self.fine = _Residual(c1, embedding)
        self.down2 = nn.Conv2d(c1, c2, 2, stride=2)
        self.middle = _Residual(c2, embedding)
        self.down3 = nn.Conv2d(c2, c3, 2, stride=2)
        self.coarse = nn.ModuleList((_Residual(c3, embedding), _Residual(c3, embedding)))
        self.up2 = nn.ConvTranspose2d(c3, c2, 2, stride=2)
        self.middle_up = _Residual(c2, embedding)
        self.up1 = nn.ConvTranspose2d(c2, c1, 2, stride=2)
        self.fine_up = _Residual(c1, embedding)
        self.last = nn.Conv2d(c1, 1, 3, padding=1)

    def forward(self, noisy: Tensor, level: Tensor) -> Tensor:
        """Posterior mean of the clean images.

        Args:
            noisy: (B, L, L) images plus white noise.
            level: (B,) standard deviation s > 0 of that noise, in the units of the images.
        """
        ratio = (level / self.data_std)[:, None, None]
        gain = torch.rsqrt(1 + ratio**2)
        unit = (noisy - self.data_mean) / self.data_std
        hidden = self._network(unit * gain, ratio[:, 0, 0].log())
        return self.data_mean + self.data_std * (unit * gain**2 + ratio * gain * hidden)

    def _network(self, x: Tensor, log_ratio: Tensor) -> Tensor:
        side = x.shape[-1]
        code = self.embed(log_ratio)
        fine = self.fine(self.first(_pad(x[:, None], 4)), code)
        middle = self.middle(self.down2(fine), code)
        coarse = self.down3(middle)
        for block in self.coarse:
            coarse = block(coarse, code)
        middle = self.middle_up(self.up2(coarse) + middle, code)
        fine = self.fine_up(self.up1(middle) + fine, code)
        out: Tensor = self.last(F.silu(fine))
        return out[:, 0, :side, :side]


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around a channel-wise affine map of the noise level; starts as the identity."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine = nn.Linear(embedding, 2 * channels)
        for parameter in (*self.two.parameters(), *self.affine.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        scale, shift = self.affine(code)[:, :, None, None].chunk(2, dim=1)
        hidden = self.one(F.silu(x))
        out: Tensor = self.two(F.silu(torch.addcmul(hidden + shift, hidden, scale)))
        return x + out


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad the two last axes at their ends to a multiple."""
    extra = -x.shape[-1] % multiple
    return F.pad(x, (0, extra, 0, extra)) if extra else x


def _double(x: Tensor) -> Tensor:
    """Twice the resolution by repetition."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


NETWORKS: dict[str, Callable[..., PriorNetwork]] = {
    "mlp": ScoreMLP,
    "unet": ScoreUNet,
    "denoiser": DenoisingUNet,
    "multiscale": MultiscaleDenoiser,
}


def build_network(name: str, box_size: int, **options: Any) -> PriorNetwork:
    """The network ``name`` ("mlp", "unet", "denoiser" or "multiscale") for boxes of L pixels.

    Raises:
        ParameterError: the name or an option is unknown.
    """
    if name not in NETWORKS:
        raise ParameterError(f"network must be one of {', '.join(sorted(NETWORKS))}; got {name!r}.")
    try:
        return NETWORKS[name](box_size, **options)
    except TypeError as error:
        raise ParameterError(f"the network {name!r} does not take these options: {error}.") from error
