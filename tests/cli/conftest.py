import json

import pytest


@pytest.fixture
def mtd_json(mtd):
    """The same with ``--json``, parsed; stdout must hold nothing else."""
    return lambda *args, code=0: json.loads(mtd(*args, "--json", code=code).stdout)


@pytest.fixture
def measurement(mtd, tmp_path):
    """A small simulated measurement."""
    path = tmp_path / "measurement.zarr"
    mtd("simulate", "glyph", "-o", path, "--box-size", 12, "--size", "90x100", "--snr", 5, "--seed", 1)
    return path
