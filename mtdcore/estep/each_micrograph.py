"""Statistics of micrographs that differ in noise, counts or optics: scored one by one, added on a common scale.

Multiplied by sigma / sigma_m, micrograph m has noise of the common level sigma and shows the target
through ``(sigma / sigma_m) H_m``. Its statistics are weighted by ``sigma^2 / sigma_m^2`` before they are added: the result is an
inverse-variance weighted average, and a Wiener filter if there is a transfer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array, Lengths
from ..data.tiles import Tile
from ..model.filters.optics import Defocused, spectral
from ..model.likelihood import Likelihood
from ..model.views import Views
from .backends import Backend
from .ledger import entry
from .local import Search
from .statistics import Quadratic, Statistics
from .sums import TemplateSums


def accumulate(
    backend: Backend, tiles: Iterable[Tile], target: Array, likelihood: Likelihood, coarse: int | None = None
) -> Statistics:
    """Statistics of some tiles, micrograph by micrograph if these differ.

    Args:
        backend: scores the tiles.
        tiles: host tiles, ordered by micrograph.
        target: of the shape that the views of the likelihood take, in the library of the backend.
        likelihood: bound to the measurement.
        coarse: number of views that find the places of copies (:mod:`mtdcore.estep.local`); None: all views are scored everywhere.
    """
    views, optics = likelihood.shown, likelihood.micrographs
    search = Search.of(backend, target, likelihood, coarse)
    if optics is None:
        return Statistics.of(search.sums(tiles, likelihood), views, likelihood.offset)
    total = None
    for micrograph, group in groupby(tiles, key=lambda tile: tile.micrograph):
        transfer = None if optics.transfer is None else optics.transfer[micrograph]
        seen = search.through(transfer)
        sums = seen.sums(group, likelihood.of_micrograph(micrograph))
        weight = float(optics.weights[micrograph])
        found, residual = _weighed(sums, target, seen.templates, likelihood, transfer, weight)
        ledger = entry(micrograph, sums.sites, sums.pixels, residual, sums.expected_count)
        one = replace(found, noise_std=likelihood.noise_std, ledger=ledger)
        total = one if total is None else total + one
    if total is None:  # a part without tiles
        nothing = search.sums((), replace(likelihood, micrographs=None))
        return Statistics.of(nothing, views)
    return total


def _weighed(
    sums: TemplateSums,
    target: Array,
    seen: Array,
    likelihood: Likelihood,
    transfer: np.ndarray | None,
    weight: float,
) -> tuple[Statistics, float]:
    """Statistics of one micrograph on the scale of all, and its residual energy at the target of the E-step.

    Gradient and residual are exact at the target of the E-step, and so is every fixed point, even where masks or the edge of the
    box make the spectrum an approximation of the normal operator.

    Args:
        sums: as the backend returned them.
        target: of the E-step.
        seen: (T, L, L) templates through the transfer of the micrograph.
        likelihood: of all micrographs, its views without the transfer.
        transfer: (R,) of the micrograph; None: it has none.
        weight: weight of the micrograph, ``sigma^2 / sigma_m^2``.
    """
    xp, inner, views = array_namespace(seen), sums.cropped(), likelihood.views
    residual = sums.energy + float(xp.sum(seen * (inner.coverage * seen - 2.0 * inner.backprojection)))
    through = views if transfer is None else Defocused(views, transfer)
    plain = Statistics.of(sums, through, likelihood.offset)
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
    """A spectrum as normal operator, and the right side that makes the gradient at the target of the E-step exact."""
    slope = through.adjoint(sums.backprojection - sums.coverage * seen)
    normal = spectral(views, spectrum)
    return Quadratic(slope + normal(target), normal)


def padded(images: Array, margin: Lengths, axes: int = 2) -> Array:
    """Images with ``margin`` zeros on each side of their last ``axes`` axes; two margins are those of the last two axes."""
    xp, shape = array_namespace(images), tuple(images.shape)
    first = len(shape) - axes
    margins = margin if isinstance(margin, tuple) else (margin,) * axes
    wide = (*shape[:first], *(n + 2 * m for n, m in zip(shape[first:], margins, strict=True)))
    frame = xp.zeros(wide, dtype=images.dtype, device=device(images))
    inner = (slice(m, m + n) for n, m in zip(shape[first:], margins, strict=True))
    frame[(..., *inner)] = images
    return frame
