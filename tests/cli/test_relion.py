"""The External job as RELION's pipeliner runs it: a process in the project's folder, its files, and nothing else."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mtdcore
from mtdcli.relion import main
from mtdcore.data.micrographs.star import read_star

mrcfile = pytest.importorskip("mrcfile")

pytestmark = pytest.mark.usefixtures("blank_charts")

OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 2.5\n\n"
OPTIONS = {
    "box_size": 12,
    "bin": 2,
    "whiten": "No",
    "background": "none",
    "iterations": 8,
    "initial": "start.npy",
}
GREY = 40.0


def write_list(project, names, version=50001):
    rows = "".join(f"MotionCorr/job002/{name}.mrc 1\n" for name in names)
    table = "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n"
    (project / "micrographs.star").write_text(
        f"\n# version {version}\n\n{OPTICS}# version {version}\n\n{table}{rows}"
    )


@pytest.fixture
def project(tmp_path):
    """Two micrographs of dark particles, twice as fine as the box of 12 will see them, and what they were made of."""
    glyph = mtdcore.synthetic.glyphs.glyphs(1, 12)[0]
    sim = mtdcore.simulate(glyph, shape=(96, 110), count=10, snr=4, separation=1, micrographs=2, seed=2)
    folder = tmp_path / "MotionCorr/job002"
    folder.mkdir(parents=True)
    for name, image in zip("ab", sim.measurement.array, strict=True):
        fine = np.kron(image, np.ones((2, 2)))  # Fourier binning sees the same copies, smoothed
        with mrcfile.new(folder / f"{name}.mrc", data=(1000 - GREY * fine).astype(np.float16)) as file:
            file.voxel_size = 7.0
    np.save(tmp_path / "start.npy", glyph)
    write_list(tmp_path, "ab")
    return tmp_path, sim


class Pipeliner:
    """RELION's side of the contract: it makes the folder, starts the command in the project and looks for files."""

    def __init__(self, project, job="External/job007/"):
        self.project, self.job = project, job
        self.folder = project / job

    def command(self, mics, labels, threads=1):
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [word for label, value in labels.items() for word in (f"--{label}", str(value))]
        program = str(Path(sys.executable).with_name("relion_external_mtd"))
        fixed = ["--j", str(threads), "--pipeline_control", self.job]
        return [program, "--o", self.job, "--in_mics", mics, *words, *fixed]

    def start(self, mics="micrographs.star", threads=1, **labels):
        command = self.command(mics, labels, threads)
        with open(self.folder / "run.out", "a") as out, open(self.folder / "run.err", "a") as err:
            return subprocess.Popen(command, cwd=self.project, stdout=out, stderr=err)

    def start_until_checkpoint(self, **labels):
        process = self.start(**labels)
        while process.poll() is None and not (self.folder / "run/checkpoint.safetensors").exists():
            time.sleep(0.02)
        return process

    def run(self, *args, **labels):
        code = self.start(*args, **labels).wait(timeout=120)
        return code, self.exits, (self.folder / "run.err").read_text()

    @property
    def exits(self):
        return sorted(
            file.name.removeprefix("RELION_JOB_EXIT_") for file in self.folder.glob("RELION_JOB_EXIT_*")
        )

    def table(self, name, block=""):
        return read_star(self.project / name)[block]


def test_a_job_from_start_to_finish(project):
    folder, sim = project
    relion = Pipeliner(folder)
    code, exits, err = relion.run(**OPTIONS)
    assert (code, exits) == (0, ["SUCCESS"]), err

    nodes = relion.table("External/job007/RELION_OUTPUT_NODES.star", "output_nodes")
    assert nodes["rlnPipeLineNodeName"] == [
        "External/job007/autopick.star",
        "External/job007/class_averages.star",
    ]
    assert nodes["rlnPipeLineNodeTypeLabel"][0] == "MicrographCoordsGroup.star.relion.autopick"

    listed = relion.table("External/job007/autopick.star", "coordinate_files")
    assert listed["rlnMicrographName"] == ["MotionCorr/job002/a.mrc", "MotionCorr/job002/b.mrc"]
    found = []
    for index, file in enumerate(listed["rlnMicrographCoordinates"]):
        table = relion.table(file)
        assert {"rlnAnglePsi", "rlnClassNumber", "rlnAutopickFigureOfMerit"} <= table.keys()
        found += [
            (index, float(y), float(x))
            for x, y in zip(table["rlnCoordinateX"], table["rlnCoordinateY"], strict=True)
        ]
    true = sim.positions * [1, 2, 2] + [0, 12, 12]  # box centres in pixels of the files
    distance = np.abs(np.array(found)[:, None] - true[None]).max(axis=2)
    assert (distance.min(axis=0) <= 3).mean() > 0.9
    assert (distance.min(axis=1) <= 3).mean() > 0.9

    (reference,) = relion.table("External/job007/class_averages.star")["rlnReferenceImage"]
    number, _, stack = reference.partition("@")
    with mrcfile.open(folder / stack) as file:
        assert not file.is_volume()
        assert file.voxel_size.x == pytest.approx(5.0)  # 2.5 of the list, not 7 of the headers, times 2
        average = file.data.reshape(-1, 12, 12)[int(number) - 1]
    assert mtdcore.results.metrics.correlation(average, sim.target, 2) > 0.8
    assert np.ptp(average) == pytest.approx(GREY * np.ptp(sim.target), rel=0.35)


def test_an_aborted_job_stops_and_goes_on_from_its_checkpoint(project, inside):
    relion = Pipeliner(project[0])
    long = OPTIONS | {"iterations": 200, "tolerance": 0, "checkpoint_every": 0}
    process = relion.start_until_checkpoint(**long)
    (relion.folder / "RELION_JOB_ABORT_NOW").touch()
    assert process.wait(timeout=100) == 1
    assert relion.exits == ["ABORTED"], (relion.folder / "run.err").read_text()
    assert not (relion.folder / "run/run.json").exists()
    code, exits, err = inside(**long)
    assert (code, exits) == (0, ["SUCCESS"]), err
    assert "going on after iteration" in err
    assert not (relion.folder / "RELION_JOB_ABORT_NOW").exists()


@pytest.mark.slow
def test_a_job_that_is_ended_by_the_batch_system_goes_on_with_other_threads(project, inside):
    relion = Pipeliner(project[0])
    long = OPTIONS | {"iterations": 200, "tolerance": 0, "checkpoint_every": 0}
    process = relion.start_until_checkpoint(**long)
    process.terminate()
    assert process.wait(timeout=100) != 0
    assert relion.exits == ["ABORTED"], (relion.folder / "run.err").read_text()
    code, exits, err = inside(threads=2, **long)
    assert (code, exits) == (0, ["SUCCESS"]), err
    assert "going on after iteration" in err


@pytest.fixture
def inside(project, monkeypatch, capfd):
    """The same command in this process: the exit code, the exit files and what went to stderr."""
    relion = Pipeliner(project[0])
    monkeypatch.chdir(project[0])

    def run(threads=1, **labels):
        monkeypatch.setattr("sys.argv", relion.command("micrographs.star", labels, threads))
        with pytest.raises(SystemExit) as ending:
            main()
        return ending.value.code, relion.exits, capfd.readouterr().err

    return run


def test_a_failing_job_says_so_and_leaves_nothing_for_the_pipeline(project, inside):
    code, exits, err = inside(**OPTIONS | {"box_size": 400})
    assert (code, exits) == (65, ["FAILURE"])
    assert "choose a smaller box size" in err
    assert not list(project[0].rglob("RELION_OUTPUT_NODES.star"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"box_sise": 12}, "no option --box_sise"),
        ({"whiten": "maybe"}, "Yes or No"),
        ({"output": "x"}, "no option --output"),
        ({}, "Missing option '--box_size'"),
        ({"particle_diameter": 40, "diameter": 8}, "give one of them"),
        ({"box_size": "many"}, "Invalid value for '--box_size'"),
        ({"box_size": 12, "mask_edge": -1}, "Invalid value for '--mask_edge'"),
        ({"box_size": 12, "threshold": 2}, "Invalid value for '--threshold'"),
    ],
)
def test_wrong_labels_are_one_line(project, inside, labels, said):
    """And told before anything is imported."""
    code, exits, err = inside(**labels)
    assert (code, exits) == (2, ["FAILURE"])
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(project[0].rglob("*.zarr"))


def test_a_job_asked_to_stop_while_it_imports_stops_there(project, inside, monkeypatch):
    abort = project[0] / "External/job007/RELION_JOB_ABORT_NOW"
    monkeypatch.setattr("mtdcli.inputs.frames.Frames.contrast", property(lambda self: abort.touch()))
    assert inside(**OPTIONS)[:2] == (1, ["ABORTED"])
    assert not list(project[0].rglob("run.json"))


def test_a_finished_job_starts_anew(project, inside):
    assert inside(**OPTIONS)[1] == ["SUCCESS"]
    assert "going on" not in inside(**OPTIONS)[2]
    record = project[0] / "External/job007/run/run.json"
    assert '"iterations": 8' in record.read_text()
    assert inside(**OPTIONS | {"iterations": 3})[1] == ["SUCCESS"]
    assert '"iterations": 3' in record.read_text()


def test_a_diameter_in_angstrom_gives_that_in_pixels_and_the_box(project, inside):
    """At 2.5 angstrom binned by 2."""
    sized = {name: value for name, value in OPTIONS.items() if name != "box_size"}
    code, exits, err = inside(**sized, particle_diameter=40)
    assert (code, exits) == (0, ["SUCCESS"]), err
    asked = json.loads((project[0] / "External/job007/run/run.json").read_text())["parameters"]
    assert (asked["diameter"], asked["box_size"]) == (8.0, 12)


def test_bad_micrographs_stop_the_job_or_are_left_out(project, inside):
    folder, _ = project
    (folder / "MotionCorr/job002/c.mrc").write_bytes(b"x" * 1500)
    write_list(folder, ["c", "gone", "a", "b"])
    code, exits, err = inside(**OPTIONS)
    assert (code, exits) == (65, ["FAILURE"])
    assert "c.mrc" in err
    code, exits, err = inside(**OPTIONS, skip_bad="Yes")
    assert (code, exits) == (0, ["SUCCESS"]), err
    assert err.count("skipped:") == 2
    listed = read_star(folder / "External/job007/autopick.star")["coordinate_files"]
    assert listed["rlnMicrographName"] == ["MotionCorr/job002/a.mrc", "MotionCorr/job002/b.mrc"]
