import json

import numpy as np
import pytest

import mtdcore

RNG = np.random.default_rng(0)
FRAMES = (1000 + 50 * np.linspace(0, 1, 80)[:, None] + 5 * RNG.normal(size=(2, 80, 70))).astype(np.float32)


def pixels(path):
    geometry = mtdcore.likelihood.TileGeometry(side=200, unit=1, halo=0, reach=0)
    tiles = mtdcore.open_measurement(path).tiles(geometry)
    return np.stack([np.where(True if t.valid is None else t.valid, t.values, np.nan) for t in tiles])


@pytest.fixture
def mrc(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    paths = []
    for number, frame in enumerate(FRAMES):
        paths.append(tmp_path / f"frame{number}.mrc")
        with mrcfile.new(paths[-1]) as file:
            file.set_data(frame)
    return paths


def test_micrographs_become_one_flat_normalised_stack(mtd_json, tmp_path):
    np.savez(tmp_path / "frames.npz", **{"f/1": FRAMES[0], "f/2": FRAMES[1], "centres": np.ones((3, 2))})
    out = tmp_path / "m.zarr"
    result = mtd_json("import", tmp_path / "frames.npz", "--key", "f/*", "-o", out)
    assert (result["micrographs"], result["height"], result["width"]) == (2, 80, 70)
    stack = pixels(out)
    assert np.abs(np.median(stack, axis=(1, 2))).max() < 0.02
    assert np.abs(stack.std(axis=(1, 2)) - 1).max() < 0.1
    assert abs(stack[:, :20].mean() - stack[:, -20:].mean()) < 0.2  # 10 before
    assert np.corrcoef(stack[0].ravel(), (FRAMES[0] - FRAMES[0].mean(1, keepdims=True)).ravel())[0, 1] > 0.95
    noted = json.loads((out / "zarr.json").read_text())["attributes"]["mtdcore"]
    assert noted["parameters"]["background"] == "gaussian"
    assert noted["parameters"]["invert"] is False


def test_mrc_is_inverted_unless_told_otherwise_and_the_log_says_so(mtd, mrc, tmp_path):
    log = mtd("import", *mrc, "-o", tmp_path / "a.zarr").stderr
    assert "inverting the contrast" in log
    log = mtd("import", *mrc, "-o", tmp_path / "b.zarr", "--no-invert").stderr
    assert "inverting" not in log
    assert np.allclose(pixels(tmp_path / "a.zarr"), -pixels(tmp_path / "b.zarr"), atol=1e-5)


def test_mixed_formats_need_a_decision_about_contrast(mtd, mrc, tmp_path):
    np.save(tmp_path / "a.npy", FRAMES[0])
    sources = (mrc[0], tmp_path / "a.npy")
    assert "--invert" in mtd("import", *sources, "-o", tmp_path / "m.zarr", code=2).stderr
    mtd("import", *sources, "-o", tmp_path / "m.zarr", "--invert")
    assert np.array_equal(*pixels(tmp_path / "m.zarr"))


def test_nothing_is_changed_when_told_so_and_invalid_pixels_stay_invalid(mtd, tmp_path):
    frame = FRAMES[0].copy()
    frame[3, 4] = np.nan
    np.save(tmp_path / "a.npy", frame)
    mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr", "--background", "none", "--no-normalise")
    assert np.array_equal(pixels(tmp_path / "m.zarr")[0], frame, equal_nan=True)
    mtd("import", tmp_path / "a.npy", "-o", tmp_path / "n.zarr")
    assert np.argwhere(np.isnan(pixels(tmp_path / "n.zarr")[0])).tolist() == [[3, 4]]


def test_sizes_must_agree_and_nothing_is_left_behind(mtd, tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    np.save(tmp_path / "b.npy", FRAMES[0, :50])
    out = tmp_path / "out" / "m.zarr"
    error = mtd("import", tmp_path / "a.npy", tmp_path / "b.npy", "-o", out, code=65).stderr
    assert "80 x 70" in error
    assert "50 x 70" in error
    assert not out.parent.exists()


def test_nothing_is_replaced_unasked(mtd, tmp_path):
    np.save(tmp_path / "a.npy", FRAMES)
    mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr")
    mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr", code=74)
    mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr", "--force")
