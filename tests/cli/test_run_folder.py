import csv
import json

import numpy as np
import pytest

from mtdcli.run.folder import RunFolder
from mtdcore.errors import InputError


def test_files_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.occupied
    image = np.random.default_rng(0).normal(size=(5, 5))
    folder.write_image(folder.estimate, image)
    folder.write_record({"seed": 3, "nan": float("nan")})
    folder.write_history([{"iteration": 1, "objective": 2.5}, {"iteration": 2, "objective": 3.5}])
    assert np.array_equal(folder.read_image(folder.estimate, 5), image)
    assert folder.read_record() == {"seed": 3, "nan": None}
    assert list(csv.DictReader(folder.history.open())) == [
        {"iteration": "1", "objective": "2.5"},
        {"iteration": "2", "objective": "3.5"},
    ]
    assert folder.occupied
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert not folder.occupied
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", [None, "{", json.dumps([1])])
def test_a_folder_without_a_good_record_is_refused(tmp_path, content):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.record.write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        folder.read_record()


def test_a_damaged_image_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.estimate.write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"estimate\.npy"):
        folder.read_image(folder.estimate, 5)


def test_a_record_that_was_changed_is_refused_but_the_measurement_may_move(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_record({"measurement": {"path": "old", "shape": [1, 9, 9]}, "seconds": 0.1})
    text = folder.record.read_text()
    folder.record.write_text(text.replace("old", "new"))
    assert folder.read_record()["measurement"]["path"] == "new"
    for changed in (
        text.replace("0.1", "0.2"),
        text.replace('"old"', "7"),
        text.replace("sha256", "sha"),
        text.replace('"path"', '"pat"'),
    ):
        folder.record.write_text(changed)
        with pytest.raises(InputError, match=r"run\.json should"):
            folder.read_record()


@pytest.mark.parametrize("content", ["", "iteration\n1\n", "\0", None])
def test_damaged_tables_are_refused(tmp_path, content):
    folder = RunFolder(tmp_path)
    if content is None:
        folder.history.mkdir()
    else:
        folder.history.write_text(content)
        folder.picks.write_text("micrograph,row\n0,1\n" + content)
        with pytest.raises(InputError, match=r"detections\.csv"):
            folder.read_picks(0)
    if content != "":
        with pytest.raises(InputError, match=r"history\.csv"):
            folder.read_history()
