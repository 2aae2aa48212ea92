"""The clock of the prior: length of denoising steps by the information that poses leave, beside the fixed one of the default.

    python bench/accuracy/clock.py mnist.npz                                                       # SNR 0.1, side 11 L, ten digits, three measurements each
    python bench/accuracy/clock.py mnist.npz --snr 0.05 --boxes 44 --targets 5 --only fixed "clock, at most 2" "draws first"

Where poses are in doubt a copy tells a share a of what it would with its pose known; ``a = sum w^2 / sum w`` over the posterior weights w
of all poses (Louis 1982). The step ``F + (y - F) / a``, denoised at ``s / sqrt(a)``, is then what data and prior make of it at once. Here a is that of a part of the measurement
at each target, and the step at most 2 or 4 times that of EM, in all iterations: as poses become clear a tends to 1, and the step to that of EM. The default steps are 2 in
the first 60 % of the iterations, then 1. Targets are training digits that the shipped prior has not seen.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ablation import digits

import mtdcore as mtd
from mtdcore._base.typing import Array
from mtdcore.data import Measurement, open_measurement
from mtdcore.estep.posteriors import posteriors
from mtdcore.estep.statistics import Statistics
from mtdcore.model.priors import denoise
from mtdcore.results.metrics import forgiven_shift

#: Parts of the measurement, one of which tells a.
_PARTS = 8


@dataclass(frozen=True)
class Clock(mtd.DenoisingUpdate):
    """Steps of length ``min(1 / a, most)``.

    Attributes:
        measurement: that a is read from.
        box_size: of the target.
        most: longest step, in those of EM.
    """

    measurement: Measurement | None = None
    box_size: int = 28
    most: float = 2.0

    def share(self, target: Array, statistics: Statistics) -> float:
        """a at a target, between 0 and 1; 1 where there are no copies."""
        assert self.measurement is not None
        model = mtd.WindowLikelihood(
            mtd.Rotations(4, self.box_size), statistics.noise_std, max(statistics.expected_count, 1e-3)
        )
        bound = model.bind(self.measurement.shape)
        part = self.measurement.split(min(_PARTS, self.measurement.tile_count(bound.geometry)))[0]
        whole = squares = 0.0
        for _, weights in posteriors(part, np.asarray(target), bound, mtd.get_backend("cpu", threads=1)):
            each = np.asarray(weights, np.float64)
            whole, squares = whole + each.sum(), squares + np.square(each).sum()
        return squares / whole if whole > 0.0 else 1.0

    def __call__(
        self, target: Array, statistics: Statistics, prior: mtd.Prior, iteration: int, iterations: int
    ) -> Array:
        """See :class:`mtdcore.mstep.updates.Update`."""
        if statistics.normal.bound <= 0.0:
            return target
        longer = min(1.0 / max(self.share(target, statistics), 1e-3), self.most)
        variance = longer * statistics.noise_std**2 / statistics.normal.bound
        moved = target + variance * statistics.gradient(target)
        return denoise(prior, moved[None, ...], math.sqrt(variance))[0, ...]


CHOICES: dict[str, mtd.DenoisingUpdate] = {
    "fixed": mtd.DenoisingUpdate(),
    "clock, at most 2": Clock(most=2.0),
    "clock, at most 4": Clock(most=4.0),
    "draws first": mtd.AnnealedUpdate(),
}


def run(target: np.ndarray, prior: mtd.Prior, update: Any, snr: float, boxes: int, seed: int) -> list[float]:
    """E_s, nats, the iterations after which the evidence stays within 2 % of that of the end, and seconds of CPU."""
    side = len(target)
    made = mtd.simulate(target, side=boxes * side, density=0.1, snr=snr, seed=seed)
    if isinstance(update, Clock):
        update = replace(update, measurement=open_measurement(made.measurement), box_size=side)
    began = time.process_time()
    found = mtd.recover(
        made.measurement, box_size=side, noise_std=made.noise_std, prior=prior, seed=seed, update=update
    )
    spent = time.process_time() - began
    nats = np.array([record.objective for record in found.history])
    away = np.flatnonzero(np.abs(nats - nats[-1]) > 0.02 * abs(nats[-1]))
    error = mtd.relative_error(found.target, target, max_shift=forgiven_shift(side))
    return [error, found.evidence, float(away[-1] + 1 if len(away) else 0), spent]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help=".npz with train_images and train_labels")
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--boxes", type=int, default=11)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--measurements", type=int, default=3, help="of each target")
    parser.add_argument("--only", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    options = parser.parse_args()
    print(
        "SNR, side, choice: E_s mean, by measurement; lost (above .25); nats; iterations to 2 %; CPU seconds"
    )
    problems = digits(options.images, options.targets)
    rows: dict[str, list[list[list[float]]]] = {name: [] for name in options.only}
    for again in range(options.measurements):
        for name, found in rows.items():
            found.append(
                [
                    run(p.target, p.prior, CHOICES[name], options.snr, options.boxes, 500 + i + 100 * again)
                    for i, p in enumerate(problems)
                ]
            )
            each = np.array(found)
            errors = each[..., 0]
            by = " ".join(f"{e:.3f}" for e in errors.mean(axis=1))
            print(
                f"{options.snr:g}, {options.boxes} L, {name}: {errors.mean():.3f} ({by}); {int((errors > 0.25).sum())} of {errors.size}; "
                f"{each[..., 1].mean():.0f}; {each[..., 2].mean():.0f}; {each[..., 3].mean():.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
