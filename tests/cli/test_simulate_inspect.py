import numpy as np
import pytest

import mtdcore
from mtdcore.synthetic.simulate import open_simulation


def test_simulate_writes_a_measurement_with_its_truth(mtd_json, tmp_path):
    path = tmp_path / "m.zarr"
    args = (
        "simulate",
        "glyph:2",
        "-o",
        path,
        "--size",
        "100x120",
        "--count",
        3,
        "--noise-std",
        0.5,
        "--micrographs",
        2,
    )
    result = mtd_json(*args, "--rotations", "continuous", "--seed", 7)
    assert (result["micrographs"], result["height"], result["width"], result["copies"]) == (2, 100, 120, 6)
    simulation = open_simulation(path)
    assert simulation.measurement.shape == (2, 100, 120)
    assert simulation.rotation_indices is None
    glyph = mtdcore.synthetic.glyphs.glyphs(3, 28, seed=7)[2]
    assert np.abs(simulation.target - glyph).max() <= glyph.max()
    assert np.corrcoef(simulation.target.ravel(), glyph.ravel())[0, 1] > 0.95  # the disc cuts corners off


def test_simulate_takes_an_image_and_defaults_to_the_papers_setting(mtd_json, tmp_path):
    np.save(tmp_path / "target.npy", np.eye(10) * 255)
    result = mtd_json("simulate", tmp_path / "target.npy", "-o", tmp_path / "m.zarr")
    assert (result["height"], result["width"]) == (110, 110)
    assert result["copies"] == 13
    assert result["noise_std"] == pytest.approx(255 / np.sqrt(10))


def test_simulate_replaces_nothing_unasked(mtd, measurement):
    before = sorted(path.stat().st_mtime_ns for path in measurement.rglob("*"))
    assert "--force" in mtd("simulate", "glyph", "-o", measurement, code=74).stderr
    assert sorted(path.stat().st_mtime_ns for path in measurement.rglob("*")) == before
    mtd("simulate", "glyph", "-o", measurement, "--size", 80, "--force")
    assert open_simulation(measurement).measurement.shape == (1, 80, 80)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["glyph", "--density", "0"], 2),
        (["glyph", "--size", "ten"], 2),
        (["glyph", "--size", "20"], 2),
        (["glyph", "--count", "1", "--density", "0.1"], 2),
        (["glyph:x"], 2),
        (["missing.png"], 74),
        (["--volume", "missing.mrc"], 74),
        ([__file__], 65),
    ],
)
def test_simulate_refuses_what_it_cannot_do(mtd, tmp_path, args, code):
    result = mtd("simulate", *args, "-o", tmp_path / "m.zarr", code=code)
    assert result.stderr.startswith("mtd: error: ")
    assert code != 74 or "TARGET should be" in result.stderr
    assert not (tmp_path / "m.zarr").exists()


def test_inspect_describes_a_measurement(mtd_json, mtd, measurement):
    described = mtd_json("inspect", measurement, "--check")
    assert (described["height"], described["width"], described["bad_chunks"]) == (90, 100, [])
    assert described["provenance"]["made_by"] == "simulate"
    truth = open_simulation(measurement).noise_std
    assert described["noise_std_estimate"] == pytest.approx(truth, rel=0.2)
    assert "made_by" in mtd("inspect", measurement).stdout


def test_inspect_finds_damage(mtd_json, measurement):
    chunk = max(
        (path for path in measurement.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:100])
    (bad,) = mtd_json("inspect", measurement, "--check", code=65)["bad_chunks"]
    assert "damaged" in bad


def test_inspect_takes_arrays_and_refuses_the_rest(mtd_json, mtd, tmp_path):
    np.save(tmp_path / "m.npy", np.ones((2, 20, 30), np.uint8))
    described = mtd_json("inspect", tmp_path / "m.npy")
    assert (described["micrographs"], described["provenance"]) == (2, {})
    assert described["noise_std_estimate"].startswith("none: ")
    mtd("inspect", tmp_path / "nothing.npy", code=74)
    mtd("inspect", tmp_path, code=65)


def test_copies_keep_the_distance_asked_for_in_pixels(mtd, tmp_path):
    options = ("--box-size", 8, "--size", 80, "--count", 12, "--min-separation", 13)
    mtd("simulate", "glyph", "-o", tmp_path / "m.zarr", *options)
    corners = open_simulation(tmp_path / "m.zarr").positions[:, 1:]
    apart = np.abs(corners[:, None] - corners[None]).max(axis=-1)[np.triu_indices(12, 1)]
    assert 13 <= apart.min() < 16  # two boxes, the default
