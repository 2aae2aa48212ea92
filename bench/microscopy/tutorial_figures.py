"""The pictures of docs/tutorial.md, from the folders that its commands made.

    python bench/microscopy/tutorial_figures.py apoferritin.npz FRAME_AVERAGES SINGLE_FRAMES docs/images

Both folders hold ``micrographs.star``, ``measurement.zarr``, ``run`` and ``positions.zarr``. Also prints the scores that the text quotes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import zarr
from apoferritin import average, corners, detections, inside
from PIL import Image
from scipy import ndimage

from mtdcore.data.micrographs.listing import find_micrographs
from mtdcore.results.matching import match
from mtdcore.results.metrics import correlation

CROP, ENLARGED = slice(40, 200), 8


def grey(image: np.ndarray, share: float = 0.003) -> np.ndarray:
    """uint8, black and white at these quantiles."""
    low, high = np.nanquantile(image, [share, 1 - share])
    return np.round(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)


def side_by_side(images: list[np.ndarray], times: int, path: Path) -> None:
    """Write pictures in a row, enlarged without smoothing, 8 white pixels apart."""
    large = [np.kron(image, np.ones((times, times), np.uint8)) for image in images]
    gap = np.full((len(large[0]), 8), 255, np.uint8)
    Image.fromarray(np.hstack([x for image in large for x in (image, gap)][:-1])).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("archive", "averages", "frames", "images"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    marked = corners(options.archive)
    stack = zarr.open_array(options.averages / "measurement.zarr/0", mode="r")[:]
    truth = average(stack, marked[inside(marked, stack.shape)])
    recovered = []
    for folder in (options.averages, options.frames):
        estimate = np.load(folder / "run/estimate.npy")
        found = detections(folder / "run/detections.csv", rotations=4)
        best = match(found, marked, 4.0, max_offset=6)
        recovered.append(estimate)
        print(
            f"{folder.name}: correlation {correlation(estimate, truth, max_shift=4):.3f}, {len(found)} picks for {len(marked)} marked, "
            f"precision {best.precision:.2f}, recall {best.recall:.2f}"
        )
    raw = find_micrographs(options.averages / "micrographs.star")[0].read()
    positions = zarr.open_array(options.averages / "positions.zarr/0", mode="r")[0]
    seen = np.round(255 * np.sqrt(np.clip(ndimage.maximum_filter(positions, 3), 0, 1))).astype(np.uint8)
    crop = (CROP, CROP)
    side_by_side(
        [grey(raw[crop]), grey(stack[0][crop]), seen[crop]], 2, options.images / "tutorial_micrograph.png"
    )
    side_by_side([grey(x, 0) for x in (*recovered, truth)], ENLARGED, options.images / "tutorial_average.png")


if __name__ == "__main__":
    main()
