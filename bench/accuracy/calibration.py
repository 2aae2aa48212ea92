"""How often the limit of white null runs alone is wrong: false positives on noise alone, true positives by SNR.

    python bench/accuracy/calibration.py gaussian
    python bench/accuracy/calibration.py glyphs
    python bench/accuracy/calibration.py glyphs --no-prior
    python bench/accuracy/calibration.py digits --images MNIST.npz --side 616 --snr 0.05 --signals 100 --iterations 30

Every noise-only measurement is one recovery. The rule is then tried on them: the threshold comes from some of them
at random and judges another one, many times over. Prints rows of a table. The other questions of a
verdict are not asked here: bench/trust/false_positives.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from denoiser_quality import PCAPrior

import mtdcore as mtd
from mtdcore.results.nulls import evidence_threshold, null_measurement

#: Random choices of null runs on which the rule is tried.
TRIALS = 5000


@dataclass(frozen=True)
class Problem:
    """Targets (n, L, L) and their prior; the density is 0.1, as in the paper."""

    targets: np.ndarray
    prior: mtd.Prior | None
    side: int
    iterations: int
    backend: str

    @property
    def box_size(self) -> int:
        return self.targets.shape[-1]

    def noise_std(self, snr: float) -> float:
        return float(np.sqrt(np.square(self.targets).mean() / snr))

    def recovered_evidence(self, measurement, noise_std: float, seed: int) -> float:
        """Nats of one recovery with default settings."""
        engine = mtd.get_backend(self.backend) if self.backend != "cpu" else mtd.get_backend("cpu", threads=1)
        found = mtd.recover(
            measurement,
            box_size=self.box_size,
            noise_std=noise_std,
            prior=self.prior,
            iterations=self.iterations,
            backend=engine,
            seed=seed,
        )
        return found.evidence

    def null(self, noise_std: float, seed: int) -> float:
        shape = np.broadcast_to(np.float32(0), (self.side, self.side))
        return self.recovered_evidence(null_measurement(shape, noise_std, seed), noise_std, seed)

    def signal(self, noise_std: float, seed: int) -> float:
        target = self.targets[seed % len(self.targets)]
        made = mtd.simulate(target, side=self.side, density=0.1, noise_std=noise_std, seed=seed)
        return self.recovered_evidence(made.measurement, noise_std, seed)


def problem(options: argparse.Namespace) -> Problem:
    rng = np.random.default_rng(0)
    if options.problem == "gaussian":
        mean = rng.integers(0, 5, (5, 5)).astype(float)
        targets, prior = mean + rng.normal(size=(200, 5, 5)), mtd.GaussianPrior(mean, 1.0)
    elif options.problem == "glyphs":
        targets = mtd.datasets.glyphs(200, options.box_size, seed=0).astype(float)
        prior = PCAPrior.fit(mtd.datasets.glyphs(2000, options.box_size, seed=1))
    else:
        import mtdbridge

        targets = np.load(options.images)["test_images"][:200] / 255.0
        prior = mtdbridge.load_prior(options.weights)
    side = options.side or 5 * targets.shape[-1] * (1 + (options.problem == "gaussian"))
    return Problem(targets, None if options.no_prior else prior, side, options.iterations, options.backend)


def every(name: str, runs: Iterable[float]) -> np.ndarray:
    """The evidence of all runs; each is told on stderr as it comes, for they take minutes to hours."""
    values = []
    for value in runs:
        values.append(value)
        print(f"{name} {len(values)}: {value:.2f} nats", file=sys.stderr, flush=True)
    return np.array(values)


def rates(null: np.ndarray, signal: np.ndarray, runs: int) -> tuple[float, float, float]:
    """False-positive rate, true-positive rate and median threshold of the rule with this many null runs."""
    rng = np.random.default_rng(0)
    picks = [rng.permutation(len(null))[: runs + 1] for _ in range(TRIALS)]
    thresholds = np.array([evidence_threshold(null[pick[:-1]]) for pick in picks])
    judged = null[[pick[-1] for pick in picks]]
    found = rng.choice(signal, TRIALS) > thresholds if len(signal) else np.array([np.nan])
    return float(np.mean(judged > thresholds)), float(np.mean(found)), float(np.median(thresholds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problem", choices=["gaussian", "glyphs", "digits"])
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    parser.add_argument(
        "--runs", type=int, default=200, help="noise-only measurements at each SNR's noise level"
    )
    parser.add_argument("--signals", type=int, default=40, help="measurements with copies at each SNR")
    parser.add_argument(
        "--null-runs", type=int, nargs="+", default=[2, 4, 8], help="null runs behind a threshold"
    )
    parser.add_argument("--side", type=int, help="default: 5 boxes, 10 for the gaussian problem")
    parser.add_argument("--box-size", type=int, default=14, help="of the glyphs")
    parser.add_argument("--images", help="MNIST.npz with test_images, for the digits")
    parser.add_argument("--weights", default="mnist", help="prior of the digits")
    parser.add_argument("--no-prior", action="store_true")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    case = problem(options)
    name = f"{options.problem}{', no prior' if options.no_prior else ''}, side {case.side}"
    print(
        "| problem | SNR | null nats: mean, sd, max | null runs | threshold | false positives | true positives |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        # In this process for one job: a learned prior on a GPU need not travel.
        each: Callable[..., Iterable[float]] = map if options.jobs == 1 else pool.map
        for snr in options.snr:
            began, noise_std = time.perf_counter(), case.noise_std(snr)
            null = every("noise", each(partial(case.null, noise_std), range(options.runs)))
            signal = every("signal", each(partial(case.signal, noise_std), range(options.signals)))
            for runs in options.null_runs:
                wrong, right, threshold = rates(null, signal, runs)
                print(
                    f"| {name} | {snr:g} | {null.mean():.1f}, {null.std(ddof=1):.1f}, {null.max():.1f} | {runs} "
                    f"| {threshold:.0f} | {100 * wrong:.2f} % | {100 * right:.1f} % |"
                )
            print(f"<!-- {time.perf_counter() - began:.0f} s -->", flush=True)


if __name__ == "__main__":
    main()
