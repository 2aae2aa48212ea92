"""Statistics of micrographs that are not alike: scored one by one, added as if they were.

Divided by its noise level and times sigma, micrograph m has noise of the common level sigma and shows the target
through ``(sigma / sigma_m) H_m``. What it says of the target is weighed by its square before it is added: an
inverse-variance weighted average, and a Wiener filter where there is a transfer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..data.tiles import Tile
from ..model.likelihood import Likelihood
from ..model.optics import Defocused, spectral
from ..model.views import Views
from .backends import Backend
from .local import Search
from .statistics import Quadratic, Statistics
from .sums import TemplateSums

#: Sums of tiles to remember: parts of measurements, and the cuts that they have been read in.
_KNOWN_SUMS = 4096


def accumulate(
    backend: Backend, tiles: Iterable[Tile], target: Array, likelihood: Likelihood, coarse: int | None = None
) -> Statistics:
    """Statistics of some tiles: micrograph by micrograph where these differ.

    Args:
        backend: scores the tiles.
        tiles: host tiles, those of a micrograph one after another.
        target: of the shape that the views of the likelihood take, in the library of the backend.
        likelihood: bound to the measurement.
        coarse: views that find the places of copies (:mod:`mtdcore.estep.local`); None: all views are scored everywhere.
    """
    views, optics = likelihood.shown, likelihood.micrographs
    search = Search.of(backend, target, likelihood, coarse)
    if optics is None:
        summed = _Summed(tiles)
        sums = search.sums(summed, likelihood)
        return Statistics.of(sums, views, summed.sum() + likelihood.offset * sums.pixels)
    total = None
    for micrograph, group in groupby(tiles, key=lambda tile: tile.micrograph):
        transfer = None if optics.transfer is None else optics.transfer[micrograph]
        seen, summed = search.through(transfer), _Summed(group)
        sums = seen.sums(summed, likelihood.of_micrograph(micrograph))
        weight = 1.0 / float(optics.noise_ratio[micrograph]) ** 2
        found, residual = _weighed(sums, target, seen.templates, views, transfer, weight)
        ledger = np.array([[micrograph, sums.sites, sums.pixels, residual, sums.expected_count]])
        whole = summed.sum() + likelihood.offset * sums.pixels
        one = replace(found, noise_std=likelihood.noise_std, ledger=ledger, total=whole)
        total = one if total is None else total + one
    if total is None:  # a part without tiles
        nothing = search.sums((), replace(likelihood, micrographs=None))
        return Statistics.of(nothing, views)
    return total


class _Summed:
    """Tiles whose valid pixels are summed as they pass by: no backend has to know of it.

    A backend may keep tiles between E-steps by their identity, and then does not ask for them again. So is their sum.

    Args:
        tiles: asked for once at most, or of an identity.
    """

    #: Sums by the identity of the tiles, the latest only.
    _known: ClassVar[OrderedDict[Hashable, float]] = OrderedDict()

    def __init__(self, tiles: Iterable[Tile]) -> None:
        self._tiles, self._sum = tiles, 0.0
        self._passed = False

    @property
    def identity(self) -> Hashable:
        """Of the tiles; see :class:`mtdcore.data.measurement.Tiles`."""
        return getattr(self._tiles, "identity", None)

    def __iter__(self) -> Iterator[Tile]:
        self._passed, self._sum = True, 0.0
        for tile in self._tiles:
            self._sum += float(np.sum(tile.values[tile.owned_pixels], dtype=np.float64))
            yield tile

    def sum(self) -> float:
        """The sum, once the tiles have been scored."""
        name = self.identity
        if not self._passed:
            if name in self._known:
                return self._known[name]
            for _ in self:
                pass
        if name is not None:
            self._known[name] = self._sum
            while len(self._known) > _KNOWN_SUMS:
                self._known.popitem(last=False)
        return self._sum


def _weighed(
    sums: TemplateSums,
    target: Array,
    seen: Array,
    views: Views,
    transfer: np.ndarray | None,
    weight: float,
) -> tuple[Statistics, float]:
    """Statistics of one micrograph on the scale of all, and its residual energy at the target of the E-step.

    Gradient and residual are exact at the target of the E-step, also where masks or the edge of the box make the
    spectrum an approximation of the normal operator; so is every fixed point.

    Args:
        sums: as the backend returned them.
        target: of the E-step.
        seen: (T, L, L) templates through the transfer of the micrograph.
        views: without the transfer.
        transfer: (R,) of the micrograph; None: it has none.
        weight: of the micrograph, ``sigma^2 / sigma_m^2``.
    """
    xp, inner = array_namespace(seen), sums.cropped()
    residual = sums.energy + float(xp.sum(seen * (inner.coverage * seen - 2.0 * inner.backprojection)))
    through = views if transfer is None else Defocused(views, transfer)
    plain = Statistics.of(sums, through)
    energy = plain.energy
    if transfer is not None:
        copies = np.array([float(xp.mean(inner.coverage[k, ...])) for k in range(inner.coverage.shape[0])])
        spectrum = np.outer(copies, transfer**2)
        whole = _linearised(inner, target, seen, views, through, spectrum)
        energy = residual + float(xp.sum(target * (2.0 * whole.right - whole.normal(target))))
        frame = None
        if sums.margin:
            m, axes = sums.margin, target.ndim - (views.classes > 1)
            wide = padded(target, m, axes), padded(seen, m)
            frame = _linearised(sums, *wide, views.framed(m), through.framed(m), spectrum)
        plain = replace(plain, right=whole.right, normal=whole.normal, frame=frame)
    whole, frame = plain.quadratic.scaled(weight), plain.frame and plain.frame.scaled(weight)
    weighed = replace(plain, right=whole.right, normal=whole.normal, frame=frame, energy=energy * weight)
    return weighed, residual


def _linearised(
    sums: TemplateSums, target: Array, seen: Array, views: Views, through: Views, spectrum: np.ndarray
) -> Quadratic:
    """A spectrum as normal operator, and the right side with which the gradient at the target of the E-step is exact."""
    slope = through.adjoint(sums.backprojection - sums.coverage * seen)
    normal = spectral(views, spectrum)
    return Quadratic(slope + normal(target), normal)


def padded(images: Array, margin: int, axes: int = 2) -> Array:
    """Images with ``margin`` zeros on each side of their last ``axes`` axes."""
    xp, shape = array_namespace(images), tuple(images.shape)
    first = len(shape) - axes
    wide = (*shape[:first], *(n + 2 * margin for n in shape[first:]))
    frame = xp.zeros(wide, dtype=images.dtype, device=device(images))
    frame[(..., *(slice(margin, margin + n) for n in shape[first:]))] = images
    return frame
