import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture
def run_script():
    """Run a script of this folder: the JSON lines that it prints."""

    def run(name, *args, **environment):
        command = [sys.executable, str(HERE / name), *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=3000, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory):
    """Compile a C file of this folder: the path of a library to be preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults are injected by a preloaded library, which needs Linux and a C compiler")

    def compiled(name):
        out = tmp_path_factory.mktemp("preloaded") / f"{name}.so"
        source = str(HERE / f"{name}.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", source, "-o", str(out), "-ldl"], check=True)
        return str(out)

    return compiled


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
