"""The ways to recover an image that the demo compares, and the priors that some of them use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import mtdcore as mtd
from mtdcore.mstep.updates import rising
from mtdcore.synthetic.glyphs import glyphs

#: Side of the glyphs, pixels.
BOX = 28

#: Glyphs that the prior is fitted to and the start averages; the targets of the demo come from other seeds.
_POOL_SEED, _POOL_SIZE, _START_SIZE = 1_000_003, 2000, 10


class GlyphPrior:
    """Gaussian fitted to images by probabilistic principal components (Tipping and Bishop 1999).

    Covariance ``U diag(v) U^T + r (1 - U U^T)``: the leading modes, and one variance r for all other directions. A prior is any
    object with the method ``score``; a learned prior (extra ``torch``) describes more than a covariance.

    Args:
        images: (n, L, L) floating point.
        modes: number of leading modes.
    """

    def __init__(self, images: np.ndarray, modes: int = 150) -> None:
        self._mean = images.mean(0)
        centred = (images - self._mean).reshape(len(images), -1)
        variances, vectors = np.linalg.eigh(centred.T @ centred / len(images))
        self._modes, self._variances = vectors[:, -modes:], variances[-modes:]
        self._rest = float(variances[:-modes].mean())

    def score(self, images: np.ndarray, noise_std: float) -> np.ndarray:
        """``(C + s^2)^-1 (mean - x)`` for the covariance C; see :class:`mtdcore.Prior`."""
        away = (self._mean - images).reshape(len(images), -1)
        rest = 1 / (self._rest + noise_std**2)
        along = (away @ self._modes) * (1 / (self._variances + noise_std**2) - rest)
        slope = rest * away + along @ self._modes.T
        return np.asarray(slope.reshape(images.shape), dtype=images.dtype)


@dataclass(frozen=True)
class Method:
    """A way to recover the image.

    Attributes:
        name: in the table.
        arguments: of :func:`mtdcore.recover`.
    """

    name: str
    arguments: dict[str, Any]

    def recover(self, measurement: Any, noise_std: float) -> mtd.Recovery:
        """Recover an image from a measurement of the demo."""
        return mtd.recover(
            measurement, box_size=BOX, rotations=4, noise_std=noise_std, backend="cpu", **self.arguments
        )


def methods() -> list[Method]:
    """The published method without and with the Gaussian prior, the default method without and with it, and the default
    method with the shipped learned prior where PyTorch is installed.

    The published settings: arXiv:2312.08500, Table I (start: average of ten images; prior weight rising from 0 to 1;
    score at the fixed noise level that t = 0.01 of its diffusion stands for, 0.045).
    """
    pool = glyphs(_POOL_SIZE, BOX, _POOL_SEED).astype(np.float64)
    prior = GlyphPrior(pool)
    plain = {"initial": pool[:_START_SIZE].mean(0)}
    ascent = mtd.GradientAscent(step=1e-3, prior_weight=rising, prior_level=0.045)
    published = {**plain, "likelihood": "patch", "iterations": 100, "update": ascent}
    default = {**plain, "temperature": "auto"}
    ways = [
        Method("published", published),
        Method("published, prior", {**published, "prior": prior}),
        Method("window", default),
        Method("window, prior", {**default, "prior": prior}),
    ]
    learned = _learned_prior()
    return ways if learned is None else [*ways, Method("window, learned", {**default, "prior": learned})]


def _learned_prior() -> mtd.Prior | None:
    """The shipped prior of glyphs; None without PyTorch or without its weights. Damaged weights are an error."""
    try:
        from mtdbridge import load_prior, shipped_priors
    except ImportError:
        return None
    if "glyphs" not in shipped_priors():
        return None
    import torch

    torch.set_num_threads(1)  # on one small image several threads are slower than one
    return load_prior("glyphs", box_size=BOX)


def window_evidence(measurement: Any, estimate: np.ndarray, noise_std: float, copies: float) -> float:
    """Evidence in nats that this image is in the measurement, against nothing being there (docs/model.md 7)."""
    likelihood = mtd.WindowLikelihood(mtd.Rotations(4, BOX), noise_std, expected_count=copies)
    return float(mtd.e_step(measurement, estimate, likelihood, backend="cpu").log_likelihood)
