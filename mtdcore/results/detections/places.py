"""Sub-pixel position of a copy: the maximum of its log-likelihood ratio, by a quadratic through half pixels."""

from __future__ import annotations

import numpy as np

from ...model.shifts import moved, shift_matrices

#: Places that are tried along an axis, in pixels from the corner of a copy on whole pixels, and the distance of two of them.
_STEP = 0.5
_STEPS = np.arange(-2, 3) * _STEP


#: Share of the energy of a copy that must lie on valid pixels.
_IN_SIGHT = 0.5


class Places:
    """Refines the positions of copies of one micrograph.

    Args:
        templates: (T, h, w) NumPy, at whole pixels, as the micrograph shows them.
    """

    def __init__(self, templates: np.ndarray) -> None:
        self._templates = np.asarray(templates, np.float64)
        self._down, self._right = (shift_matrices(n, _STEPS) for n in templates.shape[1:])
        # along an axis of one pixel, of a signal for instance, a template looks the same at every step: it stays where it is
        down, right = (np.square(_STEPS) * (n == 1) for n in templates.shape[1:])
        self._away = down[:, None] + right
        self._shifted: dict[int, np.ndarray] = {}

    def __call__(self, window: np.ndarray, valid: np.ndarray | None, index: int) -> tuple[float, float]:
        """(down, right) in pixels, at most one and a half, from a corner to the most likely place of the copy there.

        The log-likelihood ratio ``<M, S F> - ||S F||^2 / 2`` of the template at 25 half pixels, S its band-limited shift, and the
        top of the quadratic through the nine around the highest.

        Args:
            window: (h, w) pixels at the corner.
            valid: (h, w) bool; None: every pixel is.
            index: of the template.
        """
        seen = self._at(index)
        if valid is not None:
            window, seen = np.where(valid, window, 0.0), seen * valid
        gain = np.tensordot(seen, window, 2) - 0.5 * np.square(seen).sum(axis=(2, 3))
        gain = gain - self._away * np.abs(gain).max()
        best = np.unravel_index(int(np.argmax(gain)), gain.shape)
        i, j = (int(np.clip(at, 1, len(_STEPS) - 2)) for at in best)
        down, right = top(gain[i - 1 : i + 2, j - 1 : j + 2])
        return float(_STEPS[i] + _STEP * down), float(_STEPS[j] + _STEP * right)

    def in_sight(self, valid: np.ndarray, index: int) -> bool:
        """Whether enough of the energy of a copy lies on valid pixels.

        Beside a mask the few pixels at the rim of a masked object could otherwise be taken for a copy.

        Args:
            valid: (h, w) bool.
            index: of the template.
        """
        energy = np.square(self._templates[index])
        return bool(energy[valid].sum() >= _IN_SIGHT * energy.sum())

    def match(
        self, window: np.ndarray, valid: np.ndarray | None, index: int, down: float, right: float
    ) -> tuple[float, float]:
        """``<M, S F>`` and ``||S F||^2`` over the valid pixels, S the shift of the template by this place; other arguments as there."""
        seen = (
            moved(self._templates[index][None], np.array([[down, right]]))[0]
            if down or right
            else self._templates[index]
        )
        if valid is not None:
            window, seen = np.where(valid, window, 0.0), seen * valid
        return float(np.vdot(seen, window)), float(np.vdot(seen, seen))

    def _at(self, index: int) -> np.ndarray:
        """(5, 5, h, w) one template at every place that is tried."""
        if index not in self._shifted:
            down = self._down @ self._templates[index]
            self._shifted[index] = down[:, None] @ self._right.swapaxes(1, 2)
        return self._shifted[index]


def top(values: np.ndarray) -> tuple[float, float]:
    """The top of a quadratic through (3, 3) values, in steps from the middle, at most one; the middle where there is no top."""
    slope = 0.5 * np.array([values[2, 1] - values[0, 1], values[1, 2] - values[1, 0]])
    mixed = 0.25 * (values[2, 2] - values[2, 0] - values[0, 2] + values[0, 0])
    bend = values[[0, 1], [1, 0]] + values[[2, 1], [1, 2]] - 2.0 * values[1, 1]
    curvature = np.array([[bend[0], mixed], [mixed, bend[1]]])
    if not np.linalg.eigvalsh(curvature)[-1] < 0.0:
        return 0.0, 0.0
    down, right = np.clip(np.linalg.solve(curvature, -slope), -1.0, 1.0)
    return float(down), float(right)
