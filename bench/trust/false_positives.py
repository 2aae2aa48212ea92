"""How often the verdict is wrong: fourteen kinds of noise without copies, and digits in white noise, through the command line.

::

    python bench/trust/false_positives.py noise --seeds 20                    # no prior, boxes of 16
    python bench/trust/false_positives.py noise --seeds 20 --prior mnist      # boxes of 28
    python bench/trust/false_positives.py noise --volume --seeds 3             # mtd recover --volume, boxes of 16
    python bench/trust/false_positives.py digits --snr 0.1 --side 308 --images mnist.npz

Every case is ``mtd import``, ``mtd recover`` and ``mtd trust`` in this process (``--route raw``: without ``mtd import``). Results are kept
case by case in a JSON file: the same command goes on where it was stopped. Prints a table of false and true positives.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

import mtdcore as mtd
from mtdcli.main import main as command_line

RESULTS = Path(__file__).parents[1] / "results" / "trust.json"


def white(rng: np.random.Generator, side: int) -> np.ndarray:
    """(H, W) of standard deviation 1."""
    return rng.normal(size=(side, side))


def pink(rng: np.random.Generator, side: int, power: float = 1.0) -> np.ndarray:
    """Amplitudes as 1/f^power, standard deviation 1, not periodic."""
    f = np.hypot(np.fft.fftfreq(2 * side)[:, None], np.fft.fftfreq(2 * side))
    f[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(2 * side, 2 * side))) / f**power).real[:side, :side]
    return np.asarray((field - field.mean()) / field.std())


def ramp(side: int) -> np.ndarray:
    """A linear gradient of standard deviation 1, along a diagonal."""
    line = np.add.outer(np.arange(side), 0.5 * np.arange(side))
    return np.asarray((line - line.mean()) / line.std())


def blurred(rng: np.random.Generator, side: int, width: float) -> np.ndarray:
    """White noise through a Gaussian of this standard deviation in pixels, brought to 1."""
    field = gaussian_filter(white(rng, side), width)
    return np.asarray(field / field.std())


def _offset(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.rint(1000.0 + 30.0 * white(rng, side)).astype(np.uint16)


def _vignette(rng: np.random.Generator, side: int) -> np.ndarray:
    """Counts under a lamp that falls off by 30 % to the corners, and their noise with it."""
    line = np.linspace(-1.0, 1.0, side)
    lamp = 1.0 - 0.15 * np.add.outer(line**2, line**2)
    return np.asarray(lamp * (100.0 + 10.0 * white(rng, side)))


def _lattice(rng: np.random.Generator, side: int) -> np.ndarray:
    """Two plane waves of .3 standard deviations."""
    rows, columns = np.mgrid[:side, :side]
    waves = [
        np.cos(2 * np.pi * (rows * a + columns * b) + rng.uniform(0, 6.28))
        for a, b in ((0.131, 0.05), (-0.05, 0.131))
    ]
    return white(rng, side) + 0.3 * np.sqrt(2.0) * np.sum(waves, axis=0)


def _hot_rows(rng: np.random.Generator, side: int) -> np.ndarray:
    """Three rows that read 3 standard deviations too much."""
    image = white(rng, side)
    image[rng.choice(side, 3, replace=False)] += 3.0
    return image


def _unequal(rng: np.random.Generator, side: int) -> np.ndarray:
    """Two micrographs with the area of one, the second twice as noisy."""
    half = max(side * 5 // 7, 48)
    return np.stack([white(rng, half), 2.0 * white(rng, half)])


def _ice(rng: np.random.Generator, side: int) -> np.ndarray:
    """Pink noise, a gradient, and a blur of the rest, as ice without particles."""
    return 0.7 * blurred(rng, side, 0.5) + 0.5 * pink(rng, side) + 0.5 * ramp(side)


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "white": white,
    "row stripes .3": lambda rng, side: white(rng, side) + 0.3 * rng.normal(size=(side, 1)),
    "column stripes .3": lambda rng, side: white(rng, side) + 0.3 * rng.normal(size=(1, side)),
    "blur .5 px": lambda rng, side: blurred(rng, side, 0.5),
    "white + .3 pink": lambda rng, side: white(rng, side) + 0.3 * pink(rng, side),
    "1/f": lambda rng, side: pink(rng, side),
    "gradient 1": lambda rng, side: white(rng, side) + ramp(side),
    "counts 1000 +- 30": _offset,
    "vignette": _vignette,
    "lattice .3": _lattice,
    "t4 tails": lambda rng, side: rng.standard_t(4, size=(side, side)),
    "hot rows": _hot_rows,
    "unequal micrographs": _unequal,
    "ice": _ice,
}


def run(*words: object) -> str:
    """One command line in this process; what it printed on stdout."""
    result = CliRunner().invoke(command_line, [str(word) for word in words], catch_exceptions=False)
    if result.exit_code:
        raise RuntimeError(f"mtd {' '.join(map(str, words))}: {result.output}")
    return result.stdout


def judged(
    pixels: np.ndarray,
    route: str,
    options: list[object],
    null_runs: int,
    volume: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """The verdict on a measurement by the command line."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, imported, output = (Path(folder) / name for name in ("noise.npy", "noise.zarr", "run"))
        np.save(source, pixels if pixels.dtype == np.uint16 else pixels.astype(np.float32))
        if route == "import":
            run("import", source, "-o", imported)
        taken = imported if route == "import" else source
        if volume:
            judging = ("--volume", "--device", device, "--trust", null_runs, "--no-halves", "--json")
            found = json.loads(run("recover", taken, "-o", output, *options, *judging))
            found["evidence_nats"] = found["evidence"]
        else:
            common = ("--device", device, "--threads", 1)
            run("recover", taken, "-o", output, *options, *common)
            found = json.loads(
                run("trust", output, "--null-runs", null_runs, "--no-halves", *common, "--json")
            )
    kept = (
        "verdict", "supported", "evidence_nats", "null_evidence", "threshold", "held_out_evidence_nats", "other_start_evidence_nats",
        "verdict_seconds", "verdict_in_recoveries",
    )  # fmt: skip
    return {name: found[name] for name in kept if name in found} | {"seconds": time.perf_counter() - began}


def digits(options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Measurements with copies of one digit each, by name."""
    images = np.load(options.images)["test_images"] / 255.0

    def made(seed: int) -> np.ndarray:
        image = images[seed]
        noise_std = float(np.sqrt(np.square(image).mean() / options.snr))
        one = mtd.simulate(image, side=options.side, density=0.1, noise_std=noise_std, seed=seed)
        return np.asarray(one.measurement)

    return {
        f"digits {options.snr:g}, side {options.side}/{seed}": lambda seed=seed: made(seed)
        for seed in range(options.first, options.seeds)
    }


def noises(options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Measurements without copies, by kind and seed, seed by seed."""
    return {
        f"{kind}/{seed}": lambda kind=kind, seed=seed: KINDS[kind](
            np.random.default_rng((seed, list(KINDS).index(kind))), options.side
        )
        for seed in range(options.first, options.seeds)
        for kind in options.kinds
    }


def table(results: dict[str, Any], group: str) -> str:
    """Rows of a table in Markdown."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, found in results.items():
        rows.setdefault(name.rpartition("/")[0], []).append(found)
    lines = [
        f"| {group} | supported | evidence, median | recoveries of a verdict, median |",
        "|---|---|---|---|",
    ]
    for name, found in rows.items():
        yes = sum(bool(one["supported"]) for one in found)
        # of a volume one command tells both: what the verdict took has no number of its own
        nats, cost = (
            np.median([one.get(key, np.nan) for one in found])
            for key in ("evidence_nats", "verdict_in_recoveries")
        )
        lines.append(f"| {name} | {yes} of {len(found)} | {nats:.0f} | {cost:.1f} |")
    yes = sum(bool(found["supported"]) for found in results.values())
    return "\n".join([*lines, f"| all | {yes} of {len(results)} | | |"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["noise", "digits"])
    parser.add_argument("--seeds", type=int, default=20, help="measurements of each kind")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="the first of them: several processes share the work, a --results each",
    )
    parser.add_argument("--device", default="cpu", help="where E-steps run: cpu, cuda")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="of noise")
    parser.add_argument("--volume", action="store_true", help="volumes from the noise, not images")
    parser.add_argument("--prior", help="learned prior; the digits have mnist, noise has none by default")
    parser.add_argument(
        "--route", choices=["import", "raw"], default="import", help="raw: mtd recover reads the .npy itself"
    )
    parser.add_argument(
        "--side", type=int, help="of a micrograph; default: 128 without prior, 140 with, 308 for digits"
    )
    parser.add_argument("--snr", type=float, default=0.1, help="of the digits")
    parser.add_argument("--images", help="MNIST.npz with test_images, for the digits")
    parser.add_argument("--null-runs", type=int, default=8)
    parser.add_argument("--iterations", type=int, help="default: 30, for volumes 120")
    parser.add_argument("--starts", type=int, help="default: that of mtd recover; 4 for noise with a prior")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no further case after so many")
    options = parser.parse_args()
    prior = options.prior or ("mnist" if options.what == "digits" else None)
    options.side = options.side or (308 if options.what == "digits" else 140 if prior else 128)
    starts = options.starts or (4 if prior and options.what == "noise" else None)
    iterations = options.iterations or (120 if options.volume else 30)
    told: list[object] = ["--box-size", 28 if prior else 16, "--iterations", iterations]
    told += ["--prior", prior] if prior else []
    told += ["--starts", starts] if starts else []
    group = f"{'volumes from ' * options.volume}{options.what}, {options.route}, {' '.join(map(str, told))}, side {options.side}, null runs {options.null_runs}{'' if options.device == 'cpu' else ', on ' + options.device}"
    every = json.loads(options.results.read_text()) if options.results.exists() else {}
    results, began = every.setdefault(group, {}), time.monotonic()
    for name, made in (digits if options.what == "digits" else noises)(options).items():
        if name in results:
            continue
        if time.monotonic() - began > 60 * options.minutes:
            break
        results[name] = judged(
            made(),
            options.route,
            [*told, "--seed", int(name.rpartition("/")[2])],
            options.null_runs,
            options.volume,
            options.device,
        )
        print(name, json.dumps(results[name]), flush=True)
        # Other commands may have written their groups meanwhile.
        now = json.loads(options.results.read_text()) if options.results.exists() else {}
        part = options.results.with_suffix(".part")
        part.write_text(json.dumps({**now, group: results}, indent=1) + "\n")
        part.replace(options.results)
    print(table(results, group))


if __name__ == "__main__":
    main()
