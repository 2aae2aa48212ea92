import json

import pytest
from click.testing import CliRunner

from mtdcli.main import main


@pytest.fixture
def mtd():
    """Run a command line in this process: ``mtd("recover", path, "-o", folder)``."""

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run


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
