"""Volumes straight from simulated micrographs: cold start beside known poses, with J.

    python bench/accuracy/volumes.py chain --box 16 --snr 1 --copies 300 --seeds 0 1
    python bench/accuracy/volumes.py phantom --box 11 --snr 1 --copies 1000
    python bench/accuracy/volumes.py path/to/proteins.npz --box 24 --snr 0.1 --copies 1000 --objects 0 1
    python bench/accuracy/volumes.py chain --box 16 --snr 1 --copies 304 --seeds 0 1 --noise-ratio 2 --learn-noise [--each]
    python bench/accuracy/volumes.py path/to/proteins.npz --box 32 --snr 0.3 --copies 304 --prior proteins-3d --device cuda --objects 0 1 2 3 --jobs 4
    python bench/accuracy/volumes.py path/to/proteins.npz --box 24 --snr 0.1 --copies 600 --objects 3hsy --seeds 0 1
    python bench/accuracy/volumes.py path/to/proteins.npz --split 1 --box 16 --snr 0.6 --copies 304 --objects 0 1 3 --draws 50

A row is printed as soon as it is done. On a GPU several at once (``--jobs``) share the device while each keeps a core with templates and M-steps.

Proteins have 250 to 400 residues and are of the test part; choices are made on ``--split 1``, the validation part. *Shape* is the correlation of what is not spherically symmetric,
after alignment over rotation, shift and hand. The oracle knows the poses and uses the same M-step. ``--unknown-poses`` estimates what
the copies tell when their poses are not known: where that is far below the oracle, the oracle's level cannot be asked for.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtdcore.data import open_measurement
from mtdcore.em.volumes.plan import VolumePlan, default_separation, last_band
from mtdcore.em.volumes.recover import recover_volume
from mtdcore.estep.backends import Backend, get_backend
from mtdcore.estep.volumes.expectation import volume_e_step
from mtdcore.estep.volumes.statistics import VolumeStatistics
from mtdcore.estep.volumes.templates import Search
from mtdcore.model.likelihood import WindowLikelihood
from mtdcore.model.shifts import moved
from mtdcore.model.volumes.grids import ball, filtered, low_passed, radii, shell_mean
from mtdcore.model.volumes.projections import Projections
from mtdcore.mstep.volumes import VolumeUpdate
from mtdcore.results.volumes import (
    VolumeDraws,
    align_volumes,
    fourier_shell_correlation,
    halves_of,
    omit_test,
    orientation_information,
    posterior_volumes,
    shape_correlation,
    volume_halves,
)
from mtdcore.synthetic.particles import VolumeSimulation, simulate_volume
from mtdcore.synthetic.volumes import Gaussians, chain


def protein(archive: Path, which: str, side: int, split: int) -> Gaussians:
    """The so-many-th protein of a part, or the one of this name, 0.4 boxes in radius, Gaussians of 0.055 boxes."""
    with np.load(archive, allow_pickle=False) as data:
        size = data["n_residues"]
        fits = (data["split"] == split) & (size >= 250) & (size <= 400) & ~data["trace"]
        chosen = np.flatnonzero(fits)[int(which)] if which.isdigit() else list(data["name"]).index(which)
        i = int(chosen)
        cut = slice(int(data["offset"][i]), int(data["offset"][i + 1]))
        places, weights = data["xyz"][cut].astype(float), data["weight"][cut].astype(float)
    places = places - weights @ places / weights.sum()
    return Gaussians.of(places * (0.4 * side / np.linalg.norm(places, axis=1).max()), 0.055 * side, weights)


#: Of ellipsoids as in the head phantom of Shepp and Logan (1974), made three-dimensional: density, half axes and centre (x, y, z) in boxes, turn about z.
_HEAD = (
    (1.0, (0.31, 0.41, 0.36), (0.0, 0.0, 0.0), 0.0),
    (-0.6, (0.28, 0.37, 0.33), (0.0, -0.008, 0.0), 0.0),
    (-0.3, (0.05, 0.14, 0.10), (0.10, 0.0, 0.0), -18.0),
    (-0.3, (0.07, 0.18, 0.13), (-0.10, 0.0, 0.0), 18.0),
    (0.4, (0.09, 0.11, 0.18), (0.0, 0.16, 0.05), 0.0),
    (0.5, (0.06, 0.06, 0.06), (0.0, 0.05, -0.12), 0.0),
    (0.6, (0.06, 0.05, 0.08), (0.02, -0.26, 0.08), 0.0),
)


def phantom(side: int, fine: int = 6) -> np.ndarray:
    """(L, L, L) means over voxels of ellipsoids in a larger one, each cut into ``fine``^3."""
    line = ((np.arange(side * fine) + 0.5) / fine - 0.5 - side // 2) / side
    z, y, x = np.meshgrid(line, line, line, indexing="ij", sparse=True)
    volume = np.zeros((side * fine,) * 3)
    for density, (a, b, c), (at_x, at_y, at_z), turn in _HEAD:
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        u, v = (x - at_x) * cosine + (y - at_y) * sine, (y - at_y) * cosine - (x - at_x) * sine
        volume += density * ((u / a) ** 2 + (v / b) ** 2 + ((z - at_z) / c) ** 2 <= 1.0)
    return volume.reshape(side, fine, side, fine, side, fine).mean(axis=(1, 3, 5))


def known_poses(
    made: VolumeSimulation, side: int, band: float, noise: np.ndarray | None = None
) -> np.ndarray:
    """The volume that the M-step makes of copies cut out at their places, with their rotations and amplitudes and the noise of their micrographs."""
    corners = np.rint(made.positions).astype(int)
    images = np.array([made.pixels[m, r : r + side, c : c + side] for m, r, c in corners], np.float64)
    images = moved(images, (corners - made.positions)[:, 1:])
    strength = np.ones(len(images)) if made.amplitudes is None else made.amplitudes
    views = Projections(side, made.rotations, band=band)
    weight = np.ones(len(images)) if noise is None else noise[corners[:, 0]] ** -2.0
    right = views.adjoint((weight * strength)[:, None, None] * images)
    normal = views.normal(weight * strength**2)
    volume, spectrum = 1e-3 * np.exp(-(radii(side) ** 2) / (2 * (0.2 * side) ** 2)), None
    for _ in range(4):
        volume, spectrum = VolumeUpdate(rounds=3)(volume, right, normal, made.noise_std, band, spectrum)
    return volume


def unknown_poses(
    made: VolumeSimulation, side: int, band: float, backend: Backend, draws: int = 4
) -> tuple[list[float], float]:
    """Share of the information that unknown poses leave in each shell, and the shape to expect of it.

    The share is the response of the gradient of Q to a step d of the size of the noise, ``-<d, g(V + d) - g(V)> / <d, N d>`` at the
    truth V, ``g = b - N V``: observed over complete information (Louis 1982). The shape is that of a Wiener filter that knows the spectrum, at the
    noise ``sigma^2 / (share N)``: linear, from one random step, and no bound, since the envelope of an object tells more than its spectrum.
    """
    views = Projections(side, 1200, band=band).turned(1)
    model = WindowLikelihood(views, made.noise_std, float(len(made.positions)), default_separation(side))

    def seen(volume: np.ndarray) -> VolumeStatistics:
        return volume_e_step(open_measurement(made.pixels), volume, model, Search(views), backend)

    def shared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return shell_mean((np.fft.rfftn(first) * np.fft.rfftn(second).conj()).real, side)

    rng, truth, there = np.random.default_rng(0), made.volume, seen(made.volume)
    shells = np.arange(len(there.normal.shell_weights)) <= band * side + 1e-6
    noise = np.where(shells, made.noise_std**2 / np.maximum(there.normal.shell_weights, 1e-9), 0.0)
    step = filtered(rng.standard_normal(truth.shape) * ball(side), np.sqrt(noise)) * ball(side)
    near = seen(truth + step)
    turn = near.right - near.normal(truth + step) - there.right + there.normal(truth)
    share = np.where(shells, -shared(step, turn) / shared(step, there.normal(step)), 1.0)
    noise, power = noise / np.maximum(share, 0.02), shared(truth, truth) / side**3
    gain = np.where(shells, power / (power + noise), 0.0)
    found = []
    for _ in range(draws):
        noisy = truth + filtered(rng.standard_normal(truth.shape), np.sqrt(noise)) * ball(side)
        found.append(shape_correlation(filtered(noisy, gain) * ball(side), truth))
    return [round(float(a), 2) for a in share[shells]], round(float(np.mean(found)), 3)


def scores(volume: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """Of a volume after alignment."""
    aligned = align_volumes(volume, truth)
    curve = fourier_shell_correlation(aligned.volume * ball(len(truth)), truth)
    return {
        "correlation": round(aligned.correlation, 3),
        "shape": round(shape_correlation(aligned.volume, truth), 3),
        "squared_error": round(float(np.sum((aligned.volume - truth) ** 2) / np.sum(truth**2)), 4),
        "fsc": [round(float(c), 2) for c in curve.correlation],
    }


def intervals(drawn: VolumeDraws, truth: np.ndarray, band: float) -> dict[str, float]:
    """Share of the voxels whose truth lies in the 90 % intervals of draws: in the ball, and where it is above a fifth of its largest.

    The truth is brought to the mean of the draws, and has their band. Beside it: error of that mean, and mean standard deviation, both as root
    mean squares over the ball, in units of the largest density.
    """
    mean, inside = drawn.mean, drawn.support > 0.5
    there = low_passed(align_volumes(truth, mean).volume, band) * drawn.support
    low, high = drawn.interval(0.9)
    within, top = (low <= there) & (there <= high), float(there.max())
    return {
        "inside": round(float(within[inside].mean()), 3),
        "dense": round(float(within[inside & (there > 0.2 * top)].mean()), 3),
        "error": round(float(np.sqrt(np.mean((mean - there)[inside] ** 2))) / top, 4),
        "spread": round(float(np.sqrt(np.mean(drawn.std[inside] ** 2))) / top, 4),
        "shape": round(shape_correlation(mean, there), 3),
        "effective": round(drawn.effective, 1),
        "clear": round(drawn.clear, 3),
    }


def row_of(options: argparse.Namespace, which: str, seed: int) -> dict[str, object]:
    """What one recovery came to, beside its oracle."""
    side, prior, backend = options.box, None, get_backend(options.device)
    if options.prior is not None:
        import mtdbridge

        prior = mtdbridge.load_prior(options.prior, box_size=side)
    thing: np.ndarray | Gaussians
    if options.what == "chain":
        thing = chain(side, int(which))
    elif options.what == "phantom":
        thing = phantom(side)
    else:
        thing = protein(Path(options.what), which, side, options.split)
    made = simulate_volume(
        thing,
        box_size=side,
        count=options.copies // 8,
        micrographs=8,
        snr=options.snr,
        subpixel=options.subpixel,
        amplitude_std=options.amplitude_std,
        seed=seed,
    )
    noise = np.where(np.arange(8) % 2, options.noise_ratio, 1.0)
    more = made.noise_std * np.sqrt(noise**2 - 1.0)[:, None, None]
    pixels = made.pixels + more * np.random.default_rng([seed, 8]).standard_normal(made.pixels.shape)
    made = replace(made, pixels=pixels.astype(np.float32))
    row: dict[str, object] = {
        "box": side,
        "snr": options.snr,
        "copies": len(made.positions),
        "megapixels": round(made.pixels.size / 1e6, 2),
        "object": which,
        "seed": seed,
        "prior": options.prior,
        "device": backend.name,
        "J": round(orientation_information(made.volume, made.noise_std), 2),
    }
    given = {
        "box_size": side,
        "noise_std": "auto" if options.learn_noise else made.noise_std,
        "prior": prior,
        "amplitude_std": "auto" if options.learn_amplitudes else 0.0,
        "each": options.each,
        "seed": seed,
        "backend": backend,
    }
    began, used = time.perf_counter(), time.process_time()
    found = recover_volume(made.pixels, iterations=options.iterations, subpixel=options.half_pixels, **given)
    row |= {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "amplitude_std": round(found.amplitude_std, 3),
        "evidence": round(found.evidence),
        "expected_count": round(found.expected_count, 1),
        **scores(found.volume, made.volume),
        "oracle": (known := scores(known_poses(made, side, last_band(side), noise), made.volume))["shape"],
        "oracle_squared_error": known["squared_error"],
    }
    for poses in ("open", "held") if options.draws else ():
        start = time.perf_counter()
        drawn = posterior_volumes(
            made.pixels, found, options.draws, prior=prior, poses=poses, seed=seed, backend=backend
        )
        row[f"draws_{poses}"] = {
            **intervals(drawn, made.volume, found.plan.last_band),
            "seconds": round(time.perf_counter() - start, 1),
        }
    if options.omit:
        source = open_measurement(made.pixels)
        half = volume_halves(source, found, prior=prior, backend=backend).runs[0]
        there = align_volumes(made.volume, half.volume).volume
        row["omit"] = [
            {
                "amplitude": round(one.amplitude, 3),
                "error": round(one.error, 3),
                "true": round(
                    1.0 + float(np.vdot(one.part, there - half.seen) / np.vdot(one.part, one.part)), 3
                ),
            }
            for one in omit_test(halves_of(source)[1], half, options.omit, backend)
        ]
    if found.micrographs is not None:
        levels = found.noise_std * found.micrographs.noise_ratio / made.noise_std
        counts = found.expected_count * found.micrographs.count_share
        row |= {"levels": levels.round(3).tolist(), "counts": counts.round(1).tolist()}
    if options.unknown_poses:
        share, left = unknown_poses(made, side, last_band(side), backend)
        row |= {"information": share, "unknown_poses": left}
    if options.from_truth:
        band = last_band(side)
        late = VolumePlan(
            side,
            iterations=30,
            first_band=band,
            last_band=band,
            first_views=1200,
            cooling=0.0,
            whole=0.3,
            subpixel=options.half_pixels,
        )
        best = recover_volume(made.pixels, plan=late, initial=made.volume, **given)
        row |= {
            "from_truth": scores(best.volume, made.volume)["shape"],
            "evidence_from_truth": round(best.evidence),
        }
    return row


def _alone(jobs: int) -> None:
    """Leave the other jobs their cores."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        share = max(1, len(mine) // jobs)
        first = os.getpid() % jobs * share % len(mine)
        os.sched_setaffinity(0, mine[first : first + share])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="'chain', 'phantom', or the archive of proteins")
    parser.add_argument("--box", type=int, default=16)
    parser.add_argument("--snr", type=float, default=1.0)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument(
        "--objects",
        nargs="+",
        default=["0"],
        help="numbers of chains or of proteins of the part, or names of proteins",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", type=int, default=2, help="part of the archive: 1 validation, 2 test")
    parser.add_argument("--prior", help="learned prior over volumes, as of mtd recover --volume --prior")
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:i]")
    parser.add_argument("--learn-noise", action="store_true", help="do not tell the noise level")
    parser.add_argument("--noise-ratio", type=float, default=1.0, help="of every other micrograph")
    parser.add_argument("--each", action="store_true", help="recover with each")
    parser.add_argument("--subpixel", action="store_true", help="copies lie between pixels")
    parser.add_argument("--amplitude-std", type=float, default=0.0, help="spread of their amplitudes")
    parser.add_argument("--half-pixels", action="store_true", help="recover with subpixel")
    parser.add_argument("--learn-amplitudes", action="store_true", help="recover with amplitude_std auto")
    parser.add_argument("--from-truth", action="store_true", help="also EM started from the truth")
    parser.add_argument(
        "--omit",
        type=int,
        metavar="N",
        help="also the omit test of N parts of the first half's volume in the second, beside what the truth has of each",
    )
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="also N draws from the posterior, with the poses open and with those of the run, beside the truth",
    )
    parser.add_argument("--unknown-poses", action="store_true", help="also what they leave")
    parser.add_argument("--jobs", type=int, default=1, help="rows made at once, a process each")
    options = parser.parse_args()
    wanted = [(options, which, seed) for which in options.objects for seed in options.seeds]
    if options.jobs == 1:
        for one in wanted:
            print(json.dumps(row_of(*one)), flush=True)
        return
    # not forked: a device cannot be used on both sides of a fork
    with ProcessPoolExecutor(
        options.jobs, multiprocessing.get_context("spawn"), _alone, (options.jobs,)
    ) as pool:
        for done in as_completed([pool.submit(row_of, *one) for one in wanted]):
            print(json.dumps(done.result()), flush=True)


if __name__ == "__main__":
    main()
