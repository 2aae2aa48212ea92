"""Conformance tests of priors."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import pytest

from .._base.typing import Array
from ..model.priors import Prior, denoise


class PriorConformance(ABC):
    """A prior keeps to :class:`mtdcore.Prior`.

    Attributes:
        box_size: side L of the images of the prior.
        levels: noise levels at which its score is tested.
    """

    box_size: int = 8
    levels: tuple[float, ...] = (0.1, 0.5, 2.0)

    @abstractmethod
    def make_prior(self) -> Prior:
        """The prior under test."""

    @abstractmethod
    def make_images(self, count: int) -> np.ndarray:
        """(count, L, L) clean images of the kind that the prior describes."""

    def asarray(self, images: np.ndarray) -> Array:
        """Images in the library that the prior takes."""
        return images

    @pytest.fixture
    def noisy(self) -> Array:
        """(3, L, L) float32 images with noise."""
        rng = np.random.default_rng(0)
        return (self.make_images(3) + 0.5 * rng.normal(size=(3, self.box_size, self.box_size))).astype(
            np.float32
        )

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_shape_dtype_and_library_are_kept(self, noisy: np.ndarray, dtype: str) -> None:
        """Shape, dtype and library stay; the score is finite at every level."""
        images = self.asarray(noisy.astype(dtype))
        for level in self.levels:
            score = self.make_prior().score(images, level)
            assert type(score) is type(images)
            assert (score.shape, score.dtype) == (images.shape, images.dtype)
            assert np.isfinite(np.asarray(score)).all()

    def test_images_of_a_batch_do_not_mix(self, noisy: np.ndarray) -> None:
        """The score of a batch is the scores of its images."""
        prior = self.make_prior()
        for level in self.levels:
            together = np.asarray(prior.score(self.asarray(noisy), level))
            alone = [np.asarray(prior.score(self.asarray(noisy[i : i + 1]), level))[0] for i in range(3)]
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4 * np.abs(together).max())

    def test_same_bits_again_and_input_untouched(self, noisy: np.ndarray) -> None:
        """A score is a function, also of read-only images."""
        prior, before = self.make_prior(), noisy.copy()
        noisy.flags.writeable = False
        first, second = (np.asarray(prior.score(self.asarray(noisy), self.levels[0])) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(noisy, before)

    def test_denoising_its_own_images_does_not_hurt(self) -> None:
        """Tweedie's denoiser is closer to the clean image than the noisy one is, at every level."""
        clean = self.make_images(16).astype(np.float64)
        for level in self.levels:
            noisy = clean + level * np.random.default_rng(1).normal(size=clean.shape)
            better = np.asarray(denoise(self.make_prior(), self.asarray(noisy), level))
            assert np.mean((better - clean) ** 2) <= np.mean((noisy - clean) ** 2)
