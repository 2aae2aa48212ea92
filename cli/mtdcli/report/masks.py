"""A contact sheet of a measurement: its first micrographs, with masked pixels in colour."""

from __future__ import annotations

import io
import math

import numpy as np

from mtdcore.data import Measurement
from mtdcore.data.tiles import TileGeometry
from mtdcore.drawing.images import value_range

#: Largest number of micrographs drawn, and largest side of each in pixels of the picture.
MOST, SIDE = 16, 640

#: Colour of masked pixels (red, green, blue), and gap between micrographs in pixels.
_MASKED, _GAP = (232, 98, 60), 4


def masks(measurement: Measurement) -> bytes:
    """PNG of at most ``MOST`` micrographs in reading order, grey from the 0.2 % to the 99.8 % quantile of each."""
    from PIL import Image

    count, height, width = measurement.shape
    step = max(1, -(-max(height, width) // SIDE))
    shown = [_coloured(image) for image in _thinned(measurement, min(count, MOST), step)]
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    h, w = shown[0].shape[:2]
    sheet = np.full((rows * (h + _GAP) - _GAP, columns * (w + _GAP) - _GAP, 3), 255, np.uint8)
    for number, image in enumerate(shown):
        row, column = divmod(number, columns)
        sheet[row * (h + _GAP) :, column * (w + _GAP) :][:h, :w] = image
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    return buffer.getvalue()


def _thinned(measurement: Measurement, count: int, step: int) -> list[np.ndarray]:
    """Every ``step``-th pixel of the first micrographs, NaN where it is masked."""
    _, height, width = measurement.shape
    images = [np.full((-(-height // step), -(-width // step)), np.nan, np.float32) for _ in range(count)]
    side = min(1024, height, width)
    for tile in measurement.tiles(TileGeometry(side=side, unit=1, halo=0, reach=0)):
        if tile.micrograph >= count:
            break
        values = tile.values if tile.valid is None else np.where(tile.valid, tile.values, np.nan)
        corner = [part.start for part in tile.region.read]
        part = values[-corner[0] % step :: step, -corner[1] % step :: step]
        row, column = (-(-n // step) for n in corner)
        images[tile.micrograph][row : row + part.shape[0], column : column + part.shape[1]] = part
    return images


def _coloured(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) bytes."""
    low, high = value_range(image, 0.002)
    scaled = (np.where(np.isfinite(image), image, low) - low) / (high - low if high > low else 1.0)
    grey = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    coloured = np.repeat(grey[..., None], 3, axis=-1)
    coloured[~np.isfinite(image)] = _MASKED
    return coloured
