"""Real input: nine pictures of beta-galactosidase, carbon and ice crystals among them, imported and recovered with the command
line, scored by centres that others marked.

    python bench/microscopy/betagal.py betagal.npz -o betagal
    python bench/microscopy/betagal.py betagal.npz -o betagal --pictures 01 --side 480 --classes 2

The file holds ``micrograph/NN`` and ``centres_xy/NN`` (x = column, y = row of the particle centres). The marks are incomplete: two
sets of picks of these micrographs agree on 78 %. No step knows them. Scores:

- correlation of each class, at its best angle and over shifts of +-4 pixels, with an average of the windows around the marked
  centres. The particles are elongated and lie at any angle, which the marks do not give: each window is turned back by the
  angle of the detection that is paired with it, and cut out at the mark;
- precision and recall of the detections within 6 pixels, picture by picture, as they are (*raw*) and after one shift in the
  frame of the copies (a target off the middle of its box puts all its boxes off); marks under a mask of the import are left
  out of the recall, and of the last column also those whose box reaches over the edge, which no box can be on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from apoferritin import detections, mtd

from mtdcore.model.rotations import rotate
from mtdcore.results.detections import Detections
from mtdcore.results.matching import centred_on, match
from mtdcore.results.metrics import correlation

BOX, ROTATIONS, TOLERANCE, REACH = 32, 24, 6.0, 10.0
RECOVER = ["--box-size", BOX, "--rotations", ROTATIONS, "--diameter", 25]
ANGLES = 2 * np.pi * np.arange(ROTATIONS) / ROTATIONS


def cropped(archive: Path, pictures: list[str], side: int | None, into: Path) -> tuple[Path, np.ndarray]:
    """An archive of these pictures, whole or cut to ``side`` pixels, and the (N, 3) corners of the boxes around the marks in it."""
    kept, corners = {}, []
    with np.load(archive) as data:
        for m, name in enumerate(pictures):
            kept[f"micrograph/{name}"] = data[f"micrograph/{name}"][:side, :side]
            x, y = data[f"centres_xy/{name}"].T
            inside = (x < (side or np.inf)) & (y < (side or np.inf))
            corners += [
                (m, row - BOX // 2, column - BOX // 2)
                for row, column in zip(y[inside], x[inside], strict=True)
            ]
    np.savez(into, **kept)
    return into, np.array(corners)


def aligned_average(
    stack: np.ndarray, marked: np.ndarray, found: Detections, pairs: np.ndarray
) -> np.ndarray:
    """Mean of the windows at the marks, each turned back by the angle of its detection."""
    turned = []
    for i, j in pairs:
        m, row, column = np.rint(marked[j]).astype(int)
        window = stack[m, max(row, 0) : row + BOX, max(column, 0) : column + BOX].astype(np.float64)
        if window.shape == (BOX, BOX) and np.isfinite(window).all():
            turned.append(rotate(window, [-ANGLES[found.rotation[i]]])[0])
    return np.mean(turned, axis=0)


def best_correlation(image: np.ndarray, average: np.ndarray) -> float:
    """Over all angles and shifts of +-4 pixels."""
    return max(
        correlation(turned, average, max_shift=4) for turned in rotate(image.astype(np.float64), ANGLES)
    )


def score(imported: Path, run: Path, pictures: list[str], marked: np.ndarray) -> None:
    """Print the scores of one run."""
    opened = zarr.open(imported, mode="r")
    stack = np.asarray(opened["0"] if isinstance(opened, zarr.Group) else opened)
    record = json.loads((run / "run.json").read_text())["result"]
    found, estimate = detections(run / "detections.csv", ROTATIONS), np.load(run / "estimate.npy")
    m, row, column = np.rint(marked + np.array([0, BOX // 2, BOX // 2])).astype(int).T
    rows, columns = stack.shape[1:]
    seen = np.isfinite(stack[m, np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)])
    classes = estimate if estimate.ndim == 3 else estimate[None]
    each = [centred_on(_of(found, found.class_index == c), marked, REACH) for c in range(len(classes))]
    for c, (image, one) in enumerate(zip(classes, each, strict=True)):
        pairs = match(one, marked, TOLERANCE).pairs
        average = aligned_average(stack, marked, one, pairs)
        print(f"class {c}: {len(one)} detections, correlation {best_correlation(image, average):.3f}")
    moved = _joined(each)
    print(
        f"evidence {record['evidence_nats']:.0f} nats, {record['expected_count']:.0f} copies, settled {record['settled']}"
    )
    inside = seen & np.all((marked[:, 1:] >= 0) & (marked[:, 1:] + BOX <= stack.shape[1:]), axis=1)
    print("picture  masked  detections  marked  raw precision  raw recall  precision  recall  recall inside")
    for number, name in enumerate([*pictures, "all"]):
        here = np.ones(len(m), bool) if name == "all" else m == number
        raw, one = (d if name == "all" else _of(d, d.micrograph == number) for d in (found, moved))
        scores = [
            match(raw, marked[here], TOLERANCE).precision,
            match(raw, marked[here & seen], TOLERANCE).recall,
            match(one, marked[here], TOLERANCE).precision,
            match(one, marked[here & seen], TOLERANCE).recall,
            match(one, marked[here & inside], TOLERANCE).recall,
        ]
        masked = np.isnan(stack if name == "all" else stack[number]).mean()
        print(
            f"{name:>7}  {masked:>6.1%}  {len(one):>10}  {int((here & seen).sum()):>6}  "
            + "  ".join(
                f"{value:>{width}.3f}" for value, width in zip(scores, (13, 10, 9, 6, 13), strict=True)
            )
        )


#: Columns of :class:`Detections`.
COLUMNS = ("micrograph", "row", "column", "rotation", "probability", "class_index")


def _of(found: Detections, which: np.ndarray) -> Detections:
    """Some of the detections."""
    return replace(found, **{name: getattr(found, name)[which] for name in COLUMNS})


def _joined(parts: list[Detections]) -> Detections:
    """The detections of all classes."""
    return replace(parts[0], **{name: np.concatenate([getattr(p, name) for p in parts]) for name in COLUMNS})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for measurements and runs")
    parser.add_argument(
        "--pictures", nargs="+", default=["00", "01", "02", "03", "04", "05", "06", "07", "15"]
    )
    parser.add_argument("--side", type=int, help="cut every picture to so many pixels, to save time")
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recover", default="", help="more options of mtd recover")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    imported, run = options.output / "betagal.zarr", options.output / f"classes{options.classes}"
    archive, marked = cropped(
        options.archive, options.pictures, options.side, options.output / "pictures.npz"
    )
    mtd("import", archive, "--key", "micrograph/*", "--invert", "-o", imported, "--force")
    more = ["--classes", options.classes, "--threads", options.threads, *options.recover.split()]
    mtd("recover", imported, "-o", run, *RECOVER, *more, "--force")
    score(imported, run, options.pictures, marked)


if __name__ == "__main__":
    main()
