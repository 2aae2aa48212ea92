"""How many true pixels the 90 % intervals of the posterior draws hold (docs/trust.md), in the frame of the truth.

python bench/accuracy/intervals.py gaussian                             # box 5, side 11 L, 30 targets, SNR 1 and 5
python bench/accuracy/intervals.py mnist.npz --snr 1 0.1 --targets 4    # test digits, shipped prior
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import ndimage

import mtdcore as mtd
from mtdcore.results.chains import posterior_chains
from mtdcore.results.metrics import align, forgiven_shift
from mtdcore.results.uncertainty import PosteriorSamples, average_level, posterior_samples, unbiased_average

PROBABILITY, DRAWS = 0.9, {5: 400, 28: 64}

#: What the draws are from. Chains give half as many, three iterations apart.
WAYS = ("the average", "the unbiased average", "chains")


def gaussians(count: int) -> list[tuple[np.ndarray, mtd.Prior]]:
    """Targets N(mu, I) of 5 x 5 pixels with their exact prior."""
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        mean = rng.integers(0, 5, (5, 5)).astype(float)
        made.append((mean + rng.normal(size=(5, 5)), mtd.GaussianPrior(mean, 1.0)))
    return made


def digits(path: str, count: int) -> list[tuple[np.ndarray, mtd.Prior]]:
    """The first test image of the classes 2, 3, 5, 7, ... (none looks like itself upside down), shipped prior."""
    from mtdbridge import load_prior

    with np.load(path) as data:
        labels, images = data["test_labels"], data["test_images"] / 255.0
    prior = load_prior("mnist")
    return [(images[np.flatnonzero(labels == d)[0]], prior) for d in (2, 3, 5, 7, 4, 6, 9)[:count]]


def held(target: np.ndarray, prior: mtd.Prior, snr: float, seed: int, chains: int) -> np.ndarray:
    """(3, 4) of each of :data:`WAYS` the percentage of all pixels inside their interval, of those within a pixel of a bright one, R-hat, and the number of
    independent draws that the draws are worth; nan: not tried."""
    side = len(target)
    made = mtd.simulate(target, side=11 * side, density=0.1, snr=snr, seed=seed)
    options = dict(box_size=side, noise_std=made.noise_std, prior=prior)
    found = mtd.recover(made.measurement, initial=_start(prior), **options)
    known = found.in_units(prior)
    averages = (found.aligned_average, average_level(found)), unbiased_average(made.measurement, found)
    ways = [posterior_samples(*average, known, DRAWS[side], seed) for average in averages]
    if chains:
        each = DRAWS[side] // (2 * chains)
        ways.append(posterior_chains(made.measurement, found, chains, each, thin=3, seed=seed, **options))
    numbers = np.full((len(WAYS), 4), np.nan)
    for row, draws in zip(numbers, ways, strict=False):
        row[:] = *_inside(draws, target), draws.r_hat.mean(), draws.effective_size.mean()
    return numbers


def _inside(draws: PosteriorSamples, target: np.ndarray) -> tuple[float, float]:
    frame = align(draws.mean, target, rotations=4, max_shift=forgiven_shift(len(target)))
    turned = np.rot90(draws.images, frame.rotation, axes=(1, 2))
    inside = PosteriorSamples(ndimage.shift(turned, (0, *frame.shift), order=0))
    low, high = inside.interval(PROBABILITY)
    hit = (low <= target) & (target <= high)
    near = ndimage.maximum_filter(target, 3) > 0.1
    return 100 * float(hit.mean()), 100 * float(hit[near].mean())


def _start(prior: mtd.Prior) -> np.ndarray | None:
    """The mean of a Gaussian prior, which fixes the frame; the default otherwise."""
    return np.asarray(prior.mean) if isinstance(prior, mtd.GaussianPrior) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help=".npz with test_images and test_labels, or gaussian")
    parser.add_argument("--snr", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--targets", type=int, help="default: 30 Gaussian ones, or 4 digits")
    parser.add_argument("--chains", type=int, default=4, help="chains of a target; 0: none")
    options = parser.parse_args()
    if options.images == "gaussian":
        problems = gaussians(options.targets or 30)
    else:
        problems = digits(options.images, options.targets or 4)
    for snr in options.snr:
        each = np.array([held(*problem, snr, seed, options.chains) for seed, problem in enumerate(problems)])
        mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))
        for way, (every, bright, r_hat, size), (about, near, *_) in zip(WAYS, mean, error, strict=True):
            print(
                f"SNR {snr:g}, draws from {way}: {every:.1f} +- {about:.1f} % of the pixels, {bright:.1f} +- {near:.1f} % of those near bright ones; "
                f"R-hat {r_hat:.3f}, worth {size:.0f} draws",
                flush=True,
            )


if __name__ == "__main__":
    main()
