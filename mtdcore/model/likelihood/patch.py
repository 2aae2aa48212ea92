"""The patch likelihood: non-overlapping L x L patches, each seeing at most one copy (docs/model.md 3).

Source: Bendory et al., *Multi-target detection with rotations*; Zabatani, Kreymer and Bendory,
arXiv:2312.08500, eqs. 14-16. A patch is ``C T_l Z R_k F + noise``: the target zero-padded to
2L x 2L, circularly shifted by l in {0..2L-1}^2, cropped to L x L. Shifts with a component equal to
L show nothing of the target: the *empty* poses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._base.typing import plain
from ...data.tiles import TileGeometry
from ...errors import ParameterError
from ..filters.optics import Micrographs
from ..views import Views
from .base import Found, Likelihood, equal_weights

#: Pixels along one side of a tile: large enough to amortise the work around the transforms (measured: 256 is a
#: quarter slower).
_TILE_PIXELS = 512


@dataclass(frozen=True)
class PatchLikelihood(Likelihood):
    """Patch model with an optional tied empty probability; further attributes as in :class:`Likelihood`.

    Attributes:
        empty_probability: prior probability b0 that a patch shows nothing, spread evenly over the
            4L - 1 empty shifts while the other (2L - 1)^2 share 1 - b0. None: uniform over all
            4L^2 shifts, as in the paper.
    """

    empty_probability: float | None = None

    localises = False
    tempered = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.amplitude_std:
            raise ParameterError(
                "amplitudes of copies need the window likelihood, in which a copy is judged whole; got amplitude_std "
                f"{self.amplitude_std} for the patch likelihood: leave it out, or choose the window likelihood."
            )
        most = [n // 2 for n in self.views.box_shape]
        if any(margin > half for margin, half in zip(self.margins, most, strict=True)):
            raise ParameterError(
                f"margin must be at most box_size // 2 = {plain(*most)} pixels in the patch model; got {self.margin}."
            )
        b0 = self.empty_probability
        if b0 is not None and not 0.0 < b0 < 1.0:
            raise ParameterError(
                f"empty_probability must lie strictly between 0 and 1, or be None for the uniform prior; got {b0}."
            )

    @property
    def geometry(self) -> TileGeometry:
        """Tiles of whole patches, no halo."""
        box = self.views.box_shape
        pixels = [round(_TILE_PIXELS * math.sqrt(n / m)) for n, m in (box, box[::-1])]
        sides = [n * max(1, most // n) for n, most in zip(box, pixels, strict=True)]
        return TileGeometry(side=plain(*sides), unit=plain(*box), halo=0, reach=0, shares=2)

    @property
    def poses(self) -> tuple[int, int]:
        """Numbers of empty and of non-empty shifts: 4 L - 1 and (2 L - 1)^2 for a square box."""
        height, width = self.views.box_shape
        shown = (2 * height - 1) * (2 * width - 1)
        return 4 * height * width - shown, shown

    @property
    def log_prior(self) -> tuple[float, float]:
        """(log rho of one empty pose, log rho of one non-empty pose); poses are (shift, template).

        Templates count as equally likely here: :attr:`template_bias` is added to the second value.
        """
        empty, shown = self.poses
        b0 = self.empty_probability
        if b0 is None:
            b0 = empty / (empty + shown)
        return (
            math.log(b0 / (empty * self.templates)),
            math.log((1.0 - b0) / (shown * self.templates)),
        )

    @classmethod
    def begin(
        cls,
        views: Views,
        noise_std: float,
        shape: tuple[int, int, int],
        expected_count: float | None = None,
        min_separation: int | None = None,
        micrographs: Micrographs | None = None,
    ) -> PatchLikelihood:
        """The likelihood at the start of a run, with the paper's uniform pose prior; count and separation are not used."""
        return cls(views, noise_std, class_weights=equal_weights(views), micrographs=micrographs)

    def updated(
        self,
        statistics: Found,
        residual_energy: Callable[[], float] | None,
        first_count: float,
        corners: float,
        early: bool,
    ) -> PatchLikelihood:
        """See :class:`Likelihood`; a tied empty probability becomes the mean posterior mass of the empty poses."""
        model = self
        if model.empty_probability is not None:
            share = statistics.empty_mass / max(1, statistics.sites)
            model = replace(model, empty_probability=min(max(share, 1e-6), 1.0 - 1e-6))
        return model._common_numbers(statistics, residual_energy, corners, early)

    def evidence(self, statistics: Found) -> float:
        """Log-likelihood of the pixels minus that of noise alone, in nats."""
        levels, pixels = np.array([statistics.noise_std]), np.array([statistics.pixels])
        if self.micrographs is not None and statistics.ledger is not None:
            seen = statistics.ledger[:, 0].astype(np.int64)
            levels = levels * self.micrographs.noise_ratio[seen]
            pixels = statistics.ledger[:, 2]
        energy = statistics.energy / statistics.noise_std**2
        blank = -0.5 * (energy + float(pixels @ np.log(2.0 * math.pi * levels**2)))
        return statistics.log_likelihood - blank
