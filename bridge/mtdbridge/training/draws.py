"""The random draws of a training, pure functions of seed and step: a resumed run repeats the same bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtdcore.errors import ParameterError


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of the training images; off by default, since a prior describes upright, centred images.

    Attributes:
        shift: largest shift in pixels along rows and columns, with zero fill.
        shift_fraction: share of the images that are shifted.
        flip: mirror left-right with probability 1/2.
        rotate: turn by a random multiple of 90 degrees.
    """

    shift: int = 0
    shift_fraction: float = 1.0
    flip: bool = False
    rotate: bool = False

    def __post_init__(self) -> None:
        if self.shift < 0 or not 0 <= self.shift_fraction <= 1:
            raise ParameterError(
                f"shift must be at least 0 and shift_fraction in [0, 1]; got {self.shift}, {self.shift_fraction}."
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A transformed copy of (B, L, L) CPU images."""
        batch = images.shape[0]
        if self.shift:
            moves = torch.randint(-self.shift, self.shift + 1, (batch, 2), generator=generator)
            chosen = torch.rand(batch, generator=generator) < self.shift_fraction
            images = shift_images(images, moves * chosen[:, None], self.shift)
        if self.flip:
            chosen = torch.rand(batch, generator=generator) < 0.5
            images = torch.where(chosen[:, None, None], images.flip(-1), images)
        if self.rotate:
            turns = torch.randint(0, 4, (batch,), generator=generator)
            stack = torch.stack([torch.rot90(images, k, (-2, -1)) for k in range(4)])
            images = stack[turns, torch.arange(batch)]
        return images


def shift_images(images: Tensor, moves: Tensor, largest: int) -> Tensor:
    """Shift image b of (B, L, L) by ``moves[b]`` rows and columns, at most ``largest``, with zero fill."""
    side = images.shape[-1]
    padded = F.pad(images, (largest, largest, largest, largest))
    index = torch.arange(side) + largest
    rows = index[None, :, None] - moves[:, 0, None, None]
    columns = index[None, None, :] - moves[:, 1, None, None]
    return padded[torch.arange(images.shape[0])[:, None, None], rows, columns]


class Batches:
    """Shuffled batches: every image once per epoch, in an order fixed by the seed.

    Args:
        count: number of images.
        batch_size: images per step, at most ``count``.
        seed: seed of the training.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.per_epoch = count // batch_size
        self._count, self._size, self._seed = count, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> Tensor:
        """(batch_size,) indices of the images of a step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
            self._epoch = epoch
        return torch.from_numpy(self._order[place * self._size : (place + 1) * self._size])


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator of its own for every step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """(count,) values in (0, 1), one in each of ``count`` equal strata, which vary less than independent draws."""
    strata = torch.randperm(count, generator=generator)
    return (strata + torch.rand(count, generator=generator)).clamp_min(1e-6) / count


def log_uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(count,) values whose logarithm is uniform between those of ``low`` and ``high``, stratified."""
    return low * torch.exp(uniform(count, generator) * math.log(high / low))
