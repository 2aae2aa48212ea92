"""Verdict, null runs and half sets of a run folder."""

import json
import re
import signal
import time

import numpy as np
import pytest

from mtdcli.run.folder import RunFolder

QUICK = ("--box-size", 12, "--device", "cpu", "--threads", 1)


@pytest.fixture
def run_dir(mtd, measurement, tmp_path):
    mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, "--iterations", 40, "--seed", 3)
    return tmp_path / "run"


def page(run_dir):
    return (run_dir / "report.html").read_text()


def test_a_report_says_what_is_missing_for_a_verdict(mtd, run_dir):
    assert "No verdict yet" in page(run_dir)
    assert f"<code>mtd trust {run_dir}</code>" in page(run_dir)
    assert "How sure it is" not in page(run_dir)


@pytest.mark.charts
def test_copies_in_strong_signal_are_supported(mtd_json, run_dir):
    found = mtd_json("trust", run_dir, "--null-runs", 4)
    assert found["supported"]
    assert found["verdict"] == "structure supported by the data"
    assert len(found["null_evidence"]["white"]) == 4
    assert found["evidence_nats"] > 10 * max(found["null_evidence"]["white"])
    assert found["evidence_nats"] > 2 * found["threshold"]["white"]
    assert found["half_set_resolution_pixels"] < 4
    assert "Structure supported by the data" in page(run_dir)
    assert "No verdict yet" not in page(run_dir)
    assert len(re.findall(r'src(?:set)?="data:image/png;base64,', page(run_dir))) == 10
    trust = json.loads((run_dir / "trust.json").read_text())
    data, noise = (np.mean(place["halves"]["correlation"]) for place in (trust, trust["white"]))
    assert data > 0.8
    assert data > noise + 0.3


def test_noise_is_not_distinguishable_from_noise(mtd, mtd_json, tmp_path):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(90, 100)).astype(np.float32))
    options = (*QUICK, "--iterations", 20, "--noise-std", 1, "--trust", 3)
    found = mtd_json("recover", tmp_path / "noise.npy", "-o", tmp_path / "run", *options)
    assert found["verdict"] == "not distinguishable from noise"
    assert not found["supported"]
    assert "Not distinguishable from noise" in page(tmp_path / "run")
    inside = (tmp_path / "run" / "run.json").read_text()
    assert "--trust 3" in json.loads(inside)["command"]


def test_what_is_done_is_kept_and_more_can_be_added(mtd, mtd_json, run_dir):
    first = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves")
    assert "half_set_resolution_pixels" not in first
    more = mtd_json("trust", run_dir, "--null-runs", 3, "--no-halves")
    assert more["null_evidence"]["white"][:2] == first["null_evidence"]["white"]
    files = {path: path.stat().st_mtime_ns for path in run_dir.glob("*.npy")}
    assert mtd_json("trust", run_dir, "--null-runs", 3, "--no-halves") == more
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("*.npy")} == files
    both = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves", "--null", "phases")
    assert set(both["threshold"]) == {"white", "phases"}


def test_a_null_run_is_the_recovery_repeated_on_noise(mtd_json, run_dir):
    """The same numbers as from the library."""
    from mtdcore import recover
    from mtdcore.results.nulls import null_measurement

    record = json.loads((run_dir / "run.json").read_text())
    found = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves")
    result = record["result"]
    noise = null_measurement(np.zeros((1, 90, 100), np.float32), result["noise_std"], 1, result["offset"])
    same = recover(noise, box_size=12, iterations=40, seed=1, backend="cpu")
    assert found["null_evidence"]["white"][1] == pytest.approx(same.evidence, abs=1e-9)


def test_a_run_from_before_an_option_existed_can_be_judged(mtd_json, run_dir):
    folder = RunFolder(run_dir)
    record = folder.read_record()
    for name in ("batches", "classes", "micrographs"):
        del record["parameters"][name]
    folder.write_record(record)
    assert mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves")["supported"]


def test_a_new_run_has_no_old_verdict(mtd, measurement, run_dir):
    mtd("trust", run_dir, "--null-runs", 2, "--no-halves")
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--iterations", 3, "--force")
    assert "No verdict yet" in page(run_dir)
    assert not list(run_dir.glob("null_*")) + list(run_dir.glob("trust*"))


def test_a_changed_measurement_is_refused(mtd, measurement, run_dir):
    mtd("simulate", "glyph", "-o", measurement, "--box-size", 12, "--size", "90x100", "--seed", 2, "--force")
    assert "has changed" in mtd("trust", run_dir, code=65).stderr


def test_an_interrupted_judgement_keeps_the_recovery_and_the_null_runs(
    mtd_process, mtd_json, measurement, tmp_path
):
    run_dir = tmp_path / "run"
    options = (*QUICK, "--iterations", 60, "--tolerance", 0, "--seed", 3)
    process = mtd_process("recover", measurement, "-o", run_dir, *options, "--trust", 200)
    while not (run_dir / "trust.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert stdout == ""
    assert f"the recovery is finished, its judgement is not; continue with: mtd trust {run_dir}" in stderr
    done = json.loads((run_dir / "trust.json").read_text())["white"]["evidence"]
    assert (run_dir / "run.json").exists()
    found = mtd_json("trust", run_dir, "--null-runs", len(done) + 1, "--no-halves")
    assert found["null_evidence"]["white"][: len(done)] == done
