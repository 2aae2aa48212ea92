"""Statistics of micrographs that are not alike: scored one by one, added as if they were.

Divided by its noise level and times sigma, micrograph m has noise of the common level sigma and shows the target
through ``A_m = (sigma / sigma_m) H_m``. Its backprojection is therefore weighed by ``A_m^T`` and its copies by ``A_m^T A_m``
before they are added: an inverse-variance weighted average, and a Wiener filter where there is a transfer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

import numpy as np
from array_api_compat import array_namespace, device

from .._base.typing import Array
from ..data.tiles import Tile
from ..model.likelihood import Likelihood
from ..model.optics import Micrographs, radial_filter
from .backends import Backend
from .statistics import Statistics


def accumulate(backend: Backend, tiles: Iterable[Tile], turned: Array, likelihood: Likelihood) -> Statistics:
    """:meth:`Backend.accumulate` for any likelihood: micrograph by micrograph where they differ.

    Args:
        backend: scores the tiles.
        tiles: host tiles, those of a micrograph one after another.
        turned: (C K, L, L) templates in the library of the backend, without transfer.
        likelihood: bound to the measurement.
    """
    facts = likelihood.micrographs
    if facts is None:
        return backend.accumulate(tiles, turned, likelihood)
    total = backend.accumulate((), turned, replace(likelihood, micrographs=None))
    for micrograph, group in groupby(tiles, key=lambda tile: tile.micrograph):
        seen, model = seen_in(micrograph, turned, likelihood)
        found = backend.accumulate(group, seen, model)
        total = total + _weighed(found, turned, seen, facts, micrograph, likelihood.noise_std)
    return total


def seen_in(micrograph: int, turned: Array, likelihood: Likelihood) -> tuple[Array, Likelihood]:
    """Templates as one micrograph shows them, and the model of that micrograph alone.

    Args:
        micrograph: its index.
        turned: (C K, L, L) templates, without transfer.
        likelihood: bound to the measurement.
    """
    facts = likelihood.micrographs
    if facts is None:
        return turned, likelihood
    seen = turned if facts.transfer is None else radial_filter(turned, facts.transfer[micrograph])
    return seen, likelihood.of_micrograph(micrograph)


def _weighed(
    found: Statistics, turned: Array, seen: Array, facts: Micrographs, micrograph: int, noise_std: float
) -> Statistics:
    """Statistics of one micrograph on the scale of all.

    The backprojection is chosen such that gradient and residual are exact at the templates of the E-step, also where
    masks or the edge of the box make the spectrum an approximation of the normal operator; so is every fixed point.

    Args:
        found: as the backend returned them.
        turned: (C K, L, L) templates.
        seen: the same through the transfer of the micrograph.
        facts: of all micrographs.
        micrograph: index of this one.
        noise_std: common noise level.
    """
    xp, weight = array_namespace(turned), 1.0 / float(facts.noise_ratio[micrograph]) ** 2
    inner = found.cropped()
    residual = found.energy + float(xp.sum(seen * (inner.coverage * seen - 2.0 * inner.backprojection)))
    ledger = np.array([[micrograph, found.sites, found.pixels, residual, found.expected_count]])
    backprojection, energy, spectrum = found.backprojection, found.energy, None
    if facts.transfer is not None:
        spectrum = np.outer(_copies(found), facts.transfer[micrograph] ** 2)
        through, plain = _framed(seen, found.margin), _framed(turned, found.margin)
        unexplained = radial_filter(backprojection - found.coverage * through, facts.transfer[micrograph])
        explained = radial_filter(plain, spectrum)
        backprojection = unexplained + explained
        energy = residual + float(xp.sum(plain * (2.0 * backprojection - explained)))
        spectrum = spectrum * weight
    return replace(
        found,
        backprojection=backprojection * weight,
        coverage=found.coverage * weight,
        energy=energy * weight,
        noise_std=noise_std,
        spectrum=spectrum,
        ledger=ledger,
    )


def _framed(turned: Array, margin: int) -> Array:
    """Templates with zeros around them."""
    if margin == 0:
        return turned
    xp, (count, side, _) = array_namespace(turned), turned.shape
    frame = xp.zeros((count, side + 2 * margin, side + 2 * margin), dtype=turned.dtype, device=device(turned))
    frame[:, margin:-margin, margin:-margin] = turned
    return frame


def _copies(found: Statistics) -> np.ndarray:
    """(C K,) copies of each template: its mean coverage inside the box."""
    inner = found.cropped().coverage
    xp = array_namespace(inner)
    return np.array([float(xp.mean(inner[k, ...])) for k in range(inner.shape[0])])
