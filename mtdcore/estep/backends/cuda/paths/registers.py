"""The patch E-step of small boxes in one kernel; the posterior stays in shared memory or registers."""

from __future__ import annotations

from ....._base.typing import Array
from .....model.likelihood import Likelihood
from ..kernels import SHARED_LIMIT, Kernels
from ..models import Items, PatchModel
from .sums import Sums, scaled

#: Largest box: the work grows as L^4 (docs/gpu.md).
DIRECT_BOX = 8


class DirectPath:
    """Patch model, small boxes; see :class:`Path`."""

    torus: tuple[int, int] | None = None

    def __init__(self, kernels: Kernels, templates: Array, model: PatchModel) -> None:
        self._kernels, self._model = kernels, model
        targets, squares = scaled(templates, model.likelihood.noise_std)
        self._targets, self._squares = (a.astype(kernels.real) for a in (targets, squares))
        self.bytes_per_item = 16  # evidence and empty mass

    @staticmethod
    def suits(kernels: Kernels, likelihood: Likelihood) -> bool:
        """Whether the box is small enough; false with class weights."""
        if likelihood.class_weights is not None:
            return False
        size, margin = likelihood.box_size, likelihood.margins[1]
        return size <= DIRECT_BOX and kernels.direct_bytes(likelihood.templates, size, margin) <= SHARED_LIMIT

    def sums(self, items: Items) -> Sums:
        """See :meth:`Path.sums`."""
        model, likelihood = self._model, self._model.likelihood
        if items.valid is None and self._kernels.suits_small(
            likelihood.templates, likelihood.box_size, likelihood.margins[1]
        ):
            priors = model.log_shown, model.log_empty
            found = self._kernels.patch_small(items.pixels, self._targets, self._squares, *priors)
            return self._added(*found)
        found = self._kernels.patch_direct(
            items.pixels,
            items.valid,
            self._targets,
            self._squares,
            likelihood.margins[1],
            model.log_shown,
            model.log_empty,
        )
        return self._added(*found)

    def _added(self, partial: Array, evidence: Array, empty: Array) -> Sums:
        return Sums(partial.sum(axis=0), self._kernels.xp.stack((evidence.sum(), empty.sum())))
