"""From the posterior of every pose to a list of copies (window model, docs/model.md 7).

A copy's posterior spreads over a few corners and rotations around the best one. Its *probability* is the mass of
that whole neighbourhood. Copies are read off greedily, the most probable first, and keep the minimum separation.

In a crowded field one round is not enough. A corner competes with all corners nearby, also with those that a third copy excludes: of three copies in
a row the middle one, excluded by the first, still hides the last. So copies are detected in rounds, each after the copies of the earlier rounds are
subtracted, until a round finds none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..._base.typing import Array, plain
from ...data import Measurement, MeasurementLike, open_measurement
from ...data.tiles import Tile
from ...errors import ParameterError
from ...estep.backends import Backend, get_backend
from ...estep.expectation import check_box_fits
from ...estep.posteriors import Chances, Posterior
from ...estep.residual import noise_in_sight
from ...model.likelihood import Likelihood
from ...model.poses import Poses, may_be_mirrored
from .hidden import Hidden
from .peaks import apart, check_threshold, grown, halo, neighbourhood, peaks
from .places import Places
from .table import Detections

#: Largest side of the tiles in pixels read.
_TILE = 1024

#: Power of the residual at the frequencies of the target, relative to white noise of the same level, above which the noise counts as not white. In
#: white noise unexplained copies reach up to 1.2.
_COLOURED = 1.5


def detect(
    measurement: MeasurementLike,
    target: Array,
    likelihood: Likelihood,
    backend: str | Backend = "auto",
    threshold: float = 0.5,
    reach: int | None = None,
) -> Detections:
    """Find the copies of a target: two or a few passes over the tiles, with a result that does not depend on the tiles.

    If the residual after the copies is not white and the likelihood has no filter, the noise level is that at the frequencies of the target.
    If the views include sub-pixel shifts, the positions of copies are refined to the maximum of their likelihood
    (:mod:`mtdcore.results.detections.places`). Copies that are masked for the greater part are not listed.

    Args:
        measurement: anything :func:`mtdcore.open_measurement` takes.
        target: (L, L) floating-point image, for instance ``Recovery.target``, or (C, L, L) for C classes.
        likelihood: window model with its final tied parameters, for instance ``Recovery.likelihood``.
        backend: a backend or its name; "auto": the first CUDA device, or the CPU.
        threshold: smallest probability of a copy, in (0, 1).
        reach: pixels around the best corner over which the posterior of one copy is summed; None: an eighth of the
            box, of its longer side. At most (d - 1) // 2, so that two copies at the minimum separation d never share any.

    Raises:
        ParameterError: not the window model, or an argument outside its domain.
        InputError: the micrographs are smaller than the box.
    """
    if not likelihood.localises:
        raise ParameterError(
            f"detections need the window model, in which a copy has one pose; got {type(likelihood).__name__}: make a "
            "WindowLikelihood with its noise_std and the expected number of copies."
        )
    check_threshold(threshold)
    if reach is not None and reach < 0:
        raise ParameterError(f"reach should be zero or a positive number of pixels; got {reach}.")
    source, views = open_measurement(measurement), likelihood.views
    check_box_fits(source, views)
    wanted = max(1, max(views.box_shape) // 8) if reach is None else reach
    reaches = neighbourhood(likelihood, wanted)
    engine, every = get_backend(backend), Poses.of(views)
    calibrated = _calibrated(likelihood, source, target, engine).bind(source.shape)
    wide = replace(calibrated, margin=halo(likelihood, reaches))
    # only the tiles need the halo: a margin in the scoring likelihood would shrink the useful part of each transform
    posterior, poses = Posterior(target, replace(wide, margin=0), engine), every.where(every.whole)
    around = max(2 * near + far for near, far in zip(wide.geometry.halos, wide.geometry.reaches, strict=True))
    cut = wide.geometry.enlarged(max(_TILE, around + 1))
    between = len(every.whole) < views.count  # are there templates between pixels?
    known, refined = np.empty((0, 8)), None
    hidden = Hidden(wide, threshold, reaches)
    while True:
        found = [known]
        for number, tile in enumerate(wide.whitened(source).tiles(cut)):
            here = known[known[:, 0] == tile.micrograph]
            copies = here[:, 1:4].astype(np.int64)
            if not hidden.may_be_in(number, copies[:, :2]):
                continue
            own, core = grown(tile, reaches)
            copies[:, 2] = every.whole[copies[:, 2]]
            chances = posterior.chances(own, copies, here[:, 7])
            hidden.keep(number, chances)
            peaks = list(_peaks(posterior, chances, core, threshold, reaches, len(every.whole)))
            if peaks and (between or wide.amplitudes is not None or tile.valid is not None):
                alone, templates = posterior.seen(tile.micrograph)
                if refined is None or wide.micrographs is not None:
                    refined = Places(engine.to_host(templates)[every.whole])
                peaks = [
                    _placed(peak, own, refined, alone, between)
                    for peak in peaks
                    if _in_sight(peak, own, refined)
                ]
            found.extend(peaks)
        table, before = np.vstack(found), len(known)
        later = np.arange(len(table)) >= before
        table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0], -table[:, 4], later))]
        known = table[apart(table[:, :3].astype(np.int64), wide.separations)]
        if len(known) == before:
            break
    table = known[np.lexsort((known[:, 2], known[:, 1], known[:, 0], -known[:, 4]))]
    of, row, column, template = table[:, :4].astype(np.int64).T
    pose = poses.where(template)
    if between:
        row, column = row + table[:, 5], column + table[:, 6]
    return Detections(
        of,
        row,
        column,
        pose.rotation,
        np.minimum(table[:, 4], 1.0),
        plain(*views.box_shape),
        poses.rotations,
        pose.class_index,
        pose.mirrored if may_be_mirrored(views) else None,
        None if wide.amplitudes is None else table[:, 7],
    )


def _calibrated(likelihood: Likelihood, source: Measurement, target: Array, backend: Backend) -> Likelihood:
    """The likelihood with the noise level at the frequencies of the target, if the white model was fitted to noise that is not white.

    Smoothed noise looks like copies, and each seems certain. (A run that learned the spectrum has a filter for it.)
    """
    if likelihood.whitening is not None:
        return likelihood
    excess = noise_in_sight(source, backend.to_host(backend.asarray(target)), likelihood, backend)
    return (
        likelihood.with_noise_std(likelihood.noise_std * math.sqrt(excess))
        if excess > _COLOURED
        else likelihood
    )


def _window(peak: np.ndarray, tile: Tile) -> tuple[slice, ...]:
    """Where the box of a peak lies in the pixels of the tile."""
    return tuple(
        slice(corner - read.start, corner - read.start + reach + 1)
        for corner, read, reach in zip(
            peak[1:3].astype(np.int64), tile.region.read, tile.geometry.reaches, strict=True
        )
    )


def _in_sight(peak: np.ndarray, tile: Tile, places: Places) -> bool:
    """Whether the copy of a peak is masked for the lesser part at most."""
    return tile.valid is None or places.in_sight(tile.valid[_window(peak, tile)], int(peak[3]))


def _placed(
    peak: np.ndarray, tile: Tile, places: Places, likelihood: Likelihood, between: bool
) -> np.ndarray:
    """A row of :func:`_peaks`, with the place of the copy between pixels where there is one, and its amplitude there."""
    template, window = int(peak[3]), _window(peak, tile)
    valid = None if tile.valid is None else tile.valid[window]
    pixels, amplitude, place = tile.values[window], 1.0, (0.0, 0.0)
    if between:
        place = places(pixels, valid, template)
    if likelihood.amplitudes is not None:
        gain, energy = (n / likelihood.noise_std**2 for n in places.match(pixels, valid, template, *place))
        amplitude = float(likelihood.amplitudes.moment(1, np.float64(gain), np.float64(energy)))
    return np.array([*peak[:5], *place, amplitude])


def _peaks(
    posterior: Posterior,
    chances: Chances,
    core: tuple[slice, slice],
    threshold: float,
    reaches: tuple[int, int],
    whole: int,
) -> Iterator[np.ndarray]:
    """(micrograph, row, column, template, probability, 0, 0, 1) of the peaks in the core.

    Args:
        posterior: of the measurement.
        chances: at the sites that a tile owns.
        core: see :func:`peaks`, as the next two.
        threshold: smallest probability.
        reaches: of the neighbourhood.
        whole: number of templates that are not between pixels.
    """
    tile, (down, across) = chances.tile, reaches
    top, left = (s.start for s in tile.region.owned)
    high, wide = chances.mass.shape
    for i, j, probability in peaks(chances.mass, core, threshold, reaches):
        rows = slice(max(0, i - down), min(high, i + down + 1))
        columns = slice(max(0, j - across), min(wide, j + across + 1))
        template = int(np.argmax(posterior.poses(chances, (rows, columns)).reshape(whole, -1).sum(axis=1)))
        yield np.array([tile.micrograph, top + i, left + j, template, probability, 0.0, 0.0, 1.0])
