import pytest
from click.testing import CliRunner

from mtdcli.main import main
from mtdcore import get_backend


@pytest.fixture(scope="session")
def exact():
    """The CPU backend in float64."""
    return get_backend("cpu", precision="float64", threads=1)


@pytest.fixture(scope="session")
def single():
    """The CPU backend in float32."""
    return get_backend("cpu", precision="float32", threads=1)


@pytest.fixture
def mtd():
    """Run a command line in this process: ``mtd("recover", path, "-o", folder)``."""

    def run(*args, code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return run
