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
