"""Memory does not follow the size of a measurement, and ``--max-memory`` is kept (row 13)."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

import mtdcore as mtd_api
from mtdcore.data.defects import without_defects
from mtdcore.data.zarr.store import creating

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")

#: Micrographs of 512 x 512 pixels: 4, 42 and 419 million pixels.
SIZES = (16, 160, 1600)

TARGET = np.random.default_rng(1).normal(size=(5, 5))
LIKELIHOODS = {
    "patch": mtd_api.PatchLikelihood(mtd_api.Rotations(4, 5), 2.0, 0.5),
    "window": mtd_api.WindowLikelihood(mtd_api.Rotations(4, 5), 2.0, expected_count=1000.0),
}


def e_step(path, model):
    mtd_api.e_step(path, TARGET, LIKELIHOODS[model], mtd_api.get_backend("cpu", threads=1))


def recovery(path, model):
    """As the command line does it: noise level, defects, two E-steps and the evidence."""
    backend = mtd_api.get_backend("cpu", threads=1)
    measurement = without_defects(mtd_api.open_measurement(path))
    options = {"initial": TARGET, "likelihood": model, "iterations": 1, "backend": backend}
    mtd_api.recover(measurement, box_size=5, rotations=4, **options)


def peaks(work, model, paths):
    """Largest resident MB over each measurement; the counter of the kernel is reset before each."""
    found = []
    for path in paths:
        Path("/proc/self/clear_refs").write_text("5")
        work(str(path), model)
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        found.append(int(status["VmHWM"].split()[0]) / 1024)
    return found


@pytest.fixture(scope="module")
def measurements(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("memory"), np.random.default_rng(0)
    for size in SIZES:
        with creating(folder / f"{size}", (size, 512, 512), np.dtype(np.int8), {}) as (array, _):
            for m in range(size):
                array[m] = np.rint(2 * rng.standard_normal((512, 512), np.float32)).astype(np.int8)
    return [folder / f"{size}" for size in SIZES]


@pytest.mark.slow
@pytest.mark.parametrize("work", [e_step, recovery], ids=["e_step", "recovery"])
@pytest.mark.parametrize("model", LIKELIHOODS)
def test_ten_and_a_hundred_times_the_data_take_one_megabyte_more(measurements, model, work):
    """After a warm-up that compiles every kernel and fills the pools of the allocator, on one thread.

    What readers hold at once depends on their pace, which other work on the machine changes: the longer a measurement is read, the likelier they
    are far ahead once. So it is compared with as much data in ten measurements, the most of which counts.
    """
    once, ten, hundred = measurements
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(peaks, (work, model, [ten] * 3))
        small, middle, large = (
            max(pool.apply(peaks, (work, model, paths))) for paths in ([once] * 10, [ten] * 10, [hundred])
        )
    print(f"{work.__name__} {model}: {small:.1f}, {middle:.1f}, {large:.1f} MB")
    assert middle <= small + 1.0
    assert large <= middle + 1.0


def wide_e_step(path, _):
    model = mtd_api.WindowLikelihood(mtd_api.Rotations(4, 28), 1.0, expected_count=100.0)
    target = np.random.default_rng(1).normal(size=(28, 28))
    mtd_api.e_step(path, target, model, mtd_api.get_backend("cpu", threads=2))


@pytest.mark.slow
def test_larger_micrographs_in_large_chunks(tmp_path):
    """Arrays of other programs, float32 in chunks of 1024 x 1024.

    Of 2048 x 2048 pixels all four chunks are read before the second tile is done, and tiles are cut smaller (755 pixels a
    side); from 4096 x 4096 on as much lies in memory as ever will (tiles of up to 1024 pixels).
    """
    import zarr

    for side in (2048, 4096, 8192):
        array = zarr.create_array(
            str(tmp_path / f"{side}"), shape=(side, side), dtype="f4", chunks=(1024, 1024), compressors=None
        )
        for i in range(0, side, 1024):
            array[i : i + 1024] = np.random.default_rng(i).standard_normal((1024, side), np.float32)
    small, middle, large = (tmp_path / f"{side}" for side in (2048, 4096, 8192))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        *_, first, second, third = pool.apply(
            peaks, (wide_e_step, "window", [middle] * 2 + [small, middle, large])
        )
    print(f"{first:.1f}, {second:.1f}, {third:.1f} MB")
    assert third <= 1.05 * second
    assert third <= first + 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--box-size", 28],
        ["--box-size", 28, "--likelihood", "patch"],
        ["--box-size", 64, "--rotations", 36, "--coarse-rotations", 36],
        ["--box-size", 64, "--rotations", 36, "--likelihood", "patch"],
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_max_memory_is_kept(mtd, peak_memory, tmp_path, options):
    """The least that is accepted is enough, from the start of the process to its report."""
    path, target = tmp_path / "m.zarr", mtd_api.datasets.glyphs(1, 28)[0]
    mtd_api.simulate(target, side=2048, density=0.05, snr=1.0, rotations=4, seed=0, path=path)
    command = ["recover", path, "-o", tmp_path / "run", *options, "--iterations", 1, "--device", "cpu"]
    error = mtd(*command, "--max-memory", "64M", code=2).stderr
    least = int(error.split("at least ")[1].split("M")[0])
    script = "from mtdcli.main import main; main()"
    found = peak_memory(script, *command, "--threads", 2, "--max-memory", f"{least}M") / 2**20
    print(f"{options}: {found:.0f} of {least} MiB")
    assert found <= least
