import json
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def mtd_process():
    """`mtd` as a process of its own, killed at the end of the test."""
    started = []

    def start(*args, before="", **options):
        code = f"{before}\nfrom mtdcli.main import main; main()"
        command = [sys.executable, "-c", code, *map(str, args)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def measurement(mtd, tmp_path):
    """A tiny simulated measurement."""
    path = tmp_path / "measurement.zarr"
    mtd("simulate", "glyph", "-o", path, "--box-size", 8, "--size", "70x80", "--snr", 5, "--seed", 1)
    return path


@pytest.fixture
def results():
    """Everything of a finished run that must not depend on how often it was interrupted."""

    def read(folder):
        rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
        time_column = rows[0].index("seconds")
        images = [np.load(folder / name).tobytes() for name in ("estimate.npy", "aligned_average.npy")]
        record = json.loads((folder / "run.json").read_text())
        return [row[:time_column] + row[time_column + 1 :] for row in rows], images, record["result"]

    return read
