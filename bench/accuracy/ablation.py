"""What each choice of the default recovery is worth: the table "What makes it robust" of docs/accuracy.md.

    python bench/accuracy/ablation.py mnist.npz                                              # SNR 0.1, side 11 L
    python bench/accuracy/ablation.py mnist.npz --snr 0.03 --boxes 44 --only default "plain EM" "four starts"
    python bench/accuracy/ablation.py gaussian --snr 5 --only default "temperature 1"

Targets are MNIST *training* images that the shipped prior has not seen (the last 5,000), so that no choice is made on the
test digits; one measurement each. Gaussian: N(mu, I), box 5, exact prior, uniform start.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import mtdcore as mtd
from mtdcore.model.likelihood import window
from mtdcore.results.metrics import forgiven_shift

UNSEEN = 55_000  # first training image that the shipped prior has not seen


@dataclass(frozen=True)
class Choice:
    """One departure from the default.

    Attributes:
        options: of :func:`mtdcore.recover`.
        separation: smallest distance of two copies in boxes.
        tied_patches: the patch model with a learned probability of empty patches.
        count_floor: share of its start that the count keeps during the first half.
    """

    options: dict[str, Any] = field(default_factory=dict)
    separation: int = 2
    tied_patches: bool = False
    count_floor: float = window.FLOOR


CHOICES = {
    "default": Choice(),
    "plain EM": Choice({"update": mtd.DenoisingUpdate(relaxation=1.0)}),
    "four starts": Choice({"starts": 4}),
    "one start": Choice({"starts": 1}),
    "uniform start": Choice({"initial": "uniform", "temperature": "auto"}),
    "temperature 4": Choice({"temperature": 4.0}),
    "temperature 1": Choice({"temperature": 1.0}),
    "no count floor": Choice(count_floor=0.0),
    "no gauge": Choice({"gauge": None}),
    "copies may touch": Choice(separation=1),
    "patches": Choice(tied_patches=True),
    "patches, copies may touch": Choice(separation=1, tied_patches=True),
}


@dataclass(frozen=True)
class Problem:
    """A target (L, L), its prior, and how the default run starts."""

    target: np.ndarray
    prior: mtd.Prior
    options: dict[str, Any]

    def errors(self, choice: Choice, snr: float, boxes: int, seed: int) -> tuple[float, float]:
        """E and E_s of one recovery."""
        side = len(self.target)
        made = mtd.simulate(
            self.target, side=boxes * side, density=0.1, snr=snr, separation=choice.separation, seed=seed
        )
        options = {**self.options, **choice.options}
        if choice.tied_patches:
            options["likelihood"] = mtd.PatchLikelihood(mtd.Rotations(4, side), made.noise_std, 0.5)
        with _count_floor(choice.count_floor):
            found = mtd.recover(
                made.measurement,
                box_size=side,
                noise_std=made.noise_std,
                prior=self.prior,
                seed=seed,
                **options,
            )
        shifts = (0, forgiven_shift(side))
        without, free = (mtd.relative_error(found.target, self.target, max_shift=s) for s in shifts)
        return without, free


@contextmanager
def _count_floor(share: float) -> Iterator[None]:
    before, window.FLOOR = window.FLOOR, share  # type: ignore[misc]
    try:
        yield
    finally:
        window.FLOOR = before  # type: ignore[misc]


def digits(path: str, count: int) -> list[Problem]:
    """The first unseen training images of the classes 0, 1, 2, ..."""
    from mtdbridge import load_prior

    with np.load(path) as data:
        labels, images = (data[f"train_{name}"][UNSEEN:] for name in ("labels", "images"))
    prior = load_prior("mnist")
    return [Problem(images[np.flatnonzero(labels == d)[0]] / 255.0, prior, {}) for d in range(count)]


def gaussians(count: int) -> list[Problem]:
    """Targets N(mu, I) with the exact prior."""
    problems = []
    for seed in range(1000, 1000 + count):
        rng = np.random.default_rng(seed)
        mean = rng.integers(0, 5, (5, 5)).astype(float)
        uniform = {"initial": "uniform", "temperature": "auto"}
        problems.append(Problem(mean + rng.normal(size=(5, 5)), mtd.GaussianPrior(mean, 1.0), uniform))
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help=".npz with train_images and train_labels, or gaussian")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--boxes", type=int, default=11)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    options = parser.parse_args()
    gaussian = options.images == "gaussian"
    problems = gaussians(options.targets) if gaussian else digits(options.images, options.targets)
    print(f"SNR {options.snr:g}, side {options.boxes} L, {len(problems)} targets, one measurement each")
    print("| choice | mean E | mean E_s | E_s above 0.25 | E_s of each |\n|---|---|---|---|---|", flush=True)
    for name in options.only:
        found = np.array(
            [p.errors(CHOICES[name], options.snr, options.boxes, 500 + i) for i, p in enumerate(problems)]
        )
        each = " ".join(f"{error:.2f}" for error in found[:, 1])
        print(
            f"| {name} | {found[:, 0].mean():.3f} | {found[:, 1].mean():.3f} | {int((found[:, 1] > 0.25).sum())} | {each} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
