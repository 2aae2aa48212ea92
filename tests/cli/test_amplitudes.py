"""Copies of different strength from a simulation to tables and report."""

import csv
import json

import pytest

OPTIONS = ("--box-size", 12, "--device", "cpu", "--iterations", 24, "--seed", 2)


@pytest.fixture
def uneven(mtd, tmp_path):
    path = tmp_path / "m.zarr"
    target = ("glyph", "--box-size", 12, "--size", "150x160", "--count", 14, "--snr", 6, "--seed", 3)
    mtd("simulate", *target, "--amplitude-std", 0.5, "-o", path)
    return path


def test_amplitudes_are_learned_and_listed(mtd_json, tmp_path, uneven):
    run = tmp_path / "run"
    mtd_json("recover", uneven, "-o", run, *OPTIONS, "--amplitude-std", "auto")
    result = json.loads((run / "run.json").read_text())["result"]
    assert result["likelihood"]["amplitude_std"] == pytest.approx(0.5, abs=0.25)
    assert result["expected_count"] == pytest.approx(14, abs=1.0)
    rows = list(csv.DictReader((run / "detections.csv").open()))
    strengths = [float(row["amplitude"]) for row in rows]
    assert max(strengths) > 1.5 * min(strengths)
    assert "_mtdAmplitude" in (run / "detections.star").read_text()
    assert "standard deviation of their amplitudes" in (run / "report.html").read_text()
    assert mtd_json("evaluate", run)["detections"]["amplitude_correlation"] > 0.95


def test_amplitudes_may_be_given_or_left_out(mtd, mtd_json, tmp_path, uneven):
    few = (*OPTIONS[:4], "--iterations", 3)
    for std, name in (("0.3", "given"), ("0", "none")):
        mtd_json("recover", uneven, "-o", tmp_path / name, *few, "--amplitude-std", std)
        kept = json.loads((tmp_path / name / "run.json").read_text())["result"]["likelihood"]
        assert kept["amplitude_std"] == float(std)
    header = (tmp_path / "none" / "detections.csv").read_text().splitlines()[0]
    assert "amplitude" not in header
    patches = ("--likelihood", "patch", "--amplitude-std", "auto")
    told = mtd("recover", uneven, "-o", tmp_path / "no", *few, *patches, code=2)
    assert "--amplitude-std is of the window likelihood" in told.output
    told = mtd("recover", uneven, "-o", tmp_path / "no", *few, "--amplitude-std", "-1", code=2)
    assert "a number of at least 0" in told.output


def test_null_runs_and_halves_have_amplitudes(mtd_json, tmp_path, uneven):
    """The same model for the nulls, and for what is held out."""
    run = tmp_path / "run"
    mtd_json("recover", uneven, "-o", run, *OPTIONS[:4], "--iterations", 12, "--amplitude-std", "auto")
    found = mtd_json("trust", run, "--null-runs", 2)
    assert found
    kept = json.loads((run / "trust.json").read_text())
    assert min(kept["held_out"]) > 0
