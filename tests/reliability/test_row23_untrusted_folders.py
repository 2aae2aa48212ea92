"""Folders and files that others made (row 23): nothing hangs, nothing fills the memory, nothing outside is read or written."""

import gzip
import importlib
import io
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from mtdcli.run.folder import RunFolder
from mtdcli.run.lock import FolderInUse, locked
from mtdcore._base.numerics import kernels as cache
from mtdcore._base.processes import Process
from mtdcore._base.records import Damaged, unseal
from mtdcore.data import open_measurement
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.em.checkpoint import load_checkpoint
from mtdcore.errors import CheckpointError, InputError
from mtdcore.estep.statistics import Statistics
from mtdcore.synthetic.particles import open_volume_truth
from mtdcore.synthetic.simulate import open_simulation

#: What the bombs unpack to: as little as is refused (`guarded.SMALL`) and a quarter more, in blocks.
BLOCK, BLOCKS = 16 << 20, 20


def header(shape, dtype):
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": dtype, "fortran_order": False, "shape": shape})
    return text.getvalue()


def npz_bomb(path, name, dtype="|u1", **others):
    """An archive of half a megabyte that unpacks to 320 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for other, array in others.items():
            text = io.BytesIO()
            np.save(text, array)
            file.writestr(f"{other}.npy", text.getvalue())
        with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
            entry.write(header((BLOCKS * BLOCK // np.dtype(dtype).itemsize // 1024, 1024), dtype))
            for _ in range(BLOCKS):
                entry.write(bytes(BLOCK))


def gz_bomb(path):
    with gzip.open(path, "wb", 9) as file:
        file.write(b"\0\0\x08\3" + np.array([BLOCKS * BLOCK >> 20, 1024, 1024], ">u4").tobytes())
        for _ in range(BLOCKS):
            file.write(bytes(BLOCK))


READ = """
import sys, warnings
from pathlib import Path
import numpy
{imports}
from mtdcore.em.checkpoint import load_checkpoint
from mtdcore.errors import CheckpointError, InputError
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
try:
    {read}
except InputError as problem:
    print("refused:", problem)
print("grew by", (peak() - before) // 1024)
"""

BOMBS = {
    "image": (lambda folder: npz_bomb(folder / "b.npz", "x"), "from mtdcli.inputs.sources import read_images", "list(read_images(path / 'b.npz'))"),
    "training": (lambda folder: npz_bomb(folder / "b.npz", "x"), "from mtdbridge.training.images import load_images", "load_images(path / 'b.npz', key='x')"),
    "idx": (lambda folder: gz_bomb(folder / "b.idx.gz"), "from mtdbridge.training.images import load_images", "load_images(path / 'b.idx.gz')"),
    "digests": (lambda folder: npz_bomb(folder / "own.zarr/digests.npz", "chunks", "<u8", metadata=np.uint64(0)), "from mtdcore.data import open_measurement", "open_measurement(path / 'own.zarr')"),
    "truth of a volume": (lambda folder: npz_bomb(folder / "own.zarr/volume_truth.npz", "volume", "<f8"), "from mtdcore.synthetic.particles import open_volume_truth", "open_volume_truth(path / 'own.zarr')"),
    "structures": (lambda folder: npz_bomb(folder / "b.npz", "xyz", "<f2"), "from mtdbridge.proteins.loading import load_structures", "load_structures(path / 'b.npz')"),
    "truth": (lambda folder: npz_bomb(folder / "own.zarr/truth.npz", "target", "<f8"), "from mtdcore.synthetic.simulate import open_simulation", "open_simulation(path / 'own.zarr')"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_does_not_fill_the_memory(tmp_path, measurement, kind):
    make, imports, read = BOMBS[kind]
    if "mtdbridge" in imports:
        pytest.importorskip("torch")
    shutil.copytree(measurement, tmp_path / "own.zarr")
    make(tmp_path)
    code = READ.format(imports=imports, read=f"path = Path(sys.argv[1]); {read}")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "refused:" in done.stdout
    assert int(done.stdout.split()[-1]) < 100


#: What lies in a measurement, and its reader.
INSIDE = {
    "digests.npz": open_measurement,
    "truth.npz": open_simulation,
    "volume_truth.npz": open_volume_truth,
    "micrographs.json": MicrographTable.load,
    "zarr.json": open_measurement,
}


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("name", INSIDE)
def test_pipes_and_links_in_a_measurement_are_refused(tmp_path, measurement, name, kind):
    place = measurement / name
    if place.exists():
        place.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text('[{"name": "a", "transfer": null}]')
    os.mkfifo(place) if kind == "pipe" else place.symlink_to("../elsewhere")
    with pytest.raises(InputError):
        INSIDE[name](measurement)


@pytest.mark.parametrize("name", ["run.json", "history.csv", "estimate.npy", "detections.csv"])
def test_pipes_in_a_run_folder_are_refused(mtd, measurement, tmp_path, name):
    run = tmp_path / "run"
    mtd("recover", measurement, "-o", run, "--box-size", 8, "--iterations", 1)
    (run / name).unlink()
    os.mkfifo(run / name)
    mtd("report", run, code=65)


def test_pipes_in_the_place_of_sealed_files_are_refused(tmp_path):
    pipe = tmp_path / "checkpoint.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(Damaged, match="a pipe"):
        unseal(pipe)
    with pytest.raises(CheckpointError, match="a pipe"):
        load_checkpoint(pipe, {})
    with pytest.raises(InputError, match="a pipe"):
        Statistics.load(pipe)


def test_a_pipe_in_the_place_of_the_record_of_a_volume_is_refused(mtd, tmp_path):
    os.mkfifo(tmp_path / "run.json")
    mtd("evaluate", "--volume", tmp_path, code=65)


@pytest.mark.parametrize(
    ("name", "module", "read"),
    [
        ("m.mrc", "mtdcore.model.volumes.maps", "read_map"),
        ("s.npz", "mtdbridge.proteins.loading", "load_structures"),
        ("s.pdb", "mtdbridge.proteins.coordinates", "read_atoms"),
    ],
)
def test_pipes_in_the_place_of_maps_and_structures_are_refused(tmp_path, name, module, read):
    for needed in ("mrcfile", "gemmi"):
        pytest.importorskip(needed)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="a pipe"):
        getattr(importlib.import_module(module), read)(tmp_path / name)


def test_archives_with_other_sizes_than_they_say(tmp_path):
    from mtdcore._base.guarded import archive

    path = tmp_path / "a.npz"
    for shape, dtype, content in (
        ((10,), "<f8", bytes(8)),
        ((10,), "|O", bytes(80)),
        ((1 << 40,), "<f8", b""),
    ):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", header(shape, dtype) + content)
        with archive(path) as found, pytest.raises(InputError, match="should hold numbers"):
            found["x"]
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(path, x=array, y=np.float32(3), z=np.zeros((0, 2)))
    with archive(path) as found:
        assert found.names == ["x", "y", "z"]
        for name, expected in (("x", array), ("y", np.float32(3)), ("z", np.zeros((0, 2)))):
            assert np.array_equal(found[name], expected)
            assert found[name].dtype == expected.dtype
    content = bytearray(path.read_bytes())
    content[content.index(array.T.tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with archive(path) as found, pytest.raises(zipfile.BadZipFile):
        found["x"]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_a_lock_that_is_something_else_is_not_touched(tmp_path, kind):
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.write_text("ssh-rsa AAAA very important")
    lock = run / ".lock"
    match kind:
        case "link":
            lock.symlink_to(victim)
        case "hard link":
            lock.hardlink_to(victim)
        case "pipe":
            os.mkfifo(lock)
        case "folder":
            lock.mkdir()
    with pytest.raises(OSError, match=r"\.lock should be a lock file; .*remove it"), locked(run):
        pass
    assert victim.read_text() == "ssh-rsa AAAA very important"


def test_only_what_mtd_left_is_cleaned_up(tmp_path):
    kept = [".download.iso.part", ".notes.txt.12.part", ".estimate.npy.part", "estimate.npy.1.part"]
    for name in (*kept, ".estimate.npy.12.part", ".detections.csv.3.part"):
        (tmp_path / name).touch()
    (tmp_path / "victim").touch()
    (tmp_path / ".run.json.7.part").symlink_to("victim")
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {*kept, ".lock", "victim", ".run.json.7.part"}


@pytest.fixture(scope="module")
def poor_file_system(preloaded):
    """A library that answers as file systems without locks, or without flushing of folders, do."""
    return preloaded("nofs")


@pytest.mark.parametrize(
    "lacks",
    [{"NOFSYNCDIR": "1"}, {"NOFLOCK": "38"}, pytest.param({"NOFLOCK": "37"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_run_on_a_poor_file_system(poor_file_system, mtd_process, measurement, tmp_path, lacks):
    words = (
        "recover",
        measurement,
        "-o",
        tmp_path / "run",
        "--box-size",
        8,
        "--iterations",
        2,
        "--device",
        "cpu",
    )
    process = mtd_process(*words, env={**os.environ, "LD_PRELOAD": poor_file_system, **lacks})
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert not (tmp_path / "run/.lock.owner").exists()
    RunFolder(tmp_path / "run").read_record()


HOLD = """
import sys, time
from pathlib import Path
from mtdcli.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_without_locks_a_file_says_who_holds_a_folder(poor_file_system, tmp_path):
    poor = {**os.environ, "LD_PRELOAD": poor_file_system, "NOFLOCK": "38"}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=poor) as holder:
        assert holder.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, env=poor, check=False, timeout=60)
        assert f"in use by process {holder.pid} on" in second.stderr
        holder.kill()
    assert (tmp_path / ".lock.owner").exists()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=poor
    ) as third:  # the killed one does not count
        assert third.stdout.readline() == "held\n"
        third.kill()


def test_a_lock_of_another_machine_counts(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    here = Process.current()
    (tmp_path / ".lock.owner").write_text(str(Process(here.number, "elsewhere", here.boot, "1")))
    with (
        pytest.raises(FolderInUse, match=rf"process {here.number} on elsewhere \(if that is no more, remove"),
        locked(tmp_path),
    ):
        pass
    (tmp_path / ".lock.owner").write_text(str(Process(here.number, here.host, here.boot, "an earlier start")))
    with locked(tmp_path):
        assert Process.parse((tmp_path / ".lock.owner").read_text()) == here
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "where", "expected"), [(0o755, "own", True), (0o777, "own", False), (0o777, "above", False), (0o1777, "above", True), (0o775, "own", None)])  # fmt: skip
def test_a_cache_of_kernels_that_others_can_write_is_not_used(tmp_path, mode, where, expected, caplog):
    """What lies there is code."""
    above = tmp_path / "above"
    folder = above / "cache"
    folder.mkdir(parents=True)
    above.chmod(0o755)
    folder.chmod(0o755)
    (folder if where == "own" else above).chmod(mode)
    cache.trusted.cache_clear()
    if expected is None:  # writable for a group: only if nobody else is in it
        expected = cache._private(folder.stat())
    files = cache.SealedFiles(folder, "f", tmp_path)
    files.save("key", "entry")
    assert (files.load("key") == "entry") == expected
    assert (len(list(folder.iterdir())) == 1) == expected
    assert ("others can write to" in caplog.text) != expected
    cache.trusted.cache_clear()
