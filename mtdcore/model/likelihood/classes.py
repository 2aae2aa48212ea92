"""Several classes: one target each, and the share of the copies that shows it.

The backends know templates only, C K of them: class 0 at its K rotations, then class 1, and so on. Without weights a
copy shows each of them equally likely; the weights w_c enter as one number per template, ``log(C w_c)``, added to
its log-likelihood ratios.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import ParameterError

#: How far from 1 the weights may sum.
_TOLERANCE = 1e-6


class Templates:
    """What both likelihoods know about their templates.

    Attributes:
        rotations: number K of rotations of each class.
        class_weights: share of the copies of each class, which sum to 1; None: one class.
    """

    rotations: int
    class_weights: tuple[float, ...] | None

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return 1 if self.class_weights is None else len(self.class_weights)

    @property
    def templates(self) -> int:
        """Number of templates C K."""
        return self.classes * self.rotations

    @property
    def template_bias(self) -> np.ndarray:
        """(C K,) float64 nats: log prior of each template, less that of equally likely ones."""
        if self.class_weights is None:
            return np.zeros(self.rotations)
        return np.repeat(np.log(np.asarray(self.class_weights) * self.classes), self.rotations)

    def _check_weights(self) -> None:
        weights = self.class_weights
        if weights is None:
            return
        if len(weights) == 0 or not all(0.0 < w <= 1.0 for w in weights):
            raise ParameterError(f"class weights should be numbers in (0, 1], one per class; got {weights}.")
        if not math.isclose(sum(weights), 1.0, abs_tol=_TOLERANCE):
            raise ParameterError(f"class weights should sum to 1; {weights} sum to {sum(weights)}.")
