"""Real input: ten apoferritin micrographs, imported and recovered with the command line, scored by marked centres.

    python bench/apoferritin.py apoferritin.npz

The file holds ``single_frame/N``, ``frame_average/N`` and ``centres_xy/N`` (x = column, y = row of the particle
centres). The centres are used for the score alone: the Pearson correlation of the estimate with the average of the
windows around them, maximised over shifts of +-4 pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

from mtdcore.metrics import correlation

BOX = 24
RECOVER = ["--box-size", str(BOX), "--rotations", "1", "--initial", "blob", "--min-separation", "14"]


def marked_average(measurement: np.ndarray, centres: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Average of the windows around the marked centres, and how many lie inside."""
    windows = []
    for micrograph, marks in zip(measurement, centres, strict=True):
        for x, y in marks:
            row, column = round(y - (BOX - 1) / 2), round(x - (BOX - 1) / 2)
            window = micrograph[max(row, 0) : row + BOX, max(column, 0) : column + BOX]
            if min(row, column) >= 0 and window.shape == (BOX, BOX):
                windows.append(window)
    return np.mean(windows, axis=0, dtype=np.float64), len(windows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    options = parser.parse_args()
    mtd_command = Path(sys.executable).with_name("mtd")
    with np.load(options.archive) as data, tempfile.TemporaryDirectory() as folder:
        names = sorted(name.partition("/")[2] for name in data if name.startswith("centres_xy/"))
        centres = [data[f"centres_xy/{name}"] for name in names]
        for kind in ("frame_average", "single_frame"):
            imported, run = Path(folder, f"{kind}.zarr"), Path(folder, kind)
            source = [options.archive, "--key", f"{kind}/*", "--invert", "-o", imported]
            subprocess.run([mtd_command, "import", *source], check=True, capture_output=True)
            subprocess.run(
                [mtd_command, "recover", imported, "-o", run, *RECOVER], check=True, capture_output=True
            )
            estimate = np.load(run / "estimate.npy")
            found = json.loads((run / "run.json").read_text())["result"]
            stack = np.asarray(zarr.open_array(imported / "0", mode="r"))
            truth, marked = marked_average(stack, centres)
            print(
                f"{kind}: correlation {correlation(estimate, truth, max_shift=4):.3f}, "
                f"{found['expected_count']:.0f} copies for {marked} marked, noise {found['noise_std']:.3f}"
            )


if __name__ == "__main__":
    main()
