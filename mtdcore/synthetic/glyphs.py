"""Procedural targets that need no download: jittered glyphs, drawn like MNIST digits.

Each glyph is a few strokes through jittered control points, mapped by a random affine transform, centred by its
centre of mass and rendered from the distance to the nearest stroke. After a rotation by 90, 180 or 270 degrees no glyph
of the alphabet looks like itself or like another glyph, so that a prior can learn which way is upright.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ParameterError

#: Strokes through (row, column) control points, rows from -10 (top) to 10, columns from -7 to 7. A leading "~" stroke is
#: a smooth curve (Catmull-Rom), a leading "-" stroke a polyline; strokes are separated by "|".
_ALPHABET = {
    "A": "- 10 -7, -10 0, 10 7 | - 3 -4.5, 3 4.5",
    "F": "- 10 -5, -10 -5, -10 6 | - -1 -5, -1 3",
    "G": "~ -6 6, -10 1, -7 -5, 0 -7, 7 -5, 10 1, 6 6 | - 6 6, 1 6, 1 1",
    "J": "- -10 -3, -10 7 | ~ -10 3, 4 3, 10 -1, 8 -6, 4 -7",
    "K": "- -10 -6, 10 -6 | - -10 6, 1 -6 | - -2 -3, 10 7",
    "P": "- 10 -5, -10 -5 | ~ -10 -5, -9 3, -5 6, -1 3, 0 -5",
    "R": "- 10 -6, -10 -6 | ~ -10 -6, -9 3, -5 6, -1 3, 0 -6 | - 0 0, 10 7",
    "Y": "- -10 -7, 0 0, -10 7 | - 0 0, 10 0",
    "3": "~ -8 -6, -10 0, -6 5, -1 0 | ~ -1 0, 4 7, 10 1, 8 -6",
    "4": "- 10 3, -10 3, 4 -7, 4 7",
    "6": "~ -10 4, -5 -3, 3 -6, 9 -3, 9 3, 4 6, 0 2, 2 -5",
    "7": "- -10 -7, -10 7, 10 -2 | - 0 -2, 0 6",
    "h": "- -10 -6, 10 -6 | ~ 3 -6, -2 0, 1 5, 10 6",
    "psi": "- -10 0, 10 0 | ~ -8 -7, -2 -6, 2 0, -2 6, -8 7",
}

#: Names of the classes, in the order of the labels.
GLYPH_NAMES = tuple(_ALPHABET)

_CURVE_SAMPLES = 4  # straight pieces per span of a curve; finer is invisible at 64 pixels
_HALF_HEIGHT = 10 / 28  # of the box, as MNIST: 20 pixels of 28
_BATCH_PIXELS = 1 << 20  # pixels rendered at a time, so that the distance field stays in cache


class _Skeleton(NamedTuple):
    """Control points (C, 2) in half heights, and the (S, C) weights of the start and end of each segment."""

    control: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def glyphs(count: int, box_size: int = 28, seed: int = 0) -> np.ndarray:
    """Random glyphs.

    Args:
        count: number of images.
        box_size: side L in pixels, at least 8.
        seed: glyph i depends on (seed, i) only, whatever the count.

    Returns:
        (count, L, L) float32 in [0, 1], background exactly 0.

    Raises:
        ParameterError: a negative count, or a box below 8 pixels.
    """
    return labelled_glyphs(count, box_size, seed)[0]


def labelled_glyphs(count: int, box_size: int = 28, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """:func:`glyphs` and their classes, (count,) int64 indices into :data:`GLYPH_NAMES`."""
    if count < 0 or box_size < 8:
        raise ParameterError(
            f"glyphs need a count of at least 0 and a box of at least 8 pixels; got {count} and {box_size}."
        )
    skeletons = [_parse(text) for text in _ALPHABET.values()]
    jitters = 2 * max(len(s.control) for s in skeletons)
    # One row of uniforms per glyph from one stream: the first n glyphs never depend on the count.
    draws = np.random.default_rng(seed).random((count, 6 + jitters))
    labels = (draws[:, 0] * len(skeletons)).astype(np.int64)
    images = np.zeros((count, box_size, box_size), np.float32)
    batch = max(1, _BATCH_PIXELS // box_size**2)
    for label, skeleton in enumerate(skeletons):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), batch):
            chosen = members[start : start + batch]
            images[chosen] = _draw(skeleton, draws[chosen, 1:], box_size)
    return images, labels


def _parse(text: str) -> _Skeleton:
    """Control points and segments of one entry of the alphabet."""
    control: list[tuple[float, float]] = []
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    strokes = [stroke.split(maxsplit=1) for stroke in text.split("|")]
    total = text.count(",") + len(strokes)
    for kind, body in strokes:
        points = [(float(row), float(col)) for row, col in (point.split() for point in body.split(","))]
        node = np.eye(total)[len(control) : len(control) + len(points)]
        path = _catmull_rom(node) if kind == "~" else node
        control += points
        starts.append(path[:-1])
        ends.append(path[1:])
    return _Skeleton(np.array(control) / 10, np.concatenate(starts), np.concatenate(ends))


def _catmull_rom(nodes: np.ndarray) -> np.ndarray:
    """(n, C) weights of the nodes -> weights of points along the Catmull-Rom curve through them."""
    padded = np.concatenate([2 * nodes[:1] - nodes[1:2], nodes, 2 * nodes[-1:] - nodes[-2:-1]])
    before, here, there, after = (padded[i : len(nodes) - 1 + i, None] for i in range(4))
    t = (np.arange(_CURVE_SAMPLES) / _CURVE_SAMPLES)[None, :, None]
    curve = here + t / 2 * (
        there
        - before
        + t * (2 * before - 5 * here + 4 * there - after + t * (3 * (here - there) + after - before))
    )
    return np.concatenate([curve.reshape(-1, nodes.shape[1]), nodes[-1:]])


def _draw(skeleton: _Skeleton, draws: np.ndarray, box_size: int) -> np.ndarray:
    """(n, 5 + jitters) uniforms -> (n, L, L) images of one class."""
    signed = 2 * draws - 1
    angle = np.deg2rad(10) * signed[:, 0]
    shear = 0.2 * signed[:, 1]
    scale = 1 + 0.12 * signed[:, 2:4]
    half_width = box_size * (0.046 + 0.014 * signed[:, 4])
    jitter = 0.08 * signed[:, 5 : 5 + skeleton.control.size].reshape(-1, *skeleton.control.shape)
    rows, cols = np.moveaxis((skeleton.control + jitter) * scale[:, None, :], -1, 0)
    cols = cols - shear[:, None] * rows
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    control = box_size * _HALF_HEIGHT * np.stack([cos * rows - sin * cols, sin * rows + cos * cols], axis=1)
    starts, ends = control @ skeleton.starts.T, control @ skeleton.ends.T
    lengths = np.linalg.norm(ends - starts, axis=1, keepdims=True)
    centre = ((starts + ends) / 2 * lengths).sum(-1, keepdims=True) / lengths.sum(-1, keepdims=True)
    starts, ends = starts - centre, ends - centre
    # A lopsided glyph, centred by mass, can extend beyond the box: shrink it until its strokes stay inside.
    room = box_size / 2 - 1.01 - half_width
    fit = np.minimum(1, room / np.maximum(abs(starts), abs(ends)).max(axis=(1, 2)))[:, None, None]
    distance = _distance(starts * fit, ends * fit, box_size)
    # A linear ramp one pixel wide across the edge is the area coverage of a straight edge: anti-aliasing.
    ink: np.ndarray = np.clip(half_width[:, None, None].astype(np.float32) + 0.5 - distance, 0, 1)
    return ink


def _distance(starts: np.ndarray, ends: np.ndarray, box_size: int) -> np.ndarray:
    """(n, 2, S) segments, in pixels from the centre of the box -> (n, L, L) float32 distance to the nearest."""
    offset = np.arange(box_size, dtype=np.float32) - np.float32((box_size - 1) / 2)
    starts, spans = starts.astype(np.float32), (ends - starts).astype(np.float32)
    nearest = np.full((len(starts), box_size, box_size), np.inf, np.float32)
    for s in range(starts.shape[2]):
        row, col = (offset - starts[:, axis, s, None] for axis in (0, 1))
        down, across = (spans[:, axis, s, None] for axis in (0, 1))
        square = np.maximum(down**2 + across**2, np.float32(1e-12))
        along = (row * down / square)[:, :, None] + (col * across / square)[:, None, :]
        np.clip(along, 0, 1, out=along)
        gap = (row[:, :, None] - along * down[:, :, None]) ** 2
        gap += (col[:, None, :] - along * across[:, :, None]) ** 2
        np.minimum(nearest, gap, out=nearest)
    return np.sqrt(nearest)
