"""The RELION External job on real micrographs, beside the same steps in Python.

    python bench/microscopy/relion_job.py apoferritin.npz WORK_DIR [--kind frame_average] [--whiten Yes] [--update auto]

Writes the ten apoferritin micrographs as MRC files with a STAR list (contrast as recorded: dark particles), runs
``relion_external_mtd`` as RELION's pipeliner does, and repeats import, recovery and detection through the library. Scores: the Pearson correlation of
the average with the average over the marked centres (shifts of +-4 pixels), and picks within 4 pixels of marked centres
after one global offset. The centres are used for the scores alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
from apoferritin import average as marked_average
from apoferritin import corners, inside

import mtdcore
from mtdcore.data.micrographs.measurement import open_micrographs
from mtdcore.data.micrographs.star import read_star, write_star
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.mstep.wiener import WienerUpdate
from mtdcore.results.detections import detect
from mtdcore.results.matching import match
from mtdcore.results.metrics import correlation

#: Pixel size of the binned micrographs, angstrom (EMPIAR-10146: 1.5 at the detector, binned four times). Only labels depend on it.
PIXEL = 6.0
BOX, SEPARATION, ITERATIONS = 24, 14, 60


def write_project(archive: Path, kind: str, project: Path) -> None:
    """MRC files and a STAR list as motion correction leaves them."""
    folder = project / "MotionCorr/job002"
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(archive) as data:
        names = sorted(name.partition("/")[2] for name in data if name.startswith("centres_xy/"))
        for name in names:
            with mrcfile.new(folder / f"{name}.mrc", data=data[f"{kind}/{name}"], overwrite=True) as file:
                file.voxel_size = PIXEL
    paths = [f"MotionCorr/job002/{name}.mrc" for name in names]
    write_star(
        project / "micrographs.star",
        "micrographs",
        {"rlnMicrographName": paths, "rlnMicrographPixelSize": [PIXEL] * len(paths)},
    )


def score(average: np.ndarray, picks: np.ndarray, truth: np.ndarray, marked: np.ndarray) -> str:
    """Correlation of the average; precision and recall of (N, 3) picks (micrograph, row, column) of corners."""
    zeros = np.zeros(len(picks), int)
    found = mtdcore.results.detections.Detections(*picks.T, zeros, zeros, BOX, 1, zeros)
    best = match(found, marked, 4.0, max_offset=6)
    return (
        f"correlation {correlation(average, truth, max_shift=4):.3f}, {len(picks)} picks on {len(marked)} marked, "
        f"precision {best.precision:.3f}, recall {best.recall:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", default="frame_average", choices=["frame_average", "single_frame"])
    parser.add_argument("--whiten", default="Yes", choices=["Yes", "No"])
    parser.add_argument("--update", default="auto", choices=["auto", "exact", "wiener"])
    options = parser.parse_args()
    project = options.work.absolute() / f"{options.kind}_{options.whiten}_{options.update}"
    write_project(options.archive, options.kind, project)
    marked = corners(options.archive)
    flat = open_micrographs(project / "micrographs.star", Preparation(whiten=False))
    pixels = np.stack([flat.preparation.read(one).pixels for one in flat.micrographs])
    truth = marked_average(pixels, marked[inside(marked, pixels.shape)])

    job = Path("External/job003")
    arguments = {
        "box_size": BOX, "rotations": 1, "initial": "blob", "min_separation": SEPARATION, "iterations": ITERATIONS,
        "whiten": options.whiten, "update": options.update,
    }  # fmt: skip
    command = [
        Path(sys.executable).with_name("relion_external_mtd"),
        "--o",
        f"{job}/",
        "--in_mics",
        "micrographs.star",
    ]
    command += [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    (project / job).mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, "--j", "1", "--pipeline_control", f"{job}/"], cwd=project, check=True)
    assert (project / job / "RELION_JOB_EXIT_SUCCESS").exists()
    average = mrcfile.read(project / job / "class_averages.mrcs").reshape(-1, BOX, BOX)[0]
    files = read_star(project / job / "autopick.star")["coordinate_files"]["rlnMicrographCoordinates"]
    tables = [read_star(project / file)[""] for file in files]
    picks = [
        (m, round(float(y)) - BOX // 2, round(float(x)) - BOX // 2)
        for m, table in enumerate(tables)
        for x, y in zip(table["rlnCoordinateX"], table["rlnCoordinateY"], strict=True)
    ]
    print("RELION job:", score(average, np.array(picks, dtype=int).reshape(-1, 3), truth, marked))

    steps = Preparation(whiten=options.whiten == "Yes")
    prepared = [steps.read(one) for one in flat.micrographs]
    stack = np.stack([one.pixels for one in prepared])
    facts = None
    if steps.whiten:
        facts = mtdcore.Micrographs(
            np.ones(len(stack)), transfer=np.stack([one.transfer for one in prepared])
        )
    found = mtdcore.recover(
        stack,
        box_size=BOX,
        rotations=1,
        initial="blob",
        min_separation=SEPARATION,
        iterations=ITERATIONS,
        micrographs=facts,
        update={"auto": None, "exact": mtdcore.ExactUpdate(), "wiener": WienerUpdate()}[options.update],
        backend="cpu",
    )
    copies = detect(stack, found.target, found.likelihood)
    print("Python:    ", score(found.target, copies.positions, truth, marked))


if __name__ == "__main__":
    main()
