"""Micrograph files: read as mrcfile, tifffile and starfile wrote them, and refused in one clear sentence."""

import pickle

import numpy as np
import pytest

import mtdcore
from mtdcore.data.micrographs.listing import find_micrographs
from mtdcore.data.micrographs.measurement import open_micrographs
from mtdcore.data.micrographs.star import read_star, write_star
from mtdcore.data.preparation.ctf import Ctf
from mtdcore.data.preparation.pixels import open_pixels
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.data.tiles import TileGeometry
from mtdcore.errors import InputError, MtdError, StorageError

mrcfile = pytest.importorskip("mrcfile")

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 100, (3, 40, 50))

OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
opticsGroup1 1 1.5 300 2.7 0.1
"other group" 2 1.5 200 2.0 0.07

"""

MICROGRAPHS = """
# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
MotionCorr/job002/a.mrc 1 15000.5 14000 30
MotionCorr/job002/b.mrc 2 12000 11000 -20

"""


def pixels(measurement):
    geometry = TileGeometry(side=20, unit=1, halo=0, reach=0)
    out = np.full(measurement.shape, np.nan)
    for tile in measurement.tiles(geometry):
        out[tile.micrograph][tile.region.read] = np.where(
            True if tile.valid is None else tile.valid, tile.values, np.nan
        )
    return out


def save(path, data, pixel_size=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, data=data, overwrite=True) as file:
        file.voxel_size = pixel_size
    return path


@pytest.fixture
def project(tmp_path):
    """A RELION project with two micrographs and their list."""
    for name, image in zip("ab", STACK, strict=False):
        save(tmp_path / f"MotionCorr/job002/{name}.mrc", image.astype(np.float32), 9.0)
    star = tmp_path / "CtfFind/job003/micrographs_ctf.star"
    star.parent.mkdir(parents=True)
    star.write_text(OPTICS + MICROGRAPHS)
    return star


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2", ">i2", ">f4", ">u2", ">f2", "u1"])
def test_every_real_mode_of_either_byte_order_gives_the_stored_pixels(tmp_path, dtype):
    path = save(tmp_path / "a.mrcs", STACK.astype(dtype))
    assert np.array_equal(pixels(mtdcore.open_measurement(path)), STACK)
    assert np.array_equal(open_pixels(path).stack, mrcfile.read(path))


def test_complex_pixels_are_refused(tmp_path):
    path = save(tmp_path / "a.mrc", np.zeros((4, 5), np.complex64))
    with pytest.raises(InputError, match="real numbers"):
        mtdcore.open_measurement(path)


@pytest.mark.parametrize(("header", "believed"), [(0.0, None), (1.0, None), (1.35, 1.35)])
def test_a_pixel_size_of_0_or_1_counts_as_unknown(tmp_path, header, believed):
    path = save(tmp_path / "a.mrc", STACK[0].astype(np.float32), header)
    assert open_pixels(path).pixel_size == (None if believed is None else pytest.approx(believed))
    assert find_micrographs(path, 2.5)[0].pixel_size == 2.5  # what the user says goes before the header


def test_an_extended_header_is_skipped(tmp_path):
    path = save(tmp_path / "a.mrc", STACK[0].astype(np.float32))
    with mrcfile.open(path, "r+") as file:
        file.set_extended_header(np.zeros(100, "V8"))
    assert np.array_equal(open_pixels(path).stack[0], STACK[0])


def test_a_colour_picture_is_no_stack(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 48, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="colour picture"):
        open_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", ">u2"])
def test_tiff_stacks(tmp_path, dtype, compression):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "a.tif", STACK.astype(dtype), compression=compression, photometric="minisblack"
    )
    assert np.array_equal(pixels(mtdcore.open_measurement(tmp_path / "a.tif")), STACK[:, ::-1])


def test_a_measurement_of_files_is_cheap_to_send_and_splits(tmp_path):
    measurement = open_micrographs(
        [save(tmp_path / f"{i}.mrc", image.astype(np.float32)) for i, image in enumerate(STACK)]
    )
    assert measurement.shape == (3, 40, 50)
    sent = pickle.dumps(measurement)
    assert len(sent) < 2000
    assert np.array_equal(pixels(pickle.loads(sent)), STACK)
    geometry = TileGeometry(side=20, unit=1, halo=2, reach=0)
    parts = [tile.values for part in measurement.split(4) for tile in part.tiles(geometry)]
    whole = [tile.values for tile in measurement.tiles(geometry)]
    assert all(map(np.array_equal, parts, whole))


def test_streaming_prepares_as_importing_does(tmp_path):
    images = RNG.normal(100, 5, (2, 70, 80)).astype(np.float32)
    steps = Preparation(bin=2, whiten=False)
    measurement = open_micrographs(save(tmp_path / "a.mrcs", images), steps)
    assert measurement.shape == (2, 35, 40)
    assert np.array_equal(pixels(measurement), [steps(image).pixels for image in images])


def test_a_micrograph_is_prepared_once_a_pass_however_the_pass_is_cut(tmp_path, monkeypatch):
    images = RNG.normal(100, 5, (3, 70, 80)).astype(np.float32)
    measurement = open_micrographs(save(tmp_path / "a.mrcs", images), Preparation())
    whole, seen, read = pixels(measurement), [], Preparation.read
    monkeypatch.setattr(
        Preparation, "read", lambda steps, one: (seen.append(one.section), read(steps, one))[1]
    )
    geometry = TileGeometry(side=20, unit=1, halo=0, reach=0)
    tiles = [tile for part in measurement.split(7) for tile in part.tiles(geometry)]
    assert seen == [0, 1, 2]
    assert all(np.array_equal(tile.values, whole[tile.micrograph][tile.region.read]) for tile in tiles)
    assert len(pickle.dumps(measurement)) < 2000


def test_a_list_gives_files_optics_and_ctf(project, monkeypatch):
    monkeypatch.chdir(project.parents[2])
    a, b = find_micrographs(project)
    assert (a.name, a.pixel_size) == ("MotionCorr/job002/a.mrc", 1.5)  # not the 9 of the header
    assert a.ctf == Ctf(15000.5, 14000, 30, 300, 2.7, 0.1, 0)
    assert b.ctf == Ctf(12000, 11000, -20, 200, 2.0, 0.07, 0)
    assert np.array_equal(pixels(mtdcore.open_measurement(project)), STACK[:2])


def test_a_list_is_found_from_anywhere(project, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(find_micrographs(project)) == 2


def test_sections_of_a_stack_and_columns_of_relion_3_0(tmp_path):
    save(tmp_path / "s.mrcs", STACK.astype(np.float32))
    star = tmp_path / "m.star"
    star.write_text(
        "data_\n\nloop_\n_rlnMicrographName #1\n_rlnMagnification #2\n_rlnDetectorPixelSize #3\n"
        "000003@s.mrcs 50000 7.0\n2@s.mrcs 50000 7.0\n"
    )
    third, second = find_micrographs(star)
    assert np.array_equal(third.read(), STACK[2])
    assert np.array_equal(second.read(), STACK[1])
    assert third.pixel_size == pytest.approx(1.4)
    assert third.ctf is None


def test_a_pixel_size_of_zero_gives_way_to_the_next_column(tmp_path):
    save(tmp_path / "a.mrc", STACK[0].astype(np.float32))
    star = tmp_path / "m.star"
    header = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographPixelSize #2\n_rlnPixelSize #3\n"
    for columns, size in (("0 1.5", 1.5), ("1.2 1.5", 1.2), ("0 0", None)):
        star.write_text(f"{header}a.mrc {columns}\n")
        assert find_micrographs(star)[0].pixel_size == size


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


BAD = {
    "missing": (lambda p: p.unlink(), "a.mrc, listed in .*neither below the current folder"),
    "truncated": (truncate, "data block is missing or truncated"),
    "empty": (lambda p: p.write_bytes(b""), "could not be read as .mrc"),
    "another size": (
        lambda p: save(p, np.zeros((40, 51), np.float32)),
        "size of the first, 40 x 51; .*b.mrc has 40 x 50",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_micrograph_is_one_sentence_or_left_out(project, kind):
    harm, message = BAD[kind]
    harm(project.parents[2] / "MotionCorr/job002/a.mrc")
    with pytest.raises(MtdError, match=message):
        open_micrographs(project)
    told = []
    left = open_micrographs(project, on_bad=told.append)
    assert len(told) == 1
    assert left.shape[0] == 1


LISTS = {
    "no optics": (OPTICS, "", "holds no table data_optics"),
    "unknown group": ("b.mrc 2", "b.mrc 3", "optics groups 1, 2; it is of group 3"),
    "no table": ("_rlnMicrographName", "_rlnMovieName", "column _rlnMicrographName"),
    "no number": ("15000.5", "many", "_rlnDefocusU .*should be a number; it is 'many'"),
    "torn": ("14000 30", "14000", "could not be read"),
    "mixed pixel sizes": ("2 1.5 200", "2 3.0 200", "pixel size of the first, 1.5 angstrom; .*b.mrc has 3"),
    "section": ("MotionCorr/job002/b.mrc", "7@MotionCorr/job002/b.mrc", "one of the 1 images"),
    "voltage": ("1.5 300", "1.5 0", "positive voltage"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_bad_list_is_one_sentence(project, kind):
    old, new, message = LISTS[kind]
    replaced(project, old, new)
    with pytest.raises(InputError, match=message) as caught:
        open_micrographs(project)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "no star\n", "data_a\nloop_\n_x\n_y\n1 2 3\n", "data_a\n_x 1\ndata_a\n_x 2\n"]
)
def test_what_is_no_star_file_is_refused(tmp_path, text):
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(InputError, match=r"a\.star"):
        find_micrographs(tmp_path / "a.star")


def test_star_that_is_no_text_and_star_that_is_not_there(tmp_path):
    (tmp_path / "a.star").write_bytes("data_\n".encode("utf-16"))
    with pytest.raises(InputError, match="not text"):
        read_star(tmp_path / "a.star")
    with pytest.raises(StorageError, match="could not be read"):
        read_star(tmp_path / "b.star")


def test_tables_go_to_starfile_and_come_back(tmp_path):
    starfile = pytest.importorskip("starfile")
    pandas = pytest.importorskip("pandas")
    written = {
        "rlnMicrographName": ["a.mrc", "b_2.mrc"],
        "rlnCoordinateX": ["1.5", "-2.25"],
        "mtdProbability": ["0.9", "1e-05"],
    }
    write_star(tmp_path / "a.star", "particles", written)
    theirs = starfile.read(tmp_path / "a.star")
    assert list(theirs.columns) == list(written)
    assert theirs["rlnCoordinateX"].tolist() == [1.5, -2.25]
    optics = pandas.DataFrame(
        {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["my group"], "rlnVoltage": [300.0]}
    )
    starfile.write(
        {"optics": optics, "general": {"rlnTomoName": "x"}, "particles": theirs}, tmp_path / "b.star"
    )
    ours = read_star(tmp_path / "b.star")
    assert list(ours) == ["optics", "general", "particles"]
    assert ours["optics"]["rlnOpticsGroupName"] == ["my group"]
    assert ours["general"] == {"rlnTomoName": ["x"]}
    assert [float(x) for x in ours["particles"]["mtdProbability"]] == [0.9, 1e-05]


def test_an_empty_table_comes_back_empty(tmp_path):
    write_star(tmp_path / "a.star", "", {"rlnCoordinateX": []})
    assert read_star(tmp_path / "a.star") == {"": {"rlnCoordinateX": []}}
