"""Real input: ten apoferritin micrographs, imported, recovered and judged with the command line, scored by marked centres.

    python bench/microscopy/apoferritin.py apoferritin.npz -o apoferritin
    python bench/microscopy/apoferritin.py apoferritin.npz -o sevens --kinds single_frame --diameter 20 --sevens 0 1 2

The file holds ``single_frame/N``, ``frame_average/N`` and ``centres_xy/N`` (x = column, y = row of the particle
centres). Frame averages and single frames get the same commands, and no step knows the centres. Scores:

- correlation of the estimate with the average of the windows around the marked centres, maximised over shifts of +-4
  pixels, and with that average cut out at one global offset: the median, in fractions of a pixel, between the
  detections and the centres, which is what puts hand-marked centres and an estimate into one frame;
- expected copies against marked ones whose box lies inside;
- precision and recall of the detections within 4 pixels, after the same offset; recall also of the centres whose box
  lies inside, since no other can be found.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import zarr

from mtdcore.results.detections import Detections
from mtdcore.results.matching import match
from mtdcore.results.metrics import correlation

BOX, TOLERANCE = 24, 4.0
IMPORT = ["--invert", "--background-width", str(BOX)]
RECOVER = ["--box-size", str(BOX), "--rotations", "4"]
BLOBS = ["--initial", "blob", "--starts", "4", "--min-separation", "auto"]


def mtd(*arguments: object) -> None:
    """Run one command."""
    command = [Path(sys.executable).with_name("mtd"), *arguments]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def corners(archive: Path) -> np.ndarray:
    """(N, 3) micrograph, row and column of the corner of the box around each marked centre, not rounded."""
    with np.load(archive) as data:
        names = sorted(name.partition("/")[2] for name in data if name.startswith("centres_xy/"))
        rows = [
            (m, y - (BOX - 1) / 2, x - (BOX - 1) / 2)
            for m, name in enumerate(names)
            for x, y in data[f"centres_xy/{name}"]
        ]
    return np.array(rows)


def seven(archive: Path, seed: int, into: Path) -> Path:
    """An archive of seven of the ten micrographs, drawn at random."""
    with np.load(archive) as data:
        names = sorted({name.partition("/")[2] for name in data if name.startswith("centres_xy/")})
        chosen = set(np.random.default_rng(seed).permutation(names)[:7])
        np.savez(into, **{name: data[name] for name in data if name.partition("/")[2] in chosen})
    return into


def average(stack: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mean of the valid pixels of the windows of a stack at the nearest whole pixels of (N, 3) corners that lie inside."""
    windows = [stack[m, r : r + BOX, c : c + BOX] for m, r, c in np.rint(places).astype(int)]
    return np.nanmean(windows, axis=0, dtype=np.float64)


def inside(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Which corners have their whole box in the micrograph, to the nearest pixel."""
    nearest = np.rint(places[:, 1:])
    return np.all((nearest >= 0) & (nearest + BOX <= shape[1:]), axis=1)


def detections(table: Path, rotations: int) -> Detections:
    """The copies that a run wrote down."""
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    micrograph, rotation, which = (
        np.array([int(line[name]) for line in lines], dtype=np.int64)
        for name in ("micrograph", "rotation", "class")
    )
    row, column = (np.array([float(line[name]) for line in lines]) for name in ("row", "column"))
    probability = np.array([float(line["probability"]) for line in lines])
    return Detections(micrograph, row, column, rotation, probability, BOX, rotations, which)


def score(kind: str, imported: Path, run: Path, marked: np.ndarray) -> None:
    """Print the scores of one run."""
    stack = np.asarray(
        zarr.open(imported, mode="r")["0"] if (imported / "0").exists() else zarr.open_array(imported)
    )
    record = json.loads((run / "run.json").read_text())
    result, estimate = record["result"], np.load(run / "estimate.npy")
    found = detections(run / "detections.csv", record["parameters"]["rotations"])
    whole = marked[inside(marked, stack.shape)]
    paired = match(found, marked, TOLERANCE, max_offset=8.0)
    moved = marked - [0, *paired.offset]
    aligned = average(stack, moved[inside(moved, stack.shape)])
    print(
        f"{kind}: correlation {correlation(estimate, average(stack, whole), max_shift=4):.3f}, "
        f"at the global offset ({paired.offset[0]:.2f}, {paired.offset[1]:.2f}) {correlation(estimate, aligned):.3f}; "
        f"separation {result['likelihood']['min_separation']}; "
        f"{result['expected_count']:.0f} copies for {len(whole)} marked; "
        f"{len(found)} detections: precision {paired.precision:.3f}, recall {paired.recall:.3f} "
        f"({match(found, whole, TOLERANCE, max_offset=8.0).recall:.3f} of those inside)"
    )
    print(f"  noise: {result['noise']}; settled: {result['settled']}", flush=True)
    if (run / "trust.json").exists():
        trust = json.loads((run / "trust.json").read_text())
        for null in ("white", "phases"):
            if null in trust:
                values = ", ".join(f"{value:.0f}" for value in trust[null]["evidence"])
                print(f"  evidence {result['evidence_nats']:.0f} nats; null runs ({null}): {values}")
        curves = {"data": trust, **{null: trust[null] for null in ("white", "phases") if null in trust}}
        for name, place in curves.items():
            if "halves" in place:
                print(f"  halves ({name}):", *(f"{c:.2f}" for c in place["halves"]["correlation"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for measurements and runs")
    parser.add_argument("--kinds", nargs="+", default=["frame_average", "single_frame"])
    parser.add_argument(
        "--null-runs", type=int, default=8, help="of each kind; 0: the results are not judged"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whiten", action="store_true")
    parser.add_argument(
        "--diameter", type=float, help="nothing but the diameter of the particle, pixels, instead of blobs"
    )
    parser.add_argument(
        "--sevens", type=int, nargs="+", help="seeds: seven of the ten micrographs, drawn at random, for each"
    )
    parser.add_argument("--noise", choices=("auto", "white", "spectrum"), default="auto")
    parser.add_argument("--recover", default="", help="more options of mtd recover")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    archives = [options.archive]
    if options.sevens:
        archives = [
            seven(options.archive, seed, options.output / f"seven-{seed}.npz") for seed in options.sevens
        ]
    for archive, kind in itertools.product(archives, options.kinds):
        name = kind if archive is options.archive else f"{kind}-{archive.stem}"
        imported, run, marked = options.output / f"{name}.zarr", options.output / name, corners(archive)
        whiten = "--whiten" if options.whiten else "--no-whiten"
        mtd("import", archive, "--key", f"{kind}/*", *IMPORT, whiten, "-o", imported, "--force")
        more = ["--noise", options.noise, "--threads", options.threads]
        more += BLOBS if options.diameter is None else ["--diameter", options.diameter]
        mtd("recover", imported, "-o", run, *RECOVER, *more, *options.recover.split(), "--force")
        if options.null_runs:
            mtd("trust", run, "--null-runs", options.null_runs, "--threads", options.threads)
        score(name, imported, run, marked)


if __name__ == "__main__":
    main()
