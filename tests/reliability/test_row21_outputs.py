"""Nothing that mtd did not write is ever replaced or removed (row 21)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mtdcore._base.outputs import CLAIM, making_folder
from mtdcore._base.processes import Process
from mtdcore.data import open_measurement
from mtdcore.errors import StorageError
from mtdcore.synthetic.simulate import simulate

PIXELS = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def tree(folder):
    """Every entry of a folder with its content, or where it leads."""
    return {
        path.relative_to(folder): os.readlink(path)
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.fixture
def project(tmp_path):
    """Somebody's folder, with an image in it, a link to it, and measurements of several kinds."""
    folder = tmp_path / "project"
    (folder / "raw").mkdir(parents=True)
    np.save(folder / "raw/m.npy", PIXELS)
    (folder / "thesis.tex").write_text("thesis")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("a plain file")
    (tmp_path / "empty").mkdir()
    simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=tmp_path / "own.zarr")
    shutil.copytree(tmp_path / "own.zarr", tmp_path / "annotated.zarr")
    (tmp_path / "annotated.zarr/labels").mkdir()
    shutil.copytree(tmp_path / "own.zarr", tmp_path / "other.zarr")
    metadata = json.loads((tmp_path / "own.zarr/zarr.json").read_text())
    del metadata["attributes"]["mtdcore"]
    (tmp_path / "other.zarr/zarr.json").write_text(json.dumps(metadata))
    shutil.copytree(tmp_path / "own.zarr", tmp_path / "linked.zarr")
    (tmp_path / "linked.zarr/truth.npz").unlink()
    (tmp_path / "linked.zarr/truth.npz").symlink_to(folder / "thesis.tex")
    return tmp_path


#: A volume of hardly an iteration.
SHORT = ("--iterations", 2, "--views", 40, "--no-halves")

FOREIGN = (
    "project",
    "link",
    "gone",
    "file",
    "empty",
    "annotated.zarr",
    "other.zarr",
    "linked.zarr",
    "project/raw/m.npy",
)


@pytest.mark.parametrize("output", FOREIGN)
@pytest.mark.parametrize("command", ["import", "simulate"])
def test_force_replaces_no_more_than_measurements_of_mtd(mtd, project, command, output):
    before = tree(project)
    source = {"import": project / "project/raw/m.npy", "simulate": "glyph"}[command]
    said = mtd(command, source, "-o", project / output, "--force", code=74).stderr
    assert said.startswith("mtd: error: ")
    assert tree(project) == before
    mtd(command, source, "-o", project / "own.zarr", "--force")
    assert open_measurement(project / "own.zarr").shape != (1, 16, 16)
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".")) == []


def test_an_input_is_never_replaced_nor_what_holds_it(mtd, project):
    shutil.copy(project / "project/raw/m.npy", project / "own.zarr/truth.npz")  # under a name of ours
    before = tree(project)
    (project / "list.npy").symlink_to(project / "own.zarr/truth.npz")
    said = mtd("import", project / "list.npy", "-o", project / "own.zarr", "--force", code=74).stderr
    assert "hold what is read" in said
    (project / "list.npy").unlink()
    assert tree(project) == before


def test_the_map_of_a_run_replaces_no_measurement_and_no_run(mtd, measurement, tmp_path):
    run = tmp_path / "run"
    mtd("recover", measurement, "-o", run, "--box-size", 8, "--iterations", 1)
    for place in (measurement, run, tmp_path, measurement / "map"):
        before = tree(tmp_path)
        mtd("detect", run, "--posterior-map", place, "--force", code=74)
        assert tree(tmp_path) == before
    mtd("detect", run, "--posterior-map", tmp_path / "map.zarr")
    mtd("detect", run, "--posterior-map", tmp_path / "map.zarr", code=74)
    mtd("detect", run, "--posterior-map", tmp_path / "map.zarr", "--force")


@pytest.mark.parametrize("volume", [(), ("--volume",)])
def test_a_run_is_no_part_of_a_measurement(mtd, measurement, tmp_path, volume):
    before = tree(tmp_path)
    for place in (measurement, measurement / "run"):
        options = ("-o", place, "--box-size", 8, *volume)
        assert "measurement" in mtd("recover", measurement, *options, code=74).stderr
    assert tree(tmp_path) == before


def test_a_run_replaces_no_files_of_others_and_none_that_it_reads(mtd, measurement, tmp_path):
    run, options = tmp_path / "run", ("--box-size", 8, "--iterations", 1)
    run.mkdir()
    (run / "report.html").write_text("mine")
    said = mtd("recover", measurement, "-o", run, *options, "--force", code=74).stderr
    assert "it holds report.html without one" in said
    assert (run / "report.html").read_text() == "mine"
    (run / "report.html").unlink()
    mtd("recover", measurement, "-o", run, *options)
    start = (run / "estimate.npy").read_bytes()
    again = mtd(
        "recover", measurement, "-o", run, *options, "--initial", run / "estimate.npy", "--force", code=74
    )
    assert "is read and would be replaced" in again.stderr
    assert (run / "estimate.npy").read_bytes() == start


def test_a_run_of_a_volume_replaces_no_files_of_others_and_none_that_it_reads(mtd, measurement, tmp_path):
    """A job folder of RELION once lost its half maps without --force."""
    pytest.importorskip("mrcfile")
    job, run, options = tmp_path / "job", tmp_path / "run", ("--box-size", 8, "--volume", *SHORT)
    job.mkdir()
    for name in ("half1.mrc", "particles.star", "run_data.star"):
        (job / name).write_text("of RELION")
    before = tree(job)
    for force in ((), ("--force",)):
        said = mtd("recover", measurement, "-o", job, *options, *force, code=74).stderr
        assert "it holds half1.mrc, particles.star without one" in said
        (job / ".lock").unlink()
        assert tree(job) == before
    mtd("recover", measurement, "-o", run, *options)
    start = (run / "volume.mrc").read_bytes()
    again = (*options, "--initial", run / "volume.mrc", "--force")
    assert "is read and would be replaced" in mtd("recover", measurement, "-o", run, *again, code=74).stderr
    assert (run / "volume.mrc").read_bytes() == start
    for name in ("run.json", "checkpoint.safetensors"):
        (run / name).unlink()
    (run / "watch.safetensors").write_text("of mtd watch")
    assert "mtd watch" in mtd("recover", measurement, "-o", run, *options, "--force", code=74).stderr


def test_a_run_leaves_nothing_of_the_run_that_it_replaces(mtd, measurement, tmp_path):
    """An image over a volume, and a volume over an image."""
    pytest.importorskip("mrcfile")
    volume, image = ("--volume", *SHORT), ("--iterations", 1)
    for first, second in ((volume, image), (image, volume)):
        alone, over = (tmp_path / f"{name}{len(first)}" for name in ("alone", "over"))
        mtd("recover", measurement, "-o", alone, "--box-size", 8, *second)
        mtd("recover", measurement, "-o", over, "--box-size", 8, *first)
        if first is volume:
            for name in ("half1.mrc", "half2.mrc"):  # of --halves
                shutil.copy(over / "volume.mrc", over / name)
        mtd("recover", measurement, "-o", over, "--box-size", 8, *second, "--force")
        assert sorted(path.name for path in over.iterdir()) == sorted(path.name for path in alone.iterdir())


def test_weights_and_their_report_replace_only_their_like(mtd, tmp_path):
    pytest.importorskip("torch")
    options = ("--network", "mlp", "--width", 4, "--steps", 1, "--validation", 0, "--batch-size", 2)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((4, 8, 8)))
    command = ("train-prior", tmp_path / "images.npy", "-o", tmp_path / "p.safetensors", *options)
    (tmp_path / "p.html").write_text("my notes")
    assert "p.html should be a file that mtd wrote" in mtd(*command, code=74).stderr
    (tmp_path / "p.html").unlink()
    mtd(*command)
    mtd(*command, code=74)
    mtd(*command, "--force")
    (tmp_path / "p.safetensors").write_bytes(b"weights of another program")
    assert "something else" in mtd(*command, "--force", code=74).stderr
    assert (tmp_path / "p.safetensors").read_bytes() == b"weights of another program"


@pytest.mark.parametrize("beside", ["p.json", "p.full.safetensors"])
def test_a_training_on_proteins_replaces_nothing_beside_its_weights(mtd, tmp_path, beside):
    pytest.importorskip("torch")
    source, mine = tmp_path / "points.npz", tmp_path / beside
    np.savez(source, xyz=np.zeros((2, 3)), weight=np.ones(2), offset=np.array([0, 2]))
    mine.write_text("my data")
    command = ("train-prior", "--proteins", source, "-o", tmp_path / "p.safetensors", "--steps", 1)
    for force in ((), ("--force",)):
        assert f"{beside} should be a file that mtd wrote" in mtd(*command, *force, code=74).stderr
        assert mine.read_text() == "my data"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_while_a_measurement_is_made_stays(tmp_path, overwrite):
    def make():
        with making_folder(tmp_path / "m", overwrite):
            (tmp_path / "m").mkdir()
            (tmp_path / "m/thesis.tex").write_text("thesis")

    with pytest.raises(StorageError, match=r"exists already|without the mark"):
        make()
    assert tree(tmp_path) == {Path("m"): False, Path("m/thesis.tex"): b"thesis"}


def test_what_is_exchanged_between_the_check_and_the_rename_comes_back(tmp_path, monkeypatch):
    """The folder is judged after it was put aside, where nobody reaches it any more."""
    path, rename = tmp_path / "m.zarr", os.rename
    simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=path)

    def exchanged(source, target):
        if Path(source) == path:
            monkeypatch.undo()
            shutil.rmtree(path)
            path.mkdir()
            (path / "thesis.tex").write_text("thesis")
        rename(source, target)

    monkeypatch.setattr(os, "rename", exchanged)
    with pytest.raises(StorageError, match="changed while"):
        simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=path, overwrite=True)
    assert tree(tmp_path) == {Path("m.zarr"): False, Path("m.zarr/thesis.tex"): b"thesis"}


def test_one_writer_at_a_time_and_it_is_named(tmp_path):
    with (
        making_folder(tmp_path / "m", False),
        pytest.raises(StorageError, match=rf"written by process {os.getpid()} on "),
        making_folder(tmp_path / "m", False),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_process_is_gone_only_when_that_is_certain():
    here = Process.current()
    assert not here.gone
    assert Process.parse(str(here)) == here
    assert Process(here.number, here.host, here.boot, "another start").gone
    assert not Process(here.number, "elsewhere", here.boot, "1").gone
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Process(ended.pid, here.host, here.boot, "1").gone
    assert Process.parse("[]") is Process.parse("{}") is Process.parse('{"number": "x"}') is None


KILLED = """
import sys, time, numpy as np, mtdcore
from mtdcore._base import outputs
from pathlib import Path
what, path = sys.argv[1:]
rename = outputs.os.rename
def slow(a, b):
    rename(a, b)
    print("renamed", flush=True)
    time.sleep(60)
if what == "aside":
    outputs.os.rename = slow
    mtdcore.simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=path, overwrite=True)
with outputs.making_folder(Path(path), True):
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("what", ["begun", "aside"])
def test_what_a_killed_process_left_is_cleaned_up_and_what_it_put_aside_comes_back(tmp_path, what):
    path = tmp_path / "m.zarr"
    simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=path)
    before = tree(path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, what, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / ".m.zarr.mtd.partial" / CLAIM).exists()
    with pytest.raises(StorageError), making_folder(path, False):
        pass
    if what == "aside":  # the name was free, so the old content comes back before anything is written
        with pytest.raises(StorageError, match="exists already"), making_folder(path, False):
            pass
    assert tree(path) == before
    simulate(np.ones((4, 4)), side=24, count=1, noise_std=1.0, path=path, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["m.zarr"]
    assert open_measurement(path).shape == (1, 24, 24)


def test_what_was_left_by_processes_killed_while_they_cleaned_up_goes_too(tmp_path):
    """Half removed, renamed for removal, and with the beginning of a file in it."""
    path = tmp_path / "m.zarr"
    simulate(np.ones((4, 4)), side=16, count=1, noise_std=1.0, path=path)
    before = tree(path)
    aside, taken, begun = (tmp_path / f".m.zarr.mtd.{kind}" for kind in ("old", "partial.4711", "partial"))
    for left in (aside, taken, begun):
        shutil.copytree(path, left)
        (left / "zarr.json").unlink()
        (left / ".digests.npz.4711.part").write_bytes(b"PK")
        os.utime(left, (0, 0))
    with pytest.raises(StorageError), making_folder(path, False):
        pass
    assert tree(path) == before
    with making_folder(path, True):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["m.zarr"]


def test_a_process_killed_before_it_claimed_the_place_holds_nothing(tmp_path):
    """The next process starts at once, and leaves alone what a running one is about to claim the place with."""
    unclaimed, running, empty = (tmp_path / f".m.mtd.partial{end}" for end in (".4711", ".4712", ""))
    for left in (unclaimed, running, empty):
        left.mkdir()
    (running / CLAIM).write_text(str(Process.current()))
    with making_folder(tmp_path / "m", False) as made:
        (made / "zarr.json").write_text("{}")
    assert sorted(one.name for one in tmp_path.iterdir()) == [running.name, "m"]


def test_a_temporary_folder_of_somebody_else_is_not_removed(tmp_path):
    (tmp_path / ".m.mtd.partial").mkdir()
    (tmp_path / ".m.mtd.partial/thesis.tex").write_text("thesis")
    old = time.time() - 1000
    os.utime(tmp_path / ".m.mtd.partial", (old, old))
    with pytest.raises(StorageError, match="did not write it"), making_folder(tmp_path / "m", False):
        pass
    assert (tmp_path / ".m.mtd.partial/thesis.tex").exists()
