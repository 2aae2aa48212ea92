"""The tables of copies, and their accuracy."""

import csv

import numpy as np
import pytest

from mtdcore.synthetic.simulate import open_simulation

QUICK = ("--box-size", 12, "--iterations", 40, "--device", "cpu", "--threads", 1, "--seed", 3)


@pytest.fixture
def run_dir(mtd, measurement, tmp_path):
    mtd("recover", measurement, "-o", tmp_path / "run", *QUICK)
    return tmp_path / "run"


def test_tables_hold_every_copy(mtd_json, measurement, run_dir):
    result = mtd_json("detect", run_dir, "--device", "cpu")
    truth = open_simulation(measurement)
    assert result["copies"] == len(truth.positions)
    with open(run_dir / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    corners = np.array([[int(row[name]) for name in ("micrograph", "row", "column")] for row in rows])
    nearest = np.abs(truth.positions[:, None] - corners[None]).max(axis=2).min(axis=1)
    assert nearest.max() <= 3  # the estimate may sit a little off in its box
    star = (run_dir / "detections.star").read_text()
    picks = [line.split() for line in star.splitlines() if line.startswith("micrograph_000001")]
    assert [float(pick[1]) for pick in picks] == [column + 6 for _, _, column in corners]
    assert [float(pick[2]) for pick in picks] == [row + 6 for _, row, _ in corners]


def test_evaluate_reports_precision_and_recall(mtd_json, run_dir):
    found = mtd_json("evaluate", run_dir)["detections"]
    assert found["precision"] == 1.0
    assert found["recall"] == 1.0


def test_imported_micrographs_keep_their_names(mtd, tmp_path):
    files = []
    for i in range(2):
        files.append(tmp_path / f"{i}.npy")
        np.save(files[-1], np.random.default_rng(i).normal(size=(40, 40)))
    mtd("import", *files, "-o", tmp_path / "m.zarr")
    mtd(
        *("recover", tmp_path / "m.zarr", "-o", tmp_path / "run", "--box-size", 8, "--iterations", 2),
        *("--device", "cpu", "--noise-std", 0.5),
    )
    mtd("detect", tmp_path / "run", "--threshold", 0.01, "--device", "cpu")
    star = (tmp_path / "run" / "detections.star").read_text()
    picks = [line.split()[0] for line in star.splitlines() if line.count(" ") > 3]
    assert set(picks) <= set(map(str, files))


def test_a_folder_that_is_no_run(mtd, tmp_path):
    assert "run.json" in mtd("detect", tmp_path, code=65).stderr


@pytest.mark.parametrize("threshold", [0, 1])
def test_thresholds_outside_their_domain(mtd, run_dir, threshold):
    mtd("detect", run_dir, "--threshold", threshold, code=2)


def test_of_several_classes_the_nearest_is_evaluated(mtd_json, mtd, measurement, tmp_path):
    mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, "--classes", 2)
    images = np.load(tmp_path / "run" / "estimate.npy")
    truth = tmp_path / "truth.npy"
    for index in range(2):
        np.save(truth, images[index])
        found = mtd_json("evaluate", tmp_path / "run", "--truth", truth)
        assert found["class"] == index
        assert found["estimate"]["E"] == pytest.approx(0.0, abs=1e-9)
    assert "Estimate, class 2" in (tmp_path / "run" / "report.html").read_text()
