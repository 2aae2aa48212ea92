import json
import os
import signal

import numpy as np
import pytest

import mtdcore
from mtdcli.inputs import stack
from mtdcore.data.micrographs.listing import find_micrographs
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.data.preparation.ctf import Ctf
from mtdcore.data.preparation.prepare import Preparation

RNG = np.random.default_rng(0)
FRAMES = (1000 + 50 * np.linspace(0, 1, 80)[:, None] + 5 * RNG.normal(size=(2, 80, 70))).astype(np.float32)


def pixels(path):
    geometry = mtdcore.data.tiles.TileGeometry(side=200, unit=1, halo=0, reach=0)
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


@pytest.mark.parametrize(
    "steps", [(), ("--bin", 2), ("--whiten",), ("--bin", 2, "--background", "none")], ids=str
)
def test_dead_and_hot_pixels_are_masked_before_they_are_spread(mtd, tmp_path, steps):
    """The same as of an image whose defects were NaN from the start; kept, they leave traces in their neighbours."""
    rng = np.random.default_rng(2)
    image = rng.normal(3000, 40, (120, 160)).astype(np.float32)
    bad = rng.random(image.shape) < 0.004
    bad[40] = True
    for name, value in (("known", np.nan), ("hot", 60000.0), ("dead", 0.0)):
        np.save(tmp_path / f"{name}.npy", np.where(bad, np.float32(value), image))
        log = mtd("import", tmp_path / f"{name}.npy", "-o", tmp_path / f"{name}.zarr", *steps).stderr
        assert "are masked" in log
    known, hot, dead = (pixels(tmp_path / f"{name}.zarr") for name in ("known", "hot", "dead"))
    assert np.isnan(known).any()
    assert np.array_equal(hot, known, equal_nan=True)
    assert np.array_equal(dead, known, equal_nan=True)
    mtd("import", tmp_path / "hot.npy", "-o", tmp_path / "kept.zarr", "--defects", "keep", *steps)
    kept = pixels(tmp_path / "kept.zarr")
    assert not np.isnan(kept).any()
    assert np.abs(kept - known)[~np.isnan(known)].max() > 0.01


def test_defects_of_micrograph_files_are_masked_as_they_are_read(mtd, tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    image = RNG.normal(3000, 40, (80, 70)).astype(np.float32)
    image[5, 6:9] = 60000.0
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(image)
    run = (
        "recover",
        tmp_path / "a.mrc",
        "-o",
        tmp_path / "run",
        "--box-size",
        8,
        "--iterations",
        1,
        "--force",
    )
    assert "of 5600 pixels were not used" in mtd(*run).stderr
    assert "not used" not in mtd(*run, "--defects", "keep").stderr


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


OPTICS = """data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
1 2.5 300 2.7 0.1

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


@pytest.fixture
def star(mrc, tmp_path):
    """A list of both micrographs, after CTF estimation."""
    path = tmp_path / "micrographs_ctf.star"
    path.write_text(OPTICS + "".join(f"{file.name} 1 15000 14000 {10 * i}\n" for i, file in enumerate(mrc)))
    return path


def test_a_list_becomes_an_image_with_a_table_of_its_micrographs(mtd_json, star, tmp_path):
    out = tmp_path / "m.zarr"
    result = mtd_json("import", star, "-o", out, "--bin", 2)
    assert result == {
        "measurement": str(out),
        "micrographs": 2,
        "height": 40,
        "width": 35,
        "masked_pixels": 0,
        "borders": 0.0,
        "contaminants": 0.0,
        "pixel_size": 5.0,
        "skipped": [],
    }
    metadata = json.loads((out / "zarr.json").read_text())["attributes"]
    assert metadata["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [
        1,
        5,
        5,
    ]
    table = MicrographTable.load(out)
    assert table.names == ["frame0.mrc", "frame1.mrc"]
    assert (table.bin, table.pixel_size, table.entries[0].inverted) == (2, 5.0, True)
    assert table.scale == pytest.approx(2.5, rel=0.3)  # noise of 5, in a quarter of the pixels
    ctf = Ctf(15000, 14000, 0).radial(np.linspace(0, 0.1, 129))
    steps = Preparation(bin=2)
    expected = steps.apply(FRAMES[0], find_micrographs(star)[0])
    assert np.allclose(table.transfer[0], expected.transfer, rtol=1e-5)
    assert np.corrcoef(expected.transfer, np.abs(ctf))[0, 1] > 0.8
    assert np.array_equal(pixels(out)[0], expected.pixels)


def test_no_ctf_and_no_whitening_leave_no_transfer(mtd, star, tmp_path):
    mtd("import", star, "-o", tmp_path / "m.zarr", "--no-ctf", "--no-whiten")
    assert MicrographTable.load(tmp_path / "m.zarr").transfer is None


def test_ctf_is_asked_for_and_not_known(mtd, mrc, tmp_path):
    said = mtd("import", *mrc, "-o", tmp_path / "m.zarr", "--ctf", code=65).stderr
    assert "frame0.mrc cannot be prepared: phase flipping needs the CTF" in said


def test_a_pattern_is_expanded_here_if_the_shell_has_not(mtd_json, mrc, mtd, tmp_path):
    assert mtd_json("import", tmp_path / "*.mrc", "-o", tmp_path / "m.zarr")["micrographs"] == 2
    assert "matches none" in mtd("import", tmp_path / "*.mrcs", "-o", tmp_path / "n.zarr", code=65).stderr


def test_the_sign_of_the_contrast_is_reported(mtd, tmp_path):
    rows, cols = np.mgrid[:80, :70]
    blob = 40 * ((rows - 40) ** 2 + (cols - 30) ** 2 < 30)
    np.save(tmp_path / "a.npy", FRAMES[0] - blob)
    assert "look dark" in mtd("import", tmp_path / "a.npy", "-o", tmp_path / "m.zarr").stderr
    assert "look bright" in mtd("import", tmp_path / "a.npy", "-o", tmp_path / "n.zarr", "--invert").stderr


def test_the_rest_goes_on_without_what_is_bad(mtd, mtd_json, mrc, star, tmp_path):
    mrc[0].write_bytes(mrc[0].read_bytes()[:-100])
    assert "truncated" in mtd("import", star, "-o", tmp_path / "m.zarr", code=65).stderr
    result = mtd_json("import", star, "-o", tmp_path / "m.zarr", "--skip-bad")
    assert result["micrographs"] == 1
    assert "frame0.mrc" in result["skipped"][0]
    assert MicrographTable.load(tmp_path / "m.zarr").names == ["frame1.mrc"]
    assert len(pixels(tmp_path / "m.zarr")) == 1


def test_a_micrograph_that_is_bad_only_when_its_pixels_are_read_is_left_out_too(mtd_json, mrc, tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    mrcfile.write(mrc[0], np.zeros((80, 70), np.float32), overwrite=True)
    result = mtd_json("import", *mrc, "-o", tmp_path / "m.zarr", "--skip-bad")
    assert result["micrographs"] == 1
    assert "constant or saturated" in result["skipped"][0]
    assert pixels(tmp_path / "m.zarr").shape == (1, 80, 70)


def test_recover_streams_a_list_with_the_same_result_as_importing_it(mtd_json, star, tmp_path):
    options = ("--box-size", 8, "--iterations", 2, "--threads", 1)
    mtd_json("import", star, "-o", tmp_path / "m.zarr")
    stored = mtd_json("recover", tmp_path / "m.zarr", "-o", tmp_path / "a", *options)
    streamed = mtd_json("recover", star, "-o", tmp_path / "b", *options)
    assert streamed["evidence_nats"] == pytest.approx(stored["evidence_nats"], rel=1e-5)
    assert np.allclose(np.load(tmp_path / "a/estimate.npy"), np.load(tmp_path / "b/estimate.npy"), rtol=1e-4)
    assert MicrographTable.load(tmp_path / "b").names == ["frame0.mrc", "frame1.mrc"]


def test_recover_leaves_out_what_is_bad_in_a_list_when_asked(mtd, mtd_json, mrc, star, tmp_path):
    mrc[1].unlink()
    options = ("--box-size", 8, "--iterations", 1, "--threads", 1)
    assert "frame1.mrc, listed in" in mtd("recover", star, "-o", tmp_path / "a", *options, code=74).stderr
    result = mtd_json("recover", star, "-o", tmp_path / "b", *options, "--skip-bad")
    assert result["pixels"] == 80 * 70
    assert MicrographTable.load(tmp_path / "b").names == ["frame0.mrc"]


def test_a_folder_is_told_how_to_be_given(mtd, tmp_path):
    folder = tmp_path / "Micrographs"
    folder.mkdir()
    (folder / "a.tif").touch()
    result = mtd("import", folder, "-o", tmp_path / "m.zarr", code=65)
    assert "Micrographs/*.tif" in result.stderr
    (tmp_path / "old.zarr").mkdir()
    result = mtd("import", tmp_path / "old.zarr", "-o", tmp_path / "m.zarr", code=65)
    assert "`mtd recover` takes as it is" in result.stderr


def test_recover_tells_how_a_folder_becomes_a_measurement(mtd, tmp_path):
    folder = tmp_path / "Micrographs"
    folder.mkdir()
    (folder / "a.mrc").write_bytes(b"")
    for word in ([], ["--volume"]):
        said = mtd("recover", folder, *word, "-o", tmp_path / "run", "--box-size", 8, code=65).stderr
        assert f"mtd import '{folder}/*.mrc' -o measurement.zarr" in said


def test_an_interrupted_import_ends_between_two_micrographs_and_leaves_nothing(mtd, monkeypatch, tmp_path):
    names = [tmp_path / f"{number}.npy" for number in range(4)]
    for number, name in enumerate(names):
        np.save(name, np.random.default_rng(number).normal(size=(40, 40)))
    written, of = [], stack.Entry.of

    def counted(*args):
        written.append(args)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return of(*args)

    monkeypatch.setattr(stack.Entry, "of", counted)
    log = mtd("import", *names, "-o", tmp_path / "m.zarr", code=130).stderr
    assert log.endswith("once more to stop at once\nmtd: error: interrupted\n")
    assert len(written) == 2
    assert sorted(tmp_path.iterdir()) == names
