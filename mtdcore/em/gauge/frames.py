"""Crops of a frame that is wider than the box, and their centre of mass."""

from __future__ import annotations

import numpy as np

#: (down, right) in whole pixels.
Offset = tuple[int, int]


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    """(row, column) centre of mass of the positive part; the middle of the image if no pixel is positive."""
    positive = np.clip(image, 0.0, None)
    total = positive.sum()
    if total <= 0.0:
        return (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    rows, columns = (np.arange(n) for n in image.shape)
    return (
        float(positive.sum(axis=1) @ rows / total),
        float(positive.sum(axis=0) @ columns / total),
    )


def recentring(frame: np.ndarray, box: tuple[int, ...], centre: tuple[float, float]) -> tuple[int, int]:
    """Offset of the crop whose centre of mass falls on ``centre``, within the margin of the frame.

    Only the mass inside the box counts, so that noise in the margin has no effect.
    """
    reaches = [(n - m) // 2 for n, m in zip(frame.shape, box, strict=True)]
    row = column = 0
    for _ in range(4):
        mass = centre_of_mass(crop(frame, box, (row, column)))
        step = [round(m - c) for m, c in zip(mass, centre, strict=True)]
        if step == [0, 0]:
            break
        row, column = (
            int(np.clip(now + move, -reach, reach))
            for now, move, reach in zip((row, column), step, reaches, strict=True)
        )
    return row, column


def crop(frame: np.ndarray, box: tuple[int, ...], offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """(L, L) view of a (B, B) frame, ``offset`` pixels down and right of the middle."""
    row, column = ((n - m) // 2 + o for n, m, o in zip(frame.shape, box, offset, strict=True))
    return frame[row : row + box[0], column : column + box[1]]


def widened(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An (L, L) image in the middle of a (B, B) frame of zeros."""
    frame = np.zeros(shape, image.dtype)
    crop(frame, image.shape)[...] = image
    return frame
