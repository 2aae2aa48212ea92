"""The patch likelihood: non-overlapping L x L patches, each seeing at most one copy (docs/model.md 3).

Source: Bendory et al., *Multi-target detection with rotations*; Zabatani, Kreymer and Bendory,
arXiv:2312.08500, eqs. 14-16. A patch is ``C T_l Z R_k F + noise``: the target zero-padded to
2L x 2L, circularly shifted by l in {0..2L-1}^2, cropped to L x L. Shifts with a component equal to
L show nothing of the target: the *empty* poses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...data.tiles import TileGeometry
from ...errors import ParameterError
from ..optics import Micrographs, check_number
from .checks import check_common
from .classes import Templates

#: Pixels along one side of a tile: large enough to amortise the work around the transforms (measured: 256 is a
#: quarter slower).
_TILE_PIXELS = 512


@dataclass(frozen=True)
class PatchLikelihood(Templates):
    """Patch model with an optional tied empty probability.

    Attributes:
        box_size: side L of the target in pixels.
        rotations: number K of equally spaced in-plane rotations.
        noise_std: standard deviation of the white noise, in the units of the measurement.
        empty_probability: prior probability b0 that a patch shows nothing, spread evenly over the
            4L - 1 empty shifts while the other (2L - 1)^2 share 1 - b0. None: uniform over all
            4L^2 shifts, as in the paper.
        margin: extra pixels kept around the L x L frame in the statistics (for gauge moves).
        class_weights: share of each of C classes among the copies; None: one class.
        micrographs: what tells the micrographs apart; None: nothing does.
    """

    box_size: int
    rotations: int
    noise_std: float
    empty_probability: float | None = None
    margin: int = 0
    class_weights: tuple[float, ...] | None = None
    micrographs: Micrographs | None = None

    def __post_init__(self) -> None:
        check_common(self)
        self._check_weights()
        if self.margin > self.box_size // 2:
            raise ParameterError(
                f"margin must be at most box_size // 2 = {self.box_size // 2} pixels in the patch model; got {self.margin}."
            )
        b0 = self.empty_probability
        if b0 is not None and not 0.0 < b0 < 1.0:
            raise ParameterError(
                f"empty_probability must lie strictly between 0 and 1, or be None for the uniform prior; got {b0}."
            )

    @property
    def geometry(self) -> TileGeometry:
        """Tiles of whole patches, no halo."""
        side = self.box_size * max(1, _TILE_PIXELS // self.box_size)
        return TileGeometry(side=side, unit=self.box_size, halo=0, reach=0, shares=2)

    @property
    def log_prior(self) -> tuple[float, float]:
        """(log rho of one empty pose, log rho of one non-empty pose); poses are (shift, template).

        Of equally likely templates: :attr:`template_bias` comes on top of the second.
        """
        empty, shown = 4 * self.box_size - 1, (2 * self.box_size - 1) ** 2
        b0 = self.empty_probability
        if b0 is None:
            b0 = empty / (empty + shown)
        return (
            math.log(b0 / (empty * self.templates)),
            math.log((1.0 - b0) / (shown * self.templates)),
        )

    def bind(self, shape: tuple[int, int, int]) -> PatchLikelihood:
        """The same model: what it says of each micrograph should fit the measurement, nothing else depends on it."""
        check_number(self.micrographs, shape[0])
        return self

    def of_micrograph(self, index: int) -> PatchLikelihood:
        """The model of one micrograph alone, at its own noise level; its transfer is left to the templates."""
        if self.micrographs is None:
            return self
        noise_std = self.noise_std * float(self.micrographs.noise_ratio[index])
        return replace(self, noise_std=noise_std, micrographs=None)

    def with_noise_std(self, noise_std: float) -> PatchLikelihood:
        """The same model at another noise level."""
        return replace(self, noise_std=noise_std)
