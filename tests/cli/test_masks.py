"""What is masked stays masked: from the picture through import and recovery to the detections."""

import csv

import numpy as np
import pytest

import mtdcore
from mtdcore.results.detections import detect
from mtdcore.synthetic.glyphs import glyphs

SIDE, BOX = 240, 16


@pytest.fixture(scope="module")
def scene():
    """A measurement of strong copies, half of them under a mask with garbage, and the mask."""
    target = glyphs(1, BOX, seed=1)[0]
    made = mtdcore.simulate(target, shape=(SIDE, SIDE), count=60, snr=4.0, rotations=1, separation=1, seed=3)
    tile = np.asarray(made.measurement).astype(np.float32)
    hidden = np.zeros(tile.shape, bool)
    hidden[:, 130:] = True
    return np.where(hidden, 50.0 * np.float32(tile.std()) + 9 * tile, tile), hidden, target


def test_a_mask_stays_through_import_recovery_and_detections(mtd, mtd_json, scene, tmp_path):
    pixels, hidden, target = scene
    masked = np.ma.array(pixels, mask=hidden)
    np.save(tmp_path / "target.npy", target)
    np.save(tmp_path / "m.npy", masked.filled(np.nan))
    plain = ("--background", "none", "--no-normalise", "--contaminants", "keep")
    result = mtd_json("import", tmp_path / "m.npy", "-o", tmp_path / "m.zarr", *plain)
    assert result["masked_pixels"] == hidden.sum()
    options = ("--box-size", BOX, "--rotations", 1, "--initial", tmp_path / "target.npy", "--iterations", 3)
    run = mtd_json("recover", tmp_path / "m.zarr", "-o", tmp_path / "run", *options, "--threads", 1)
    assert run["pixels"] == (~hidden).sum()
    with open(tmp_path / "run" / "detections.csv", newline="") as file:
        columns = [int(line["column"]) for line in csv.DictReader(file)]
    assert len(columns) > 15
    assert max(columns) < 130
    direct = mtdcore.recover(masked, box_size=BOX, rotations=1, initial=target, iterations=3)
    assert run["evidence_nats"] == pytest.approx(direct.evidence, rel=1e-4)
    found = detect(masked, direct.target, direct.likelihood)
    assert len(found) == len(columns)
    assert found.column.max() < 130
    white = {"box_size": BOX, "rotations": 1, "initial": target, "iterations": 3, "noise": "white"}
    seen, unseen = (mtdcore.recover(image, **white).evidence for image in (pixels, masked))
    assert seen != pytest.approx(unseen, rel=0.1)


def test_contaminants_and_borders_are_masked_said_and_drawn(mtd, mtd_json, tmp_path):
    image_of = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    image = 1000 + 30 * rng.normal(size=(SIDE, 200)).astype(np.float32)
    rows, columns = np.mgrid[:SIDE, :200]
    crystal = np.hypot(rows - 90, columns - 120) < 14
    image[crystal] -= 400
    image[:, :7] = image[:, 7:8]
    np.save(
        tmp_path / "a.npy", np.stack([image, 1000 + 30 * rng.normal(size=image.shape).astype(np.float32)])
    )
    ran = mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr", "--invert")
    assert (
        "masked constant or smeared borders: 1.75% of the pixels, in 1 of 2 micrographs: no. 0 (a.npy) 3.5%"
        in ran.stderr
    )
    assert "masked carbon and contaminants" in ran.stderr
    mtd("inspect", tmp_path / "m.zarr", "--picture", tmp_path / "m.png")
    drawn = np.asarray(image_of.open(tmp_path / "m.png"))
    assert drawn.shape == (SIDE, 2 * 200 + 4, 3)
    coloured = np.ptp(drawn.astype(int), axis=-1) > 0
    expected = np.isnan(np.asarray(mtdcore.open_measurement(tmp_path / "m.zarr")))
    assert expected[0][crystal].all()
    assert expected[0, :, :7].all()
    assert not expected[1].any()
    assert np.array_equal(coloured[:, :200], expected[0])
    assert not coloured[:, 204:].any()
    kept = mtd_json(
        "import", tmp_path / "a.npy", "-o", tmp_path / "n.zarr", "--contaminants", "keep", "--borders", "keep"
    )
    assert (kept["masked_pixels"], kept["borders"], kept["contaminants"]) == (0, 0, 0)


def test_pictures_are_png_files_of_measurements(mtd, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(40, 50)))
    assert "end in .png" in mtd("inspect", tmp_path / "a.npy", "--picture", tmp_path / "a.npy", code=2).stderr
    mtd("inspect", tmp_path / "a.npy", "--picture", tmp_path / "a.png")
