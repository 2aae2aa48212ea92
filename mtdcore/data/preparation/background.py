"""The slow background of a micrograph and the robust scale of its noise."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

from ...errors import InputError

#: Standard deviation of a normal variable in units of its median absolute deviation.
_MAD_TO_STD = 1.4826

#: Standard deviations at which Gaussian kernels are cut, width in pixels from which on transforms replace sums, and weight of finite
#: pixels that counts as zero.
_CUT, _WIDE, _NOTHING = 3.0, 12.0, 1e-5

#: Largest number of pixels to which a polynomial background is fitted.
_FIT_PIXELS = 100_000


def gaussian_background(image: np.ndarray, width: float) -> np.ndarray:
    """Smooth background: Gaussian mean of standard deviation ``width`` pixels over the finite pixels.

    Args:
        image: (H, W) floating point; non-finite pixels are left out.
        width: pixels; much larger than the particles, whose low frequencies would be subtracted with the background.

    Returns:
        (H, W) of the dtype of ``image``.
    """
    finite = np.isfinite(image)
    values = _smoothed(np.where(finite, image, 0), width)
    if finite.all():
        return values
    weight = _smoothed(finite.astype(image.dtype), width)
    # far from every finite pixel a transform leaves rounding errors instead of zeros
    return np.asarray(np.where(weight > _NOTHING, values / np.maximum(weight, _NOTHING), 0))


def _smoothed(image: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean of an image that is reflected at its edges, cut at three standard deviations.

    A wide mean is a product of cosine transforms: as a sum, 3073 terms per pixel and axis take 40 s (4096 x 4096 pixels, a width of
    an eighth).
    """
    if width < _WIDE:
        return np.asarray(ndimage.gaussian_filter(image, width, mode="reflect", truncate=_CUT))
    spectrum = fft.dctn(image, type=2)
    for axis, side in enumerate(image.shape):
        gains = _gains(side, width).astype(image.dtype)
        spectrum *= gains[:, None] if axis == 0 else gains
    return np.asarray(fft.idctn(spectrum, type=2, overwrite_x=True))


def _gains(side: int, width: float) -> np.ndarray:
    """(side,) factors of the cosine components of a reflected row under the Gaussian mean."""
    reach = int(_CUT * width + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (steps / width) ** 2)
    period = np.bincount(
        steps % (2 * side), kernel / kernel.sum(), minlength=2 * side
    )  # period of the repeated reflections
    return np.asarray(fft.rfft(period).real[:side])


def polynomial_background(image: np.ndarray, degree: int) -> np.ndarray:
    """Least-squares polynomial of this total degree in row and column, fitted to the finite pixels.

    Args:
        image: (H, W) floating point.
        degree: 0 (a constant), 1 (a ramp), 2, ...

    Returns:
        (H, W) of the dtype of ``image``.
    """
    rows, cols = (np.linspace(-1.0, 1.0, n) for n in image.shape)
    row_powers, col_powers = (np.polynomial.legendre.legvander(axis, degree) for axis in (rows, cols))
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    pixels = np.flatnonzero(np.isfinite(image))
    pixels = pixels[:: max(1, pixels.size // _FIT_PIXELS)]
    r, c = np.divmod(pixels, image.shape[1])
    basis = np.stack([row_powers[r, i] * col_powers[c, j] for i, j in terms], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis, image.reshape(-1)[pixels].astype(np.float64), rcond=None)
    surface = np.zeros((degree + 1, degree + 1))
    surface[tuple(zip(*terms, strict=True))] = coefficients
    return (row_powers @ surface @ col_powers.T).astype(image.dtype)


def scale(image: np.ndarray) -> tuple[float, float]:
    """Median and robust standard deviation (1.4826 times the median absolute deviation) of the finite pixels.

    Raises:
        InputError: no finite pixel, or at least half of them are equal, so that there is no noise to scale by.
    """
    finite = image[np.isfinite(image)]
    if not finite.size:
        raise InputError("an image should hold finite pixels; this one holds none.")
    middle = float(np.median(finite))
    std = _MAD_TO_STD * float(np.median(np.abs(finite - middle)))
    if std == 0.0:
        raise InputError(
            f"at least half of the pixels should differ from the median {middle:g}; this image is constant or saturated."
        )
    return middle, std


def contrast_skewness(image: np.ndarray, width: float = 4.0) -> tuple[float, float]:
    """Skewness of the smoothed image: positive if sparse objects are brighter than their surroundings.

    An eighth along every edge is left out: artefacts of a background filter there would dominate.

    Args:
        image: (H, W) without background; non-finite pixels are left out.
        width: of the Gaussian, pixels.

    Returns:
        The skewness, and its standard error for white noise, of which ``4 pi width^2`` pixels make one independent value.
    """
    inner = image[tuple(slice(side // 8, side - side // 8) for side in image.shape)]
    smooth = gaussian_background(inner, width)[np.isfinite(inner)].astype(np.float64)
    if not smooth.size:
        return 0.0, np.inf
    smooth -= smooth.mean()
    squares = smooth * smooth
    power = float(squares.mean())
    error = float(np.sqrt(6.0 * 4.0 * np.pi * width**2 / smooth.size))
    return (float(np.mean(squares * smooth)) / power**1.5 if power > 0 else 0.0), error
