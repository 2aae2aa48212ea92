import csv
import json
import os
import re
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

QUICK = ("--box-size", 12, "--iterations", 8, "--tolerance", 0, "--device", "cpu")


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


@pytest.mark.charts
def test_a_run_folder_holds_everything(mtd_json, measurement, run_dir):
    result = mtd_json("recover", measurement, "-o", run_dir, *QUICK, "--iterations", 40, "--seed", 3)
    assert result["iterations"] == 40
    assert result["expected_count"] == pytest.approx(7, abs=0.5)  # 0.1 * 90 * 100 / 12^2, rounded up
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    assert {"estimate.npy", "aligned_average.npy", "run.json", "history.csv", "report.html"} <= names
    estimate = np.load(run_dir / "estimate.npy")
    assert estimate.shape == (12, 12)
    assert estimate.dtype == np.float64
    record = json.loads((run_dir / "run.json").read_text())
    assert record["parameters"]["seed"] == 3
    assert record["parameters"]["noise_std"] == "auto"
    assert record["versions"]["mtdcore"]
    assert record["measurement"]["shape"] == [1, 90, 100]
    assert "--box-size 12 --iterations 40" in record["command"]
    rows = list(csv.DictReader((run_dir / "history.csv").open()))
    assert [int(row["iteration"]) for row in rows] == list(range(1, 41))

    errors = mtd_json("evaluate", run_dir)["estimate"]
    assert errors["E_s"] <= errors["E"]
    assert errors["E_s"] < 0.3

    page = (run_dir / "report.html").read_text()
    assert len(re.findall(r'src(?:set)?="data:image/png;base64,', page)) == 13
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is loaded from elsewhere
    assert f"E_s = {errors['E_s']:.3f}" in page


def test_a_box_that_is_not_that_of_the_simulation_is_reported_without_truth(mtd, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK[2:], "--box-size", 14)
    assert "Truth" not in (run_dir / "report.html").read_text()
    assert "truth" in mtd("evaluate", run_dir, code=65).stderr


def test_evaluate_takes_a_truth_of_its_own(mtd, mtd_json, measurement, run_dir, tmp_path):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    shutil.copy(run_dir / "estimate.npy", tmp_path / "truth.npy")
    found = mtd_json("evaluate", run_dir, "--truth", tmp_path / "truth.npy")["estimate"]
    assert found["E"] == pytest.approx(0, abs=1e-12)
    np.save(tmp_path / "truth.npy", np.ones((13, 12)))
    assert "cut its margin off" in mtd("evaluate", run_dir, "--truth", tmp_path / "truth.npy", code=65).stderr
    shutil.rmtree(measurement)
    assert "--truth" in mtd("evaluate", run_dir, code=65).stderr


def test_evaluate_tells_other_units_and_mirror_images_from_a_wrong_image(
    mtd, mtd_json, measurement, run_dir, tmp_path
):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    estimate, file = np.load(run_dir / "estimate.npy"), tmp_path / "truth.npy"
    np.save(file, 50 * estimate + 118)
    found = mtd_json("evaluate", run_dir, "--truth", file)
    assert found["estimate"]["E_s"] > 0.9
    assert found["correlation"] == pytest.approx(1)
    assert found["scale"] == pytest.approx(1 / 50)
    assert "one is 0.02 in the estimate" in mtd("evaluate", run_dir, "--truth", file).stderr
    np.save(file, estimate[::-1])
    told = mtd("evaluate", run_dir, "--truth", file).stderr
    assert "the mirror image of the estimate fits better: correlation 1.000" in told
    assert "units" not in told
    np.save(file, estimate[1:-2, 2:-1])
    told = mtd("evaluate", run_dir, "--truth", file)
    assert told.stderr == ""


def test_a_report_can_be_written_again_without_the_measurement(mtd, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--likelihood", "patch")
    with_measurement = (run_dir / "report.html").read_text()
    (run_dir / "report.html").unlink()
    mtd("report", run_dir)
    assert (run_dir / "report.html").read_text() == with_measurement
    shutil.rmtree(measurement)
    assert "no picture of the measurement" in mtd("report", run_dir).stderr
    assert "Where it was found" not in (run_dir / "report.html").read_text()


def test_names_from_outside_are_escaped_in_the_report(mtd, run_dir, tmp_path):
    path = tmp_path / "<b>&m.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32))
    mtd("recover", path, "-o", run_dir, *QUICK, "--iterations", 1)
    page = (run_dir / "report.html").read_text()
    assert "<b>&m" not in page
    assert "&lt;b&gt;&amp;m.npy" in page


def test_results_are_replaced_only_when_asked(mtd, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    before = (run_dir / "estimate.npy").read_bytes()
    error = mtd("recover", measurement, "-o", run_dir, *QUICK, "--seed", 5, code=74).stderr
    assert "--resume" in error
    assert "--force" in error
    assert (run_dir / "estimate.npy").read_bytes() == before
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--initial", "none.npy", "--force", code=74)
    assert (run_dir / "estimate.npy").read_bytes() == before
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--likelihood", "patch", "--force")
    assert (run_dir / "estimate.npy").read_bytes() != before


def test_an_interrupted_run_ends_with_the_same_bits(mtd, mtd_process, measurement, run_dir, tmp_path):
    """Every signal is in tests/reliability/test_row05_signals.py."""
    options = (
        "--box-size",
        12,
        "--tolerance",
        0,
        "--iterations",
        150,
        "--device",
        "cpu",
        "--noise-std",
        "auto",
    )
    process = mtd_process("recover", measurement, "-o", run_dir, *options, "--checkpoint-every", 0)
    while not (run_dir / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert stdout == ""
    assert re.search(
        r"interrupted after iteration \d+; continue with: mtd recover .*--iterations 150.* --resume", stderr
    )
    assert not (run_dir / "run.json").exists()

    assert (
        "going on after iteration" in mtd("recover", measurement, "-o", run_dir, *options, "--resume").stderr
    )
    mtd("recover", measurement, "-o", tmp_path / "whole", *options, "--threads", 1)
    for name in ("estimate.npy", "aligned_average.npy"):
        assert (run_dir / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resume_refuses_another_run_and_says_what_differs(mtd, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    error = mtd("recover", measurement, "-o", run_dir, *QUICK, "--seed", 9, "--resume", code=74).stderr
    assert "seed was 0, is 9" in error
    assert "box_size" not in error
    mtd("simulate", "glyph", "-o", measurement, "--box-size", 12, "--size", "90x100", "--seed", 2, "--force")
    error = mtd("recover", measurement, "-o", run_dir, *QUICK, "--resume", code=74).stderr
    assert "measurement was" in error


@pytest.mark.parametrize("stop", [(), ("--tolerance", 1e-5, "--iterations", 200)])
def test_resume_of_nothing_starts_and_of_a_finished_run_changes_nothing(mtd_json, measurement, run_dir, stop):
    first = mtd_json("recover", measurement, "-o", run_dir, *QUICK, *stop, "--resume")
    assert first["stopped"] == ("tolerance" if stop else "iterations")
    estimate = (run_dir / "estimate.npy").read_bytes()
    again = mtd_json("recover", measurement, "-o", run_dir, *QUICK, *stop, "--resume")
    assert (run_dir / "estimate.npy").read_bytes() == estimate
    assert again == first
    taken = np.genfromtxt(run_dir / "history.csv", delimiter=",", names=True)["seconds"].sum()
    assert json.loads((run_dir / "run.json").read_text())["seconds"] > taken


def test_a_folder_in_use_is_refused(mtd, mtd_process, measurement, run_dir):
    process = mtd_process("recover", measurement, "-o", run_dir, *QUICK, "--iterations", 100000)
    while not (run_dir / ".lock").exists() or not (run_dir / ".lock").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    error = mtd("recover", measurement, "-o", run_dir, *QUICK, code=75).stderr
    assert f"process {process.pid} on {os.uname().nodename}" in error
    process.kill()
    process.communicate()
    mtd("recover", measurement, "-o", run_dir, *QUICK)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["missing.zarr", "--box-size", 12], 74, "does not exist"),
        (["{m}", "--box-size", 200], 65, "200"),
        (["{m}", "--box-size", 0], 2, "box-size"),
        (["{m}"], 2, "box-size"),
        (["{m}", "--box-size", 12, "--noise-std", "loud"], 2, "neither auto nor a positive number"),
        (["{m}", "--box-size", 12, "--temperature", 0.5], 2, "at least 1"),
        (["{m}", "--box-size", 12, "--device", "tpu"], 2, "tpu"),
        (["{m}", "--box-size", 12, "--batches", 2], 2, "has 1, too few for 2 parts"),
        (["{m}", "--box-size", 12, "--initial", "start.npy"], 74, "start.npy"),
        (["{m}", "--box-size", 12, "--max-memory", "1M"], 2, "--max-memory should be at least"),
        (["{m}", "--box-size", 12, "--max-memory", 100], 2, "got 100 bytes"),
        (["{m}", "--box-size", 12, "--max-memory", "much"], 2, "no size"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(mtd, measurement, run_dir, args, code, says):
    args = [str(arg).format(m=measurement) for arg in args]
    result = mtd("recover", *args, "-o", run_dir, code=code)
    assert says in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mtd: error: ")
    assert result.stdout == ""


def test_options_reach_the_engine(mtd, measurement, run_dir, tmp_path):
    start_image = np.full((12, 12), 0.25)
    np.save(tmp_path / "start.npy", start_image)
    given = ("--initial", tmp_path / "start.npy", "--iterations", 1, "--update", "gradient", "--step", 1e-12)
    mtd("recover", measurement, "-o", run_dir, *QUICK, "--likelihood", "patch", *given)
    assert np.allclose(np.load(run_dir / "estimate.npy"), start_image, atol=1e-4)
    record = json.loads((run_dir / "run.json").read_text())
    assert record["result"]["likelihood"]["model"] == "PatchLikelihood"
    assert record["measurement"]["unused_pixels"] == 90 * 100 - 84 * 96


def test_batches_save_passes(mtd, run_dir, tmp_path):
    """The axis of a symmetry fixes the frame, which would take passes of its own."""
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(530, 530)))
    options = ("--likelihood", "patch", "--box-size", 12, "--iterations", 5, "--tolerance", 0, "--batches", 4)
    mtd("recover", tmp_path / "m.npy", "-o", run_dir, *options, "--starts", 1, "--symmetry", "C3")
    rows = csv.DictReader((run_dir / "history.csv").open())
    assert [float(row["passes"]) for row in rows] == pytest.approx([0.25, 0.25, 0.25, 1.0, 1.0], rel=0.2)


def test_inspect_describes_runs(mtd, mtd_json, measurement, run_dir):
    mtd("recover", measurement, "-o", run_dir, *QUICK)
    described = mtd_json("inspect", run_dir)
    assert described["state"] == "finished"
    assert described["result"]["iterations"] == 8
    (run_dir / "run.json").unlink()
    assert mtd_json("inspect", run_dir)["state"].startswith("unfinished")


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:all"])
def test_without_cupy_a_cuda_device_names_the_extra(mtd, measurement, run_dir, device, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = mtd("recover", measurement, "-o", run_dir, *QUICK, "--device", device, code=69)
    assert "pip install 'mtdcore[cuda12]'" in result.stderr


def test_all_devices_share_an_e_step(mtd_json, measurement, run_dir, tmp_path, monkeypatch):
    """Threads and the CPU stand in for a process and a card each."""
    import mtdcore.estep.backends.cuda.backend as cuda
    from mtdcore.estep.backends.cpu.backend import CpuBackend

    submitted = []

    class Workers(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            submitted.append(args)
            return super().submit(*args, **kwargs)

    monkeypatch.setattr(cuda, "device_executor", lambda: Workers(2))
    monkeypatch.setattr(cuda.CudaBackend, "open", lambda index, precision: CpuBackend(precision, 1))
    mtd_json("recover", measurement, "-o", run_dir, *QUICK, "--device", "cuda:all")
    assert len(submitted) >= 8
    mtd_json("recover", measurement, "-o", tmp_path / "cpu", *QUICK)
    one, other = (np.load(folder / "estimate.npy") for folder in (run_dir, tmp_path / "cpu"))
    assert np.array_equal(one, other)


def test_nothing_found_is_the_first_line_and_an_exit_code_when_asked(mtd, mtd_json, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(60, 60)).astype("f4"))
    options = (tmp_path / "m.npy", "--box-size", 8, "--noise-std", 4, "--iterations", 3, "--device", "cpu")
    found = mtd_json("recover", *options, "-o", tmp_path / "run")
    assert next(iter(found)) == "nothing_found"
    mtd("recover", *options, "-o", tmp_path / "strict", "--strict", code=1)
    assert (tmp_path / "strict" / "report.html").exists()


def test_a_prior_that_the_update_ignores_is_a_usage_error(mtd, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(60, 60)).astype("f4"))
    given = ("recover", tmp_path / "m.npy", "--box-size", 14, "--prior", "glyphs", "--update", "exact")
    found = mtd(*given, "-o", tmp_path / "run", "--device", "cpu", code=2)
    assert "the prior would be ignored" in found.output


def test_noise_that_is_not_white_is_said_and_recorded(mtd, tmp_path):
    """A gradient: the log, ``run.json`` and the report say that it was removed; the white model says nothing."""
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((90, 100)) + 3.0 * np.linspace(-1.0, 1.0, 100)
    np.save(tmp_path / "m.npy", pixels.astype(np.float32))
    quick = ("--box-size", 12, "--iterations", 4, "--device", "cpu")
    shown = mtd("recover", tmp_path / "m.npy", "-o", tmp_path / "auto", *quick)
    assert "a slow background, of periods beyond 48 pixels, is removed" in shown.stderr
    record = json.loads((tmp_path / "auto/run.json").read_text())["result"]
    assert record["noise"].startswith("the noise is not white")
    assert "slow background" in (tmp_path / "auto/report.html").read_text()
    mtd("recover", tmp_path / "m.npy", "-o", tmp_path / "white", *quick, "--noise", "white")
    assert json.loads((tmp_path / "white/run.json").read_text())["result"]["noise"] == "white"


def test_copies_between_pixels_of_either_hand(mtd, mtd_json, tmp_path, run_dir):
    """Places, hands and the report of a run with both; what no image has is refused in a sentence."""
    source = tmp_path / "between.zarr"
    made = ("--box-size", 12, "--size", "90x100", "--snr", 20, "--seed", 1)
    mtd("simulate", "glyph", "-o", source, "--mirror", "--subpixel", *made)
    mtd_json(
        "recover", source, "-o", run_dir, *QUICK, "--iterations", 40, "--mirror", "--subpixel", "--seed", 3
    )
    assert (run_dir / "report.html").exists()
    with open(run_dir / "detections.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(re.fullmatch(r"-?\d+\.\d{3}", row["row"]) for row in rows)
    assert {row["mirrored"] for row in rows} == {"0", "1"}
    assert "_rlnIsFlip" in (run_dir / "detections.star").read_text()
    found = mtd_json("evaluate", run_dir)
    assert found["estimate"]["E_f"] <= found["estimate"]["E_s"]
    assert found["detections"]["position_error"] < 0.5
    refused = mtd("recover", source, "-o", tmp_path / "other", *QUICK, "--symmetry", "D2", code=2).stderr
    assert 'must be "C1", "C2"' in refused


def test_symmetric_runs_are_read_back(mtd_json, measurement, run_dir):
    mtd_json("recover", measurement, "-o", run_dir, *QUICK, "--symmetry", "C2")
    estimate = np.load(run_dir / "estimate.npy")
    np.testing.assert_allclose(np.rot90(estimate, 2), estimate, atol=1e-6)
    assert mtd_json("detect", run_dir)["copies"] > 0


def test_what_speaks_against_a_result_stays_with_it(mtd, tmp_path):
    np.save(tmp_path / "small.npy", np.random.default_rng(0).normal(size=(14, 14)))
    run = tmp_path / "run"
    log = mtd("recover", tmp_path / "small.npy", "-o", run, "--box-size", 12, "--iterations", 2).stderr
    assert "warning: a box of 12 x 12 pixels is nearly the whole" in log
    (doubt,) = (d for d in json.loads((run / "run.json").read_text())["doubts"] if "nearly the whole" in d)
    assert doubt in (run / "report.html").read_text()


def test_a_separation_beyond_the_micrograph_leaves_one_copy_and_a_run_that_can_be_read(
    mtd, measurement, tmp_path
):
    """Such a run was once recorded as one that no command would open."""
    options = (*QUICK, "--min-separation", 10_000)
    mtd("recover", measurement, "-o", tmp_path / "run", *options)
    found = json.loads((tmp_path / "run" / "run.json").read_text())["result"]
    assert found["expected_count"] < 1.0 + 1e-6
    mtd("detect", tmp_path / "run")


def test_a_length_in_angstrom_is_told_in_pixels(mtd, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(60, 60)))
    mtd("import", tmp_path / "m.npy", "-o", tmp_path / "m.zarr", "--pixel-size", 4.2)
    words = ("recover", tmp_path / "m.zarr", "-o", tmp_path / "run", "--box-size", 28, "--diameter", "120A")
    said = mtd(*words, code=2).stderr
    assert "--diameter 120A: 28.57 pixels of 4.2 angstrom" in said
    assert "from 1 to the box size, 28; got 28.57: give a larger --box-size" in said
