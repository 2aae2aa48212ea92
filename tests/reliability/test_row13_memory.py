"""Memory does not follow the size of a measurement, and ``--max-memory`` is kept (row 13)."""

import subprocess
import sys

import pytest

import mtdcore as mtd_api

PEAK = """
import resource, sys
from mtdcli.main import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr)
"""


def peak(*args):
    """Largest resident memory of a command, bytes."""
    command = [sys.executable, "-c", PEAK, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_max_memory_is_kept_and_a_larger_measurement_needs_no_more(tmp_path):
    target = mtd_api.datasets.glyphs(1, 12)[0]
    peaks = {}
    for side in (1000, 3162, 10_000):
        path = tmp_path / f"{side}.zarr"
        mtd_api.simulate(target, side=side, density=0.05, snr=1.0, rotations=1, seed=0, path=path)
        options = (
            "--box-size",
            12,
            "--rotations",
            1,
            "--iterations",
            1,
            "--threads",
            2,
            "--max-memory",
            "1G",
        )
        peaks[side] = peak("recover", path, "-o", tmp_path / str(side), *options, "--device", "cpu")
    assert max(peaks.values()) < 1 << 30
    assert peaks[10_000] - peaks[3162] < 1 << 20, peaks
