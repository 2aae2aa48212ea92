"""What microscopists hand over by mistake, through every door: one clear sentence, or the rest goes on when asked."""

import json
from pathlib import Path

import numpy as np
import pytest

from mtdcli.relion import main as relion
from mtdcore.data.micrographs.star import read_star, write_star

mrcfile = pytest.importorskip("mrcfile")

RECOVER = {"box_size": 8, "iterations": 2, "device": "cpu", "seed": 1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder: three micrographs of noise with bright squares, their list, and the centres of the squares."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    x, y = [], []
    for name in "abc":
        image = rng.normal(0.0, 1.0, (48, 60))
        for row, column in [(6, 7), (25, 12), (30, 44)]:
            image[row : row + 5, column : column + 5] -= 9.0  # dark, as in raw micrographs
            x.append(column + 2)
            y.append(row + 2)
        mrcfile.write(f"{name}.mrc", image.astype(np.float32))
    write_list()
    names = [f"{name}.mrc" for name in "abc" for _ in range(3)]
    write_star("picks.star", "", {"rlnMicrographName": names, "rlnCoordinateX": x, "rlnCoordinateY": y})
    return tmp_path


def write_list(
    optics="data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 2.5\n2 5.0\n\n", last=1
):
    table = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
    Path("m.star").write_text(f"{optics}{table}a.mrc 1\nb.mrc 1\nc.mrc {last}\n")


def cut_short():
    Path("c.mrc").write_bytes(Path("c.mrc").read_bytes()[:-100])


#: What is done to the project, the exit code, the sentence, and whether the rest can go on.
BAD = {
    "truncated": (cut_short, 65, "c.mrc should hold an MRC image; its data block is missing or truncated", True),
    "missing": (lambda: Path("c.mrc").unlink(), 74, "c.mrc, listed in m.star, is neither below", True),
    "no optics": (lambda: write_list(optics=""), 65, "m.star names optics groups and holds no table data_optics", False),
    "pixel sizes": (lambda: write_list(last=2), 65, "pixel size of the first, 2.5 angstrom; c.mrc has 5", True),
}  # fmt: skip


def job(capfd, monkeypatch, **labels):
    """Exit code and stderr of a RELION job in this process."""
    words = [word for label, value in labels.items() for word in (f"--{label}", str(value))]
    monkeypatch.setattr("sys.argv", ["relion_external_mtd", "--o", "job/", "--in_mics", "m.star", *words])
    with pytest.raises(SystemExit) as ending:
        relion()
    return ending.value.code, capfd.readouterr().err


def one_sentence(text, message):
    errors = [line for line in text.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("kind", BAD)
def test_import_and_recover(project, mtd, kind):
    harm, code, message, rest = BAD[kind]
    harm()
    options = [word for name, value in RECOVER.items() for word in ("--" + name.replace("_", "-"), value)]
    for command in (("import", "m.star", "-o", "m.zarr"), ("recover", "m.star", "-o", "run", *options)):
        one_sentence(mtd(*command, code=code).output, message)
        assert not list(project.glob("m.zarr"))  # nothing half done
        assert not list(project.glob("run/run.json"))
    for command in (("import", "m.star", "-o", "m.zarr"), ("recover", "m.star", "-o", "run", *options)):
        told = mtd(*command, "--skip-bad", code=0 if rest else code).output
        assert (
            f"skipped: {message}" in told or f"skipped: all micrographs should have the {message}" in told
        ) == rest
    if rest:
        assert json.loads((project / "run/run.json").read_text())["measurement"]["shape"] == [2, 48, 60]


@pytest.mark.parametrize("kind", BAD)
def test_the_relion_job(project, capfd, monkeypatch, kind):
    harm, code, message, rest = BAD[kind]
    harm()
    ended, err = job(capfd, monkeypatch, **RECOVER)
    assert (ended, Path("job/RELION_JOB_EXIT_FAILURE").exists()) == (code, True)
    one_sentence(err, message)
    ended, err = job(capfd, monkeypatch, **RECOVER, skip_bad="Yes")
    assert ended == (0 if rest else code)
    if rest:
        assert message in err
        listed = read_star("job/autopick.star")["coordinate_files"]["rlnMicrographName"]
        assert listed == ["a.mrc", "b.mrc"]


def spoil(row, **values):
    table = read_star("picks.star")[""]
    for label, value in values.items():
        table[label][row] = value
    write_star("picks.star", "", table)


#: What is done to the picks, and the sentence.
WRONG = {
    "outside": (lambda: spoil(0, rlnCoordinateX="61"), "inside its 60 x 48 pixels; 1 of 3 do not, the first X = 61, Y = 8"),
    "not a number": (lambda: spoil(4, rlnCoordinateY="nan"), "b.mrc in picks.star should be numbers; 1 of 3 are not"),
    "no such micrograph": (lambda: spoil(2, rlnMicrographName="z.mrc"), "z.mrc is none of its 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_coordinates(project, mtd, mtd_json, capfd, monkeypatch, kind):
    ended, err = job(capfd, monkeypatch, **RECOVER, in_coords="picks.star")
    assert ended == 0, err
    right = json.loads(Path("job/evaluation.json").read_text())
    assert right == mtd_json("evaluate", "job/run", "--truth", "picks.star")["detections"]
    assert (right["copies"], right["micrographs"]) == (9, 3)
    harm, message = WRONG[kind]
    harm()
    one_sentence(mtd("evaluate", "job/run", "--truth", "picks.star", code=65).output, message)
    told = mtd("evaluate", "job/run", "--truth", "picks.star", "--skip-bad", "--json")
    assert message in told.stderr
    assert json.loads(told.stdout)["detections"]["copies"] == 8
    before = Path("job/run/run.json").read_bytes()
    ended, err = job(capfd, monkeypatch, **RECOVER, in_coords="picks.star")
    assert ended == 65
    one_sentence(err, message)
    assert Path("job/run/run.json").read_bytes() == before  # told before the long part, and nothing lost
    ended, err = job(capfd, monkeypatch, **RECOVER, in_coords="picks.star", skip_bad="Yes")
    assert (ended, json.loads(Path("job/evaluation.json").read_text())["copies"]) == (0, 8)


def test_marked_squares_are_found(project, mtd, mtd_json):
    np.save("start.npy", np.pad(np.ones((5, 5)), 2)[:8, :8])
    mtd("recover", "m.star", "-o", "run", "--box-size", 8, "--initial", "start.npy", "--device", "cpu")
    found = mtd_json("evaluate", "run", "--truth", "picks.star", "--max-distance", 2)["detections"]
    assert (found["precision"], found["recall"], found["recall_with_whole_box"]) == (1.0, 1.0, 1.0)
    found = mtd_json("evaluate", "run", "--truth", "picks.star", "--max-distance", 0)["detections"]
    assert found["recall"] < 1.0
    mtd("evaluate", "run", "--max-distance", 1, code=2)
