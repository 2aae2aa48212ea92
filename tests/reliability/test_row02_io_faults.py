"""Every call of the file system fails in turn; disks fill up (rows 2 and 3)."""

import pytest

QUICK = ("--box-size", 8, "--rotations", 1, "--tolerance", 0, "--iterations", 3, "--device", "cpu")

#: Faults that each scenario must have met, so that a scenario that does nothing does not pass.
LEAST = {
    "SaveCheckpoint": 30,
    "LoadCheckpoint": 3,
    "WriteResults": 40,
    "ReplaceMeasurement": 100,
    "ReadMeasurement": 60,
    "ReadNpy": 20,
}


@pytest.fixture(scope="session")
def library(preloaded):
    return preloaded("faults")


@pytest.mark.parametrize(
    "scenario",
    [
        "SaveCheckpoint",
        "LoadCheckpoint",
        "WriteResults",
        pytest.param("ReplaceMeasurement", marks=pytest.mark.slow),
        "ReadMeasurement",
        "ReadNpy",
    ],
)
def test_every_call_fails_in_turn(library, run_script, tmp_path, scenario):
    (found,) = run_script("faults.py", tmp_path, scenario, LD_PRELOAD=library)
    assert found["faults"] >= LEAST[scenario]


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"


@pytest.mark.parametrize("limit", [700, 2500])
def test_a_full_disk(mtd, mtd_process, measurement, tmp_path, limit):
    """700 bytes do not hold a checkpoint, 2500 do not hold the results: old files stay, temporary ones go."""
    run = tmp_path / "run"
    mtd("recover", measurement, "-o", run, *QUICK)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"}
    process = mtd_process(
        "recover", measurement, "-o", run, *QUICK, "--resume", before=FULL.format(limit=limit)
    )
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 74, stderr
    assert "could not be written" in stderr
    assert "File too large" in stderr
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"}
    assert set(after) - set(before) <= {"checkpoint.previous.safetensors"}
    assert set(before) <= set(after)
    assert not list(run.glob(".*.part"))
    changed = {name for name in before if after[name] != before[name]}
    assert not [name for name in changed if "checkpoint" in name and len(after[name]) < len(before[name])]
    mtd("recover", measurement, "-o", run, *QUICK, "--resume")
    assert (run / "estimate.npy").read_bytes() == before["estimate.npy"]


def test_a_full_disk_while_simulating(mtd_process, tmp_path):
    process = mtd_process(
        "simulate", "glyph", "-o", tmp_path / "m.zarr", "--size", "300", before=FULL.format(limit=4096)
    )
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 74, stderr
    assert "File too large" in stderr
    assert list(tmp_path.iterdir()) == []
