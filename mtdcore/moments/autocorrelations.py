"""Autocorrelations of images up to the third order, and their gradient (docs/model.md 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

#: Number of edges transformed together, which bounds the memory.
_BLOCK = 128


@dataclass(frozen=True)
class Autocorrelations:
    """``S2[q] = sum_x F(x) F(x + q)`` and ``S3[e, q] = sum_x F(x) F(x + e) F(x + q)`` of images that are zero outside their box.

    Attributes:
        box_shape: (h, w) of an image.
        edges: (E, 2) whole numbers, the lags e.
    """

    box_shape: tuple[int, int]
    edges: np.ndarray

    def of(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means over K images.

        Args:
            images: (K, h, w) float64.

        Returns:
            S2 (2 h - 1, 2 w - 1) and S3 (E, 2 h - 1, 2 w - 1); lag (0, 0) in the middle.
        """
        height, width = self._lags
        second, third = np.zeros(self._lags), np.zeros((len(self.edges), *self._lags))
        for image in images:
            spectrum = self._far(image)
            second += fft.irfft2(np.conj(fft.rfft2(image, self._canvas)) * spectrum, self._canvas)[
                :height, :width
            ]
            for part in self._parts():
                products = fft.rfft2(image * self._beside(image, part), self._canvas)
                third[part] += fft.irfft2(np.conj(products) * spectrum, self._canvas)[:, :height, :width]
        return second / len(images), third / len(images)

    def gradient(self, images: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
        """Gradient of ``<second, S2> + <third, S3>`` in the images.

        Args:
            images: (K, h, w) float64.
            second: of the shape of S2.
            third: of the shape of S3.

        Returns:
            (K, h, w) float64.
        """
        height, width = self.box_shape
        found = np.zeros(images.shape)
        both = fft.rfft2(second + second[::-1, ::-1], self._canvas)
        weights = [fft.rfft2(third[part], self._canvas) for part in self._parts()]
        for image, slope in zip(images, found, strict=True):
            far = self._far(image)
            collected = both * fft.rfft2(
                image, self._canvas
            )  # a pixel of a pair, and the third pixel of a triple
            for part, weight in zip(self._parts(), weights, strict=True):
                beside = self._beside(image, part)
                collected += np.einsum("eij,eij->ij", weight, fft.rfft2(image * beside, self._canvas))
                reached = fft.irfft2(np.conj(weight) * far, self._canvas)[:, :height, :width]
                slope += np.einsum("eij,eij->ij", beside, reached)  # the first pixel
                for product, (down, right) in zip(
                    image * reached, self.edges[part], strict=True
                ):  # the second pixel
                    to, of = _overlap(self.box_shape, down, right)
                    slope[to] += product[of]
            slope += fft.irfft2(collected, self._canvas)[
                height - 1 : 2 * height - 1, width - 1 : 2 * width - 1
            ]
        return found / len(images)

    def _far(self, image: np.ndarray) -> np.ndarray:
        """Spectrum of an image placed so that a correlation with it starts at lag (1 - h, 1 - w)."""
        return np.asarray(fft.rfft2(np.pad(image, [(n - 1, 0) for n in self.box_shape]), self._canvas))

    @property
    def _lags(self) -> tuple[int, int]:
        return 2 * self.box_shape[0] - 1, 2 * self.box_shape[1] - 1

    @property
    def _canvas(self) -> tuple[int, int]:
        rows, columns = (fft.next_fast_len(n) for n in self._lags)
        return rows, columns

    def _parts(self) -> list[slice]:
        return [slice(i, i + _BLOCK) for i in range(0, len(self.edges), _BLOCK)]

    def _beside(self, image: np.ndarray, part: slice) -> np.ndarray:
        """``F(x + e)`` for some of the edges, (e, h, w)."""
        found = np.zeros((len(self.edges[part]), *image.shape))
        for one, (down, right) in zip(found, self.edges[part], strict=True):
            to, of = _overlap(self.box_shape, down, right)
            one[of] = image[to]
        return found


def _overlap(
    shape: tuple[int, int], down: int, right: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of (x + e, x) for which both pixels lie in the box."""
    to, of = (
        tuple(slice(max(0, s * e), n + min(0, s * e)) for n, e in zip(shape, (down, right), strict=True))
        for s in (1, -1)
    )
    return (to[0], to[1]), (of[0], of[1])
