"""``mtd recover --method moments``, and EM that starts from moments."""

import json

import pytest

QUICK = ("--box-size", 12, "--device", "cpu", "--method", "moments")


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


def test_a_run_by_moments_is_a_run_folder_with_a_report(mtd, mtd_json, tmp_path, run_dir):
    path = tmp_path / "measurement.zarr"
    mtd("simulate", "glyph", "-o", path, "--box-size", 12, "--size", "300x300", "--snr", 5, "--seed", 1)
    result = mtd_json("recover", path, "-o", run_dir, *QUICK)
    assert result["iterations"] == 0
    assert result["expected_count"] == pytest.approx(63, rel=0.1)  # 0.1 * 300^2 / 12^2
    assert json.loads((run_dir / "run.json").read_text())["parameters"]["method"] == "moments"
    assert mtd_json("evaluate", run_dir)["estimate"]["E_s"] < 0.4
    page = (run_dir / "report.html").read_text()
    assert "moments" in page
    assert "Convergence" not in page
    assert (
        mtd_json("recover", path, "-o", run_dir, *QUICK, "--resume")["evidence_nats"]
        == result["evidence_nats"]
    )


def test_force_leaves_nothing_of_the_run_before(mtd, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    (run_dir / "trust.json").write_text("{}")
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--force")
    assert not (run_dir / "trust.json").exists()


def test_em_starts_from_moments(mtd_json, measurement, run_dir):
    options = ("--box-size", 12, "--device", "cpu", "--initial", "moments", "--iterations", 3)
    assert mtd_json("recover", measurement, "-o", run_dir, *options)["iterations"] == 3
