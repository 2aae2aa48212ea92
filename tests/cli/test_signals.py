"""Signals from a file to a report."""

import csv
import json

import numpy as np
import pytest
from scipy.io import wavfile

import mtdcore
from mtdcli.inputs.sources import read_images
from mtdcore.data.micrographs.table import MicrographTable

WIDTH, COUNT = 20, 24


@pytest.fixture(scope="module")
def made():
    time = np.linspace(0.0, 1.0, WIDTH)
    motif = (np.sin(np.pi * time) * np.sin(5 * np.pi * time**2))[None]
    return mtdcore.simulate(motif, shape=(1, 70 * COUNT), count=COUNT, snr=4.0, separation=1, seed=2)


@pytest.fixture
def signal(made):
    return np.asarray(made.measurement)[0]


def test_files_of_signals_become_measurements(mtd_json, tmp_path, signal):
    wavfile.write(tmp_path / "a.wav", 250, signal.astype(np.float32))
    two = np.stack([signal, -signal], axis=1)
    np.savetxt(tmp_path / "b.csv", two, delimiter=",", header="left,right", comments="")
    np.savetxt(tmp_path / "c.csv", signal)
    np.save(tmp_path / "d.npy", signal)
    for name, height, rate in (
        ("a.wav", 1, 250.0),
        ("b.csv", 2, None),
        ("c.csv", 1, None),
        ("d.npy", 1, None),
    ):
        out = tmp_path / f"{name}.zarr"
        found = mtd_json("import", tmp_path / name, "-o", out)
        assert (found["height"], found["width"]) == (height, len(signal))
        assert MicrographTable.load(out).sampling_rate == rate
        pixels = np.asarray(mtdcore.open_measurement(out))
        assert abs(np.corrcoef(pixels[0], signal)[0, 1]) > 0.999  # nothing was subtracted


@pytest.mark.parametrize(
    ("times", "rate", "said"),
    [
        (lambda n: np.arange(n) / 200, 200.0, "200 samples per second"),
        (lambda n: np.round(np.arange(n) / 256, 4), 256.0, "256 samples per second"),
        (lambda n: np.arange(n), None, "left out"),
        (lambda n: np.arange(n) / 200 + (np.arange(n) > 500) * 7, None, "uneven"),
    ],
    ids=["even", "rounded", "a count", "with a gap"],
)
def test_a_column_of_times_is_no_channel(mtd, tmp_path, signal, times, rate, said):
    table = np.stack([times(len(signal)), signal, -signal], axis=1)
    np.savetxt(tmp_path / "e.csv", table, delimiter=",", header="time,Fz,Cz", comments="", fmt="%.6f")
    log = mtd("import", tmp_path / "e.csv", "-o", tmp_path / "e.zarr").stderr
    assert "column 1 rises" in log
    assert said in log
    assert np.asarray(mtdcore.open_measurement(tmp_path / "e.zarr")).shape == (2, len(signal))
    found = MicrographTable.load(tmp_path / "e.zarr").sampling_rate
    assert found == (rate and pytest.approx(rate, rel=1e-3))


def test_signals_are_not_whitened(mtd, tmp_path, signal):
    np.save(tmp_path / "s.npy", signal)
    result = mtd("import", tmp_path / "s.npy", "-o", tmp_path / "s.zarr", "--whiten", code=2)
    assert "--whiten is for images" in result.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_a_motif_is_recovered_and_told_in_seconds(mtd, mtd_json, tmp_path, made, signal):
    np.savetxt(tmp_path / "s.csv", signal)
    mtd("import", tmp_path / "s.csv", "-o", tmp_path / "s.zarr", "--sampling-rate", "100")
    run = tmp_path / "run"
    options = ("--box-size", f"1x{WIDTH}", "--iterations", "25", "--device", "cpu")
    result = mtd("recover", tmp_path / "s.zarr", "-o", run, *options, "--json")
    assert "--diameter" not in result.stderr  # which is refused here
    found = json.loads(result.stdout)
    assert found["expected_count"] == pytest.approx(COUNT, abs=1.5)
    rows = list(csv.DictReader((run / "detections.csv").open()))
    assert len(rows) == pytest.approx(COUNT, abs=2)
    assert all(float(row["seconds"]) == pytest.approx(int(row["column"]) / 100) for row in rows)
    assert "One motif from" in (run / "report.html").read_text()
    estimate = np.load(run / "estimate.npy")
    scale = np.linalg.norm(made.target) / np.linalg.norm(estimate)
    assert mtdcore.relative_error(scale * estimate, made.target, max_shift=(0, 5)) < 0.35
    assert mtd_json("detect", run)["copies"] == len(rows)


def test_a_simulated_signal_is_evaluated(mtd, mtd_json, tmp_path, made):
    np.save(tmp_path / "motif.npy", made.target[0])
    out = tmp_path / "s.zarr"
    assert mtd_json("simulate", tmp_path / "motif.npy", "-o", out, "--snr", "4")["height"] == 1
    options = ("--box-size", f"1x{WIDTH}", "--iterations", "20", "--likelihood", "window", "--device", "cpu")
    mtd("recover", out, "-o", tmp_path / "run", *options)
    assert mtd_json("evaluate", tmp_path / "run")["estimate"]["E_s"] < 0.4


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--box-size", "1x20", "--rotations", "4"), "--rotations 1"),
        (("--box-size", "1x20", "--diameter", "9"), "--min-separation"),
        (("--box-size", "0x20"), "1x187"),
        (("--box-size", "20.5"), "1x187"),
    ],
)
def test_what_a_signal_cannot_have_is_one_sentence(mtd, tmp_path, signal, options, text):
    np.save(tmp_path / "s.npy", signal)
    assert text in mtd("recover", tmp_path / "s.npy", "-o", tmp_path / "run", *options, code=2).stderr


def test_a_column_of_times_is_told_of_also_where_the_rate_is_given(mtd, tmp_path, signal):
    np.savetxt(tmp_path / "s.csv", np.c_[np.arange(signal.size) / 250, signal], delimiter=",")
    log = mtd("import", tmp_path / "s.csv", "-o", tmp_path / "s.zarr", "--sampling-rate", "200").stderr
    assert "column 1 rises throughout: it is taken for the time and left out" in log
    assert f"mtd: 1 signal(s) of 1 x {signal.size} samples" in log
    assert "contrast" not in log


def test_tables_as_spreadsheets_write_them_where_the_comma_is_decimal(mtd, tmp_path, signal):
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        lines = [f"{1000 + i}{mark}{value:.4f}".replace(".", ",") for i, value in enumerate(signal)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        assert np.allclose(next(iter(read_images(tmp_path / f"{name}.csv")))[0], signal, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "it holds no numbers"), ("time,lead", "it holds no numbers"), ("1,2\n3\n", "changed from 2 to 1 at row 2)")],
)  # fmt: skip
def test_a_table_that_is_none_is_one_sentence(mtd, tmp_path, text, said):
    (tmp_path / "s.csv").write_text(text)
    log = mtd("import", tmp_path / "s.csv", "-o", tmp_path / "s.zarr", code=65).stderr
    assert said in log
    assert log.count("\n") == 1
