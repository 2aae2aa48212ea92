"""Verdict, null runs and half sets of a run folder."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mtdcli.inputs.usable import open_usable
from mtdcli.run.finished import FinishedRun
from mtdcli.run.folder import RunFolder
from mtdcli.run.judging import findings
from mtdcli.run.record import NullRecord, TrustRecord
from mtdcore import datasets
from mtdcore.results.verdict import HELD_OUT

# one start: that of the verdict is another one, and noise ends blank or at one image
QUICK = ("--box-size", 12, "--device", "cpu", "--threads", 1, "--starts", 1)


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
    assert "--draws is of volumes" in mtd("trust", run_dir, "--draws", 4, code=2).stderr


@pytest.mark.charts
def test_copies_in_strong_signal_are_supported(mtd_json, run_dir):
    found = mtd_json("trust", run_dir)
    assert found["supported"]
    assert found["verdict"] == "structure supported by the data"
    assert set(found["checks"]) == {"evidence", "white", "phases", "held_out", "settled"}
    assert all(found["checks"].values())
    for kind in ("white", "phases"):
        assert len(found["null_evidence"][kind]) >= 4
        assert found["evidence_nats"] > 2.5 * found["threshold"][kind]
    assert found["least_false_positive_rate"] <= 1 / 5
    assert found["held_out_evidence_nats"] > 100 * HELD_OUT
    assert found["half_set_resolution_pixels"] < 4
    assert set(found["null_half_set_resolution_pixels"]) == {"white", "phases"}
    assert found["verdict_in_recoveries"] > 0
    assert "Structure supported by the data" in page(run_dir)
    assert "No verdict yet" not in page(run_dir)
    assert len(re.findall(r'src(?:set)?="data:image/png;base64,', page(run_dir))) == 17
    trust = json.loads((run_dir / "trust.json").read_text())
    data, noise = (np.mean(place["halves"]["correlation"]) for place in (trust, trust["white"]))
    assert data > 0.8
    assert data > noise + 0.3


def test_every_answer_stands_in_the_report_with_its_number(mtd_json, run_dir):
    found = mtd_json("trust", run_dir, "--no-halves")
    answers = re.findall(r'<li class="(yes|no|open)">(.*?)</li>', page(run_dir))
    assert [mark for mark, _ in answers] == ["yes"] * 4
    white, phases, held, start = (text for _, text in answers)
    for text, kind in ((white, "white"), (phases, "phases")):
        assert f"up to {found['threshold'][kind]:,.0f} may be noise" in text
        assert f"{round(max(found['null_evidence'][kind]), 1):,}" in text
    assert f"{found['held_out_evidence_nats']:,.1f} together" in held
    assert f"{found['other_start_evidence_nats']:,.1f} nats" in start
    assert "times the recovery" in page(run_dir)
    assert "once in " in page(run_dir)


def test_trust_json_holds_the_verdict_and_its_numbers(mtd_json, run_dir):
    found = mtd_json("trust", run_dir, "--null-runs", 4)
    trust = json.loads((run_dir / "trust.json").read_text())
    del found["report"]
    assert trust["found"] == found
    asked = {"white", "phases", "halves", "held_out", "settled", "rival", "unaided", "chains"}
    assert set(trust) == asked | {"seconds", "found"}
    assert trust["chains"] is None
    assert trust["white"]["evidence"] == found["null_evidence"]["white"]
    assert len(trust["held_out"]) == 2
    assert trust["settled"] is True
    assert trust["seconds"] == found["verdict_seconds"]


def test_with_a_prior_the_halves_are_recovered_without_it_as_well(mtd_json, mtd, measurement, tmp_path):
    from mtdbridge import train_prior

    weights, run_dir = tmp_path / "weights.safetensors", tmp_path / "run"
    train_prior(
        datasets.glyphs(8, 12), output=weights, steps=2, batch_size=4, validation=0,
        network_options={"channels": (2, 2, 2)},
    )  # fmt: skip
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--iterations", 2, "--prior", weights)
    done = {"white": NullRecord([1.0] * 4), "phases": NullRecord([1.0] * 4), "settled": True, "rival": 9e9}
    record = TrustRecord(**done, held_out=(20.0, 20.0), seconds=1.0)
    RunFolder(run_dir).write_trust(record)
    found = mtd_json("trust", run_dir, "--null-runs", 4, "--no-halves")
    free = found["held_out_evidence_without_prior_nats"]
    assert free > 100
    assert found["checks"]["prior"] is False
    assert "misled by the prior" in found["verdict"]
    answer = f"Without the prior one half of the data gives the other {free:,.1f} nats together: more than with it."
    assert answer in page(run_dir)
    assert len(json.loads((run_dir / "trust.json").read_text())["unaided"]) == 2


def test_no_resolution_without_that_of_noise_beside_it(mtd_json, run_dir):
    mtd_json("trust", run_dir)
    folder = RunFolder(run_dir)
    trust = folder.read_trust()
    trust.phases.halves = trust.white.halves = None
    folder.write_trust(trust)
    mtd_json("report", run_dir)
    assert "Fourier ring correlation" not in page(run_dir)
    assert "half_set_resolution_pixels" not in findings(FinishedRun.at(run_dir))


def test_noise_is_not_distinguishable_from_noise(mtd, mtd_json, tmp_path):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(90, 100)).astype(np.float32))
    options = (*QUICK, "--iterations", 20, "--noise-std", 1, "--trust", 3)
    found = mtd_json("recover", tmp_path / "noise.npy", "-o", tmp_path / "run", *options)
    assert found["verdict"].startswith("not distinguishable from noise")
    assert not found["supported"]
    assert "half_set_resolution_pixels" not in found
    assert "Not distinguishable from noise" in page(tmp_path / "run")
    assert "Fourier ring correlation" not in page(tmp_path / "run")
    inside = (tmp_path / "run" / "run.json").read_text()
    assert "--trust 3" in json.loads(inside)["command"]


@pytest.mark.parametrize(
    ("known", "title"),
    [
        ({"phases": NullRecord([1e4])}, "Not distinguishable from noise of this spectrum"),
        ({"held_out": (-4.0, -9.0)}, "Not distinguishable from noise: held-out data do not confirm it"),
        ({"settled": False, "rival": 2100.0}, "Not settled: another start ends at another image"),
        ({"white": NullRecord([300.0, 2000.0] * 4)}, "Not distinguishable from noise"),
    ],
)
def test_the_answer_that_failed_is_the_title_and_nothing_more_is_run(mtd_json, run_dir, known, title):
    record = {
        "white": NullRecord([1.0] * 8),
        "phases": NullRecord([1.0] * 8),
        "held_out": (99.0, 99.0),
        "seconds": 1.0,
    }
    RunFolder(run_dir).write_trust(TrustRecord(**{**record, "settled": True, "rival": 9.0, **known}))
    found = mtd_json("trust", run_dir)
    assert not found["supported"]
    assert found["verdict"] == title[0].lower() + title[1:]
    assert f"<b>{title}</b>" in page(run_dir)
    assert not list(run_dir.glob("null_*"))
    if "white" in known:
        assert "lack of power" in found["note"]
        assert "No power:" in page(run_dir)


def test_what_is_done_is_kept_and_more_can_be_added(mtd, mtd_json, run_dir):
    first = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves")
    assert "half_set_resolution_pixels" not in first
    more = mtd_json("trust", run_dir, "--null-runs", 5, "--no-halves")
    for kind in ("white", "phases"):
        assert more["null_evidence"][kind][:2] == first["null_evidence"][kind]
        assert len(more["null_evidence"][kind]) >= 4
    files = {path: path.stat().st_mtime_ns for path in run_dir.glob("*.npy")}
    again = mtd_json("trust", run_dir, "--null-runs", 5, "--no-halves")
    assert again["null_evidence"] == more["null_evidence"]
    assert again["held_out_evidence_nats"] == more["held_out_evidence_nats"]
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("*.npy")} == files


def test_all_is_done_where_that_is_asked_for(mtd_json, run_dir):
    RunFolder(run_dir).write_trust(TrustRecord(phases=NullRecord([1e4]), seconds=1.0))
    found = mtd_json("trust", run_dir, "--null-runs", 2, "--complete", "--no-halves")
    assert found["checks"] == {
        "evidence": True,
        "white": True,
        "phases": False,
        "held_out": True,
        "settled": True,
    }
    assert len(found["null_evidence"]["phases"]) == 2


def test_posterior_images_are_of_chains_where_these_are_asked_for(mtd, mtd_json, measurement, run_dir):
    """Of a result that is known to be supported; again with other chains, where there are images already."""
    nulls = NullRecord([1.0, 2.0, 3.0, 4.0]), NullRecord([1.0, 2.0, 3.0, 4.0])
    RunFolder(run_dir).write_trust(TrustRecord(*nulls, held_out=(500.0, 500.0), settled=True, seconds=1.0))
    for chains in (1, 2):
        found = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves", "--chains", chains)
        assert found["supported"]
        assert found["chains"]["chains"] == chains
        assert found["chains"]["draws"] == 25 * chains
        assert 10 < found["chains"]["effective_size"] < 60 * chains
        assert f"{25 * chains} of {chains} chains that have met (R-hat 1.0" in page(run_dir)
    run = FinishedRun.at(RunFolder(run_dir))
    # certain poses, no prior: the noise of the aligned average, about the estimate
    level = run.record.result.noise_std / np.sqrt(run.record.result.expected_count)
    mean, std = (np.load(run_dir / f"posterior_{name}.npy") for name in ("mean", "std"))
    assert std.mean() == pytest.approx(level, rel=0.15)
    assert np.abs(mean - run.estimate).mean() < level
    assert "x>=1" in mtd("trust", run_dir, "--chains", 0, code=2).stderr
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--classes", 2, "--iterations", 3, "--force")
    assert "one target: this run has several" in mtd("trust", run_dir, "--chains", 2, code=2).stderr


def test_a_null_run_is_the_recovery_repeated_on_noise(mtd_json, run_dir):
    """The same numbers as from the library."""
    from mtdcore import recover
    from mtdcore.results.nulls import null_measurement
    from mtdcore.results.surrogates import surrogate_measurement

    record = json.loads((run_dir / "run.json").read_text())
    found = mtd_json("trust", run_dir, "--null-runs", 2, "--no-halves")
    result = record["result"]
    pixels = open_usable(Path(record["measurement"]["path"]), False, "mask")
    white = null_measurement(np.zeros((1, 90, 100), np.float32), result["noise_std"], 1, result["offset"])
    for kind, noise in (("white", white), ("phases", surrogate_measurement(pixels, 12, 1))):
        same = recover(noise, box_size=12, iterations=40, seed=1, starts=1, backend="cpu")
        assert found["null_evidence"][kind][1] == pytest.approx(same.evidence, abs=1e-9)


def test_a_result_that_is_not_supported_is_an_exit_code_when_asked(mtd, measurement, tmp_path):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(size=(90, 100)).astype(np.float32))
    options = (*QUICK, "--iterations", 15, "--initial", "faint", "--trust", 4, "--strict")
    mtd("recover", tmp_path / "noise.npy", "-o", tmp_path / "noise", *options, code=1)
    mtd("recover", measurement, "-o", tmp_path / "copies", *QUICK, "--seed", 3, "--trust", 8, "--strict")


@pytest.mark.slow
def test_a_run_from_before_an_option_existed_can_be_judged(mtd_json, run_dir):
    folder = RunFolder(run_dir)
    record = folder.read_record()
    for name in ("batches", "classes", "micrographs"):
        del record["parameters"][name]
    folder.write_record(record)
    assert mtd_json("trust", run_dir, "--no-halves")["supported"]


def test_a_new_run_has_no_old_verdict(mtd, measurement, run_dir):
    mtd("trust", run_dir, "--null-runs", 2, "--no-halves")
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--iterations", 3, "--force")
    assert "No verdict yet" in page(run_dir)
    assert not list(run_dir.glob("null_*")) + list(run_dir.glob("trust*"))


def test_a_changed_measurement_is_refused(mtd, measurement, run_dir):
    mtd("simulate", "glyph", "-o", measurement, "--box-size", 12, "--size", "90x100", "--seed", 2, "--force")
    assert "has changed" in mtd("trust", run_dir, code=65).stderr


@pytest.mark.slow
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
    done = json.loads((run_dir / "trust.json").read_text())["phases"]["evidence"]
    assert done
    assert (run_dir / "run.json").exists()
    found = mtd_json("trust", run_dir, "--null-runs", len(done) + 1, "--no-halves")
    assert found["null_evidence"]["phases"][: len(done)] == done
