"""The same E-steps as one would first write them: whole arrays, no tiles, one global shift before ``exp``.

Oracles of speed, not of correctness; torch competes as the backend that it is (``get_backend("torch")``).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter

from mtdcore import PatchLikelihood

try:
    import pyfftw.interfaces.scipy_fft as fftw
except ImportError:
    FFTS = ("scipy",)
else:
    FFTS = ("scipy", "fftw")

#: Correlation values of one batch of patches: they stay in the second-level cache.
_BATCH_VALUES = 2**18

#: Side of the tiles of windows in pixels.
_TILE = 1024


def transform_pairs(likelihood, side, threads, library):
    """The transforms alone: a forward and an inverse real one per patch or tile and rotation, by scipy or FFTW."""
    if isinstance(likelihood, PatchLikelihood):
        torus = (fft.next_fast_len(2 * likelihood.box_size - 1, real=True),) * 2
        batch = max(1, _BATCH_VALUES // (likelihood.rotations * torus[0] ** 2))
        count = (side // likelihood.box_size) ** 2
        sizes = [min(batch, count - first) * likelihood.rotations for first in range(0, count, batch)]
    else:
        cut = likelihood.geometry.enlarged(_TILE)
        torus = tuple(fft.next_fast_len(n, real=True) for n in cut.largest_read((side, side)))
        sizes = [1] * (cut.count((side, side)) * likelihood.rotations)
    data = np.random.default_rng(0).standard_normal(size=(max(sizes), *torus), dtype=np.float32)

    def pair(count):
        with fft.set_backend(fftw, coerce=True) if library == "fftw" else nullcontext():
            fft.irfft2(fft.rfft2(data[:count]), s=torus, overwrite_x=True)

    def run():
        if library == "fftw":
            import pyfftw

            pyfftw.interfaces.cache.enable()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(pair, sizes))

    return run


def vectorised_patch(image, turned, likelihood, threads):
    """Back-projection and coverage of the patch model, all patches at once."""
    length, count = likelihood.box_size, image.shape[0] // likelihood.box_size
    variance, torus = likelihood.noise_std**2, (2 * length, 2 * length)
    cut = image[: count * length, : count * length].reshape(count, length, count, length)
    patches = cut.swapaxes(1, 2).reshape(-1, length, length)
    turned = turned.astype(image.dtype)
    with fft.set_workers(threads):
        spectra = fft.rfft2(patches, s=torus)
        scores = fft.irfft2(spectra[:, None] * fft.rfft2(turned, s=torus).conj(), s=torus)
        box = fft.rfft2(np.ones((length, length), image.dtype), s=torus)
        scores -= 0.5 * fft.irfft2(box * fft.rfft2(turned**2, s=torus).conj(), s=torus)
        scores /= variance
        scores -= scores.max(axis=(1, 2, 3), keepdims=True)
        weights = np.exp(scores)
        weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
        spectra_w = fft.rfft2(weights).conj()
        projected = fft.irfft2((spectra[:, None] * spectra_w).sum(axis=0), s=torus)
        covered = fft.irfft2(box * spectra_w.sum(axis=0), s=torus)
    return projected[:, :length, :length], covered[:, :length, :length]


def vectorised_window(image, turned, likelihood, threads):
    """Back-projection of the window model, the whole measurement at once; one global shift before exp."""
    length, reach = likelihood.box_size, 2 * likelihood.separation - 1
    shape, corners = image.shape, tuple(n - likelihood.box_size + 1 for n in image.shape)
    turned = turned.astype(image.dtype)
    with fft.set_workers(threads):
        spectrum = fft.rfft2(image)
        scores = fft.irfft2(spectrum * fft.rfft2(turned, s=shape).conj(), s=shape)
        scores = scores[:, : corners[0], : corners[1]]
        scores = (scores - 0.5 * (turned**2).sum(axis=(1, 2))[:, None, None]) / likelihood.noise_std**2
        scores += likelihood.log_activity - math.log(len(turned))
        odds = np.exp(scores - scores.max())
        total = uniform_filter(odds.sum(axis=0), size=reach, mode="constant") * reach**2
        weights = np.exp(scores - np.logaddexp(0.0, np.log(np.maximum(total, 1e-30)) + scores.max()))
        projected = fft.irfft2(spectrum * fft.rfft2(weights, s=shape).conj(), s=shape)
    return projected[:, :length, :length], weights.sum(axis=(1, 2))
