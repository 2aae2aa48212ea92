"""Grey pictures of arrays as PNG bytes, and PNG bytes in a page."""

from __future__ import annotations

import base64
import html
import io

import numpy as np


def picture(image: np.ndarray, limits: tuple[float, float] | None = None) -> bytes:
    """Grey picture, one PNG pixel per pixel (the page enlarges it without smoothing).

    Args:
        image: (H, W) real; non-finite pixels are drawn black.
        limits: values of black and white; None: the range of the image.
    """
    from PIL import Image

    finite = np.isfinite(image)
    low, high = limits or value_range(image)
    scaled = (np.where(finite, image, low) - low) / (high - low if high > low else 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def value_range(image: np.ndarray, share: float = 0.0) -> tuple[float, float]:
    """Smallest and largest finite value, or the quantiles ``share`` and ``1 - share``."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.quantile(finite, [share, 1 - share])
    return float(low), float(high)


def sections(volume: np.ndarray) -> list[np.ndarray]:
    """The three sections through the middle of an (L, L, L) volume, across z, y and x."""
    middle = len(volume) // 2
    return [volume[middle], volume[:, middle], volume[:, :, middle]]


def section_pictures(volume: np.ndarray) -> list[bytes]:
    """Pictures of :func:`sections`: black at zero density, white at the largest density of the volume."""
    return [picture(section, (0.0, float(volume.max()))) for section in sections(volume)]


def data_uri(png: bytes) -> str:
    """PNG bytes as the ``src`` of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def captioned(png: bytes, alt: str, caption: str) -> str:
    """A picture in HTML with plain texts: an alternative text, and a caption below it."""
    return (
        f'<figure style="margin: 0"><img alt="{html.escape(alt)}" src="{data_uri(png)}" style="max-width: 100%">'
        f"<figcaption><code>{html.escape(caption)}</code></figcaption></figure>"
    )
