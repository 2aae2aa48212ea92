"""Picks of other programs: where they lie, and one clear sentence for each way in which they cannot be right."""

import numpy as np
import pytest

from mtdcore.data.micrographs.picks import read_picks
from mtdcore.data.micrographs.star import write_star
from mtdcore.data.micrographs.table import Entry, MicrographTable
from mtdcore.errors import InputError, MtdError
from mtdcore.results.detections import Detections
from mtdcore.results.matching import centred_on, match

#: Two micrographs of 80 x 100 and 81 x 101 pixels, binned to 40 x 50; 1.5 angstrom.
TABLE = MicrographTable((Entry("Job/a.mrc", 1.5, 2), Entry("Job/b.mrc", 1.5, 2)))
SHAPE = (40, 50)
NAMES = ["Job/a.mrc", "Job/a.mrc", "Job/b.mrc"]
X, Y = ["10", "98.5", "100"], ["20", "0", "7"]


def particles(path, names=NAMES, x=X, y=Y, **more):
    write_star(
        path, "particles", {"rlnMicrographName": names, "rlnCoordinateX": x, "rlnCoordinateY": y} | more
    )
    return path


def lists(folder, files=("Picks/a.star", "Picks/b.star")):
    (folder / "Picks").mkdir()
    write_star(folder / "Picks/a.star", "", {"rlnCoordinateX": X[:2], "rlnCoordinateY": Y[:2]})
    write_star(folder / "Picks/b.star", "", {"rlnCoordinateX": X[2:], "rlnCoordinateY": Y[2:]})
    columns = {"rlnMicrographName": ["Job/a.mrc", "Job/b.mrc"], "rlnMicrographCoordinates": list(files)}
    write_star(folder / "autopick.star", "coordinate_files", columns)
    return folder / "autopick.star"


@pytest.mark.parametrize("write", [lambda f: particles(f / "p.star"), lists])
def test_centres_are_in_pixels_of_the_measurement(tmp_path, write):
    found = read_picks(write(tmp_path), TABLE, SHAPE)
    assert found.micrographs == (0, 1)
    assert np.array_equal(found.centres, [[0, 10, 5], [0, 0, 49.25], [1, 3.5, 50]])
    assert np.array_equal(found.corners(12), found.centres - [0, 6, 6])


def test_names_may_be_of_another_folder_and_of_one_micrograph_be_left_out(tmp_path):
    found = read_picks(particles(tmp_path / "p.star", ["a.mrc", "Other/a.mrc", "b.mrc"]), TABLE, SHAPE)
    assert found.centres[:, 0].tolist() == [0, 0, 1]
    write_star(tmp_path / "one.star", "", {"rlnCoordinateX": ["4"], "rlnCoordinateY": ["6"]})
    one = MicrographTable(TABLE.entries[1:])
    assert np.array_equal(read_picks(tmp_path / "one.star", one, SHAPE).centres, [[0, 3, 2]])


def test_a_table_without_picks_is_about_its_micrographs_all_the_same(tmp_path):
    path = lists(tmp_path)
    write_star(tmp_path / "Picks/a.star", "", {"rlnCoordinateX": [], "rlnCoordinateY": []})
    found = read_picks(path, TABLE, SHAPE)
    assert (found.micrographs, found.centres.tolist()) == ((0, 1), [[1, 3.5, 50]])


#: What is wrong with some rows: the columns, the sentence, and how many picks are left without them.
SOME = {
    "not a number": (dict(x=["10", "nan", "100"]), "a.mrc in .*should be numbers; 1 of 2 are not, the first \\(nan, 0\\)", 2),
    "a word": (dict(y=["20", "0", "seven"]), "b.mrc in .*should be numbers; 1 of 1 are not, the first \\(100, seven\\)", 2),
    "beyond": (dict(x=["10", "1e4", "100"]), "inside its 100 x 80 pixels; 1 of 2 do not, the first X = 10000, Y = 0", 2),
    "negative": (dict(y=["-1", "0", "7"]), "inside its 100 x 80 pixels; 1 of 2 do not, the first X = 10, Y = -1", 2),
    "unknown": (dict(names=["Job/a.mrc", "Job/a.mrc", "Job/c.mrc"]), "Job/c.mrc is none of its 2", 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOME)
def test_wrong_rows_are_one_sentence_or_left_out(tmp_path, kind):
    columns, message, left = SOME[kind]
    path = particles(tmp_path / "p.star", **columns)
    with pytest.raises(InputError, match=message) as caught:
        read_picks(path, TABLE, SHAPE)
    assert "\n" not in str(caught.value)
    told = []
    assert len(read_picks(path, TABLE, SHAPE, told.append).centres) == left
    assert [str(problem) for problem in told] == [str(caught.value)]


#: What is wrong with all of them, also when rows may be left out.
ALL = {
    "fractions": (dict(x=[".1", ".9", "1"], y=["0", ".5", ".2"]), "all 3 lie between 0 and 1, as fractions"),
    "angstrom": (dict(x=["140", "120", "147"], y=["30", "110", "2"]), "divide them by the pixel size, 1.5 angstrom"),
    "unbinned": (dict(x=["400", "380", "90"], y=["70", "320", "4"]), "2 of 3 are outside, up to X = 400 and Y = 320: are they of unbinned"),
    "others": (dict(names=["c.mrc", "d.mrc", "e.mrc"]), "c.mrc is none of its 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ALL)
def test_a_wrong_unit_stops_in_any_case(tmp_path, kind):
    columns, message = ALL[kind]
    with pytest.raises(InputError, match=message) as caught:
        read_picks(particles(tmp_path / "p.star", **columns), TABLE, SHAPE, lambda problem: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixel_size", "advice"), [(1.5, "divide them by the pixel size, 1.5 angstrom"), (None, "are they of unbinned")]
)  # fmt: skip
def test_a_wrong_unit_in_a_single_micrograph(tmp_path, pixel_size, advice):
    write_star(tmp_path / "one.star", "", {"rlnCoordinateX": ["140", "120"], "rlnCoordinateY": ["30", "110"]})
    with pytest.raises(InputError, match=advice):
        read_picks(tmp_path / "one.star", MicrographTable((Entry("Job/a.mrc", pixel_size, 2),)), SHAPE)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnMicrographName": NAMES, "rlnCoordinateX": X}, "it holds _rlnMicrographName, _rlnCoordinateX: give a STAR"),
        ({"rlnCoordinateX": X, "rlnCoordinateY": Y}, "in the column _rlnMicrographName which of the 2"),
    ],
)  # fmt: skip
def test_missing_columns(tmp_path, columns, message):
    write_star(tmp_path / "p.star", "particles", columns)
    with pytest.raises(InputError, match=message):
        read_picks(tmp_path / "p.star", TABLE, SHAPE)


def test_a_coordinate_file_that_is_gone_is_left_out(tmp_path):
    path = lists(tmp_path, ("Picks/a.star", "Picks/gone.star"))
    with pytest.raises(MtdError, match=r"gone\.star, listed in .*neither below"):
        read_picks(path, TABLE, SHAPE)
    told = []
    assert read_picks(path, TABLE, SHAPE, told.append).micrographs == (0,)
    assert len(told) == 1


@pytest.mark.parametrize("slip", [(0, 0), (2, -3)])
def test_an_object_off_the_middle_of_its_box_is_found_where_it_is(slip):
    """Copies at right angles: what the box is off by turns with each, and no single offset removes it."""
    rng = np.random.default_rng(0)
    k = rng.integers(4, size=40)
    true = np.column_stack([np.zeros(40), rng.permutation(np.arange(40)) * 20, rng.integers(500, size=40)])
    angle = np.pi / 2 * k
    down, right = slip
    row = true[:, 1] - np.rint(down * np.cos(angle) - right * np.sin(angle))
    column = true[:, 2] - np.rint(down * np.sin(angle) + right * np.cos(angle))
    index = np.zeros(40, np.int64)
    found = Detections(index, row.astype(np.int64), column.astype(np.int64), k, np.ones(40), 12, 4, index)
    assert match(centred_on(found, true, 5.0), true, 0.5).recall == 1.0
    assert (match(found, true, 0.5, max_offset=5.0).recall == 1.0) == (slip == (0, 0))
