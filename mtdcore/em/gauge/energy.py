"""The frame chosen by the likelihood without a prior: the box that holds most of the energy of the copies.

A start of random pixels settles at an arbitrary position, and the part of the object beyond the edge of the box is lost. The
statistics of a wider box show that part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ...model.rotations import disc
from .frames import crop
from .seen import Seen

#: A move must gain this many nats: few, so that all starts end in one frame.
_LEAST_GAIN = 0.1


@dataclass(frozen=True)
class EnergyGauge:
    """The frame with most energy, weighted towards the middle of the box, without rotation. A :class:`mtdcore.em.gauge.seen.Gauge`.

    Attributes:
        turning: whether copies lie at any angle, so that the target is restricted to the inscribed disc of its box.
    """

    turning: bool = False

    def choose(self, target: np.ndarray, seen: Seen) -> np.ndarray:
        """The (L, L) target, moved by whole pixels; pixels that enter the box are those of the aligned average.

        A pixel of the average is worth ``(y^2 - level^2) / (2 level^2)`` nats to the target that holds it. The weight falls
        from 1 in the middle of the box to 3/4 at an edge, so that of the frames that hold an object whole the one with
        the object in the middle is chosen.

        Args:
            target: (L, L).
            seen: by the copies.
        """
        average, level = seen.average, seen.level
        nats = 0.5 * (np.square(average / level) - 1.0)
        held = np.einsum(
            "ijkl,kl->ij", sliding_window_view(nats, target.shape), self._weights(target.shape), optimize=True
        )
        row, column = np.unravel_index(np.argmax(held), held.shape)
        above, beside = ((n - m) // 2 for n, m in zip(average.shape, target.shape, strict=True))
        if held[row, column] < held[above, beside] + _LEAST_GAIN:
            return target
        frame, shown = np.array(average), self._shown(target.shape)
        np.copyto(crop(frame, target.shape), target, where=shown)
        return np.asarray(crop(frame, target.shape, (int(row) - above, int(column) - beside)) * shown)

    def _weights(self, shape: tuple[int, ...]) -> np.ndarray:
        down, across = (0.25 * np.square(np.linspace(-1.0, 1.0, n)) for n in shape)
        whole = 1.0 - down[:, None] - across if self.turning else np.outer(1.0 - down, 1.0 - across)
        return np.asarray(whole * self._shown(shape))

    def _shown(self, shape: tuple[int, ...]) -> np.ndarray:
        """(h, w) bool: the pixels of a target that copies show."""
        return disc(shape[0]) if self.turning else np.ones(shape, bool)
