"""Coarse grid first: a recovery from block means starts the one at full resolution.

Low frequencies are enough to find most copies, and an E-step on blocks of f x f pixels costs less than 1 / f^2 of an
E-step on pixels. (In cryo-EM: frequency marching, Barnett, Greengard, Pataki and Spivak, SIAM J. Imaging Sci. 10, 2017.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .._base.typing import Array
from ..data import Measurement, MeasurementLike, open_measurement
from ..data.binned import BinnedMeasurement
from ..errors import ParameterError
from ..model.filters.optics import Micrographs
from ..model.priors import FlatPrior, Prior, centre_of, denoise, has_own_units, is_flat
from .recover import recover
from .state import Recovery


@dataclass(frozen=True)
class BinnedPrior:
    """A prior over images seen through block means.

    Means with noise of level s carry as much information about the low frequencies of an image as pixels with noise of
    level f s. So the means are spread over their pixels, denoised at level f s and averaged again. High frequencies play
    no part.

    Attributes:
        prior: of images at full resolution.
        factor: side f of a block in pixels.
        box_size: side L in pixels of the images at full resolution.
    """

    prior: Prior
    factor: int
    box_size: int

    @property
    def own_units(self) -> bool:
        """Whether the images have units of their own: block means have the units of the pixels."""
        return has_own_units(self.prior)

    @property
    def centre(self) -> tuple[float, float] | None:
        """(row, column) of the centre of the prior's images, in blocks; None: the prior does not state it."""
        centre = centre_of(self.prior, self.box_size)
        if centre is None:
            return None
        row, column = ((c + self._before + 0.5) / self.factor - 0.5 for c in centre)
        return row, column

    def score(self, images: Array, noise_std: float) -> Array:
        """See :class:`Prior`; ``noise_std`` must be positive."""
        if noise_std <= 0.0:
            raise ParameterError("a prior over block means has a score at positive noise levels only; got 0.")
        clean = self.bin(denoise(self.prior, self.spread(images), self.factor * noise_std))
        return (clean - images) / noise_std**2

    @property
    def _before(self) -> int:
        """Pixels by which the blocks reach beyond the box at its upper and left edge."""
        return (-self.box_size % self.factor) // 2

    def spread(self, images: Array) -> Array:
        """(..., L, L) images that are constant on each block."""
        xp, first = array_namespace(images), self._before
        wide = xp.repeat(xp.repeat(images, self.factor, axis=-1), self.factor, axis=-2)
        inside = slice(first, first + self.box_size)
        return wide[..., inside, inside]

    def bin(self, images: Array) -> Array:
        """(..., ceil(L / f), ceil(L / f)) means over the pixels of each block inside the box."""
        xp, first = array_namespace(images), self._before
        blocks = -(-self.box_size // self.factor)
        member = (xp.arange(self.box_size)[:, None] + first) // self.factor == xp.arange(blocks)[None, :]
        weights = xp.astype(member, images.dtype)
        weights = weights / xp.sum(weights, axis=0)
        return xp.matmul(xp.matmul(weights.T, images), weights)


def recover_coarse_first(
    measurement: MeasurementLike,
    *,
    factor: int = 2,
    coarse_iterations: int = 20,
    box_size: int,
    **options: Any,
) -> Recovery:
    """Like :func:`mtdcore.recover`, started from the target and the expected count of a recovery from block means.

    Args:
        measurement: anything :func:`open_measurement` takes.
        factor: side of a block in pixels; a target of ``box_size / factor`` blocks must still be recognisable.
        coarse_iterations: largest number of iterations on blocks.
        box_size: side L of the target in pixels.
        options: of :func:`mtdcore.recover`; ``initial`` and ``starts`` belong to the coarse recovery, ``callback`` to the
            fine recovery. With a ``state`` the fine recovery is resumed, without a coarse one.

    Raises:
        ParameterError: the box is not square, or an argument is an object with lengths of its own.
    """
    if not isinstance(box_size, int):
        raise ParameterError(
            f"a coarse start takes a square box, one side in pixels; got {box_size}: mtdcore.recover takes such a box without one."
        )
    source = open_measurement(measurement, options.pop("mask", None))
    if options.get("state") is None:
        coarse = recover_coarse(source, factor, coarse_iterations, box_size, options)
        options = {name: value for name, value in options.items() if name != "starts"}
        options |= fine_start(coarse, factor, box_size)
    return recover(source, box_size=box_size, **options)


def recover_coarse(
    source: Measurement, factor: int, iterations: int, box_size: int, options: dict[str, Any]
) -> Recovery:
    """The recovery from block means alone; arguments as in :func:`recover_coarse_first`.

    Raises:
        ParameterError: an argument that is an object with lengths of its own.
    """
    _check_lengths(options)
    changed = {**in_blocks(options, factor, box_size), "iterations": iterations, "callback": None}
    blocks = BinnedMeasurement(source, factor)
    return recover(blocks, box_size=-(-box_size // factor), **options | changed)


def in_blocks(options: Mapping[str, Any], factor: int, box_size: int) -> dict[str, Any]:
    """The arguments of :func:`mtdcore.recover` that are lengths, noise levels, transfers or images, converted to block means."""
    prior, noise = options.get("prior") or FlatPrior(), options.get("noise_std", "auto")
    separation, diameter = options.get("min_separation"), options.get("diameter")
    initial, grid = options.get("initial"), BinnedPrior(prior, factor, box_size)
    return {
        "prior": prior if is_flat(prior) else grid,
        "min_separation": -(-separation // factor) if isinstance(separation, int) else separation,
        "diameter": None if diameter is None else diameter / factor,
        "noise_std": noise if noise == "auto" else noise / factor,
        "micrographs": _transfer_in_blocks(options.get("micrographs"), factor),
        "initial": initial if isinstance(initial, str | None) else grid.bin(np.asarray(initial, np.float64)),
    }


def _transfer_in_blocks(micrographs: Micrographs | str | None, factor: int) -> Micrographs | str | None:
    """The transfer of the micrographs, up to the highest frequency of the blocks."""
    if micrographs is None or isinstance(micrographs, str) or micrographs.transfer is None:
        return micrographs
    at = np.linspace(0.0, 0.5, micrographs.transfer.shape[1])
    lowest = np.stack([np.interp(at / factor, at, one) for one in micrographs.transfer])
    return replace(micrographs, transfer=lowest)


def _check_lengths(options: Mapping[str, Any]) -> None:
    """Raise ParameterError if an argument is an object in pixels, which cannot be converted to blocks."""
    wrong = {
        "rotations": not isinstance(options.get("rotations"), int | None),
        "likelihood": not isinstance(options.get("likelihood"), str | None),
        "update": hasattr(options.get("update"), "diameter"),
    }
    for name in (name for name, refused in wrong.items() if refused):
        raise ParameterError(
            f"a coarse start takes numbers, which it scales; got {name}={options[name]!r}, which is of pixels: give a number of "
            "rotations, the name of a likelihood, the diameter, or start with mtdcore.recover."
        )


def fine_start(coarse: Recovery, factor: int, box_size: int) -> dict[str, Any]:
    """Arguments of :func:`mtdcore.recover` at full resolution."""
    grid = BinnedPrior(FlatPrior(), factor, box_size)
    return {"initial": grid.spread(coarse.target), "expected_count": coarse.expected_count}
