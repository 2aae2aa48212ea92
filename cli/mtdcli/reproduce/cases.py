"""Targets, measurements and starts of the two experiments (Table I of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import mtdcore as mtd
from mtdbridge.training.images import load_images
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import InputError, ParameterError
from mtdcore.results.metrics import forgiven_shift
from mtdcore.synthetic.glyphs import labelled_glyphs
from mtdcore.synthetic.simulate import Simulation

ROTATIONS = 4
_SIDE, _DENSITY, _SEPARATION = 11, 0.1, 2  # side and separation in boxes

_GAUSSIAN_BOX, _GAUSSIAN_SAMPLES = 5, 10_000
_DIGITS_IN_START = 10

#: Glyphs that replace digits, (number, seed): first those that the shipped prior was trained on, then others for the targets.
_GLYPH_BOX, _GLYPH_TRAINING, _GLYPH_TEST = 28, (20_000, 0), (5_000, 7_001)


@dataclass(frozen=True, eq=False)
class Case:
    """One measurement.

    Attributes:
        target: index of the target in its experiment.
        repeat: index of the measurement among those of this target and SNR.
        snr: signal-to-noise ratio, ``||F||^2 / (L^2 sigma^2)``.
        seed: of the measurement; the same at every SNR, so that only the noise standard deviation differs.
        image: (L, L) float64 target.
        start: (L, L) float64 start of the paper's method.
        max_shift: pixels of shift that the gauge-free error forgives.
    """

    target: int
    repeat: int
    snr: float
    seed: int
    image: np.ndarray
    start: np.ndarray
    max_shift: int

    def simulate(self) -> Simulation:
        """The measurement and its truth; the same bits each time."""
        return mtd.simulate(
            self.image,
            side=_SIDE * len(self.image),
            density=_DENSITY,
            snr=self.snr,
            rotations=ROTATIONS,
            separation=_SEPARATION,
            seed=self.seed,
        )


@dataclass(frozen=True, eq=False)
class Experiment:
    """Data and settings of an experiment.

    Attributes:
        name: "gaussian" or "mnist".
        source: where the images come from.
        targets: (T, L, L) float64, never trained on.
        training: (N, L, L) float32.
        snrs: the paper's signal-to-noise ratios.
        prior: the density the targets were drawn from, where it is known.
    """

    name: str
    source: str
    targets: np.ndarray
    training: np.ndarray
    snrs: tuple[float, ...]
    prior: mtd.GaussianPrior | None = None

    @property
    def box_size(self) -> int:
        """Side L in pixels."""
        return int(self.targets.shape[-1])

    @property
    def max_shift(self) -> int:
        """Pixels of shift that the gauge-free error forgives."""
        return forgiven_shift(self.box_size)

    def cases(self, snrs: Sequence[float], repeats: int = 1, seed: int = 0) -> list[Case]:
        """Every target at every SNR, ``repeats`` measurements each.

        Args:
            snrs: signal-to-noise ratios.
            repeats: measurements per target and SNR.
            seed: of places, noise and starts.
        """
        count = len(self.targets)
        seeds = np.random.SeedSequence(seed).generate_state(count * repeats).reshape(repeats, count)
        return [
            Case(
                target=index,
                repeat=repeat,
                snr=float(snr),
                seed=int(seeds[repeat, index]),
                image=self.targets[index],
                start=self._start(int(seeds[repeat, index])),
                max_shift=self.max_shift,
            )
            for snr in snrs
            for repeat in range(repeats)
            for index in range(count)
        ]

    def _start(self, seed: int) -> np.ndarray:
        """U[0, 1] per pixel (Gaussian), or the average of ten training images."""
        rng = np.random.default_rng(seed)
        if self.name == "gaussian":
            return rng.random((self.box_size, self.box_size))
        chosen = rng.choice(len(self.training), min(_DIGITS_IN_START, len(self.training)), replace=False)
        return np.asarray(self.training[chosen].mean(axis=0), dtype=np.float64)


def gaussian_experiment(targets: int = 10, seed: int = 0) -> Experiment:
    """Images N(mu, I) of 5 x 5 pixels, each pixel of mu uniform on {0, 1, 2, 3, 4}; 10,000 of them to train on.

    Args:
        targets: number of targets.
        seed: of mu, the training samples and the targets; the first targets do not depend on ``targets``.
    """
    _check(targets)
    shape = (_GAUSSIAN_BOX, _GAUSSIAN_BOX)
    about, train, test = (np.random.default_rng([seed, stream]) for stream in range(3))
    mean = about.integers(0, 5, shape).astype(np.float64)
    return Experiment(
        name="gaussian",
        source="N(mu, I)",
        targets=mean + test.standard_normal((targets, *shape)),
        training=(mean + train.standard_normal((_GAUSSIAN_SAMPLES, *shape))).astype(np.float32),
        snrs=(1.0, 5.0, 10.0),
        prior=mtd.GaussianPrior(mean, 1.0),
    )


def digit_experiment(targets: int = 10, images: str | Path | None = None) -> Experiment:
    """Handwritten digits, one per class in turn.

    Args:
        targets: number of targets.
        images: .npz file with ``train_images``, ``test_images`` (N, L, L) and ``test_labels`` (N,); the targets are test
            images. None: the procedural glyphs of :mod:`mtdcore.synthetic.glyphs` replace them.

    Raises:
        InputError: the file lacks these arrays, or holds fewer test images than targets.
        StorageError: the file cannot be read.
    """
    _check(targets)
    if images is None:
        training, _ = labelled_glyphs(_GLYPH_TRAINING[0], _GLYPH_BOX, _GLYPH_TRAINING[1])
        test, labels = labelled_glyphs(_GLYPH_TEST[0], _GLYPH_BOX, _GLYPH_TEST[1])
    else:
        training, test = (load_images(images, key=key) for key in ("train_images", "test_images"))
        labels = _labels(Path(images), len(test))
    if len(test) < targets or training.shape[1:] != test.shape[1:]:
        raise InputError(
            f"expected at least {targets} test images of the size of the training images; got {test.shape} to test and "
            f"{training.shape} to train."
        )
    return Experiment(
        name="mnist",
        source="glyphs" if images is None else Path(images).name,
        targets=test[one_per_class(labels, targets)].astype(np.float64),
        training=training,
        snrs=(0.1, 0.5, 1.0),
    )


def pixels_of(simulation: Simulation) -> np.ndarray:
    """(H, W) pixels of the first micrograph."""
    whole = TileGeometry(side=max(simulation.measurement.shape[1:]), unit=1, halo=0, reach=0)
    tile = next(iter(simulation.measurement.tiles(whole)))
    return np.asarray(tile.values)


def one_per_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first image of every class, then the second of every class, and so on: (count,) int64."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank[members] = np.arange(members.sum())
    return np.asarray(np.lexsort((labels, rank))[:count])


def _labels(path: Path, count: int) -> np.ndarray:
    """(count,) labels of the test images."""
    with np.load(path, allow_pickle=False) as archive:  # already validated by load_images
        labels = archive["test_labels"] if "test_labels" in archive.files else None
    if labels is None or labels.shape != (count,):
        raise InputError(f"{path}: expected test_labels of shape ({count},), one per test image.")
    return np.asarray(labels)


def _check(targets: int) -> None:
    if targets < 1:
        raise ParameterError(f"an experiment needs at least one target; got {targets}.")
