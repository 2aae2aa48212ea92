import subprocess
import sys

import pytest


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_the_bridge_imports_no_torch():
    code = "import sys, mtdbridge; assert not {'torch', 'safetensors'} & set(sys.modules); dir(mtdbridge)"
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_a_missing_package_is_named_with_its_extra(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None  # as if not installed
import mtdbridge
from mtdcore.errors import DependencyError
try:
    mtdbridge.load_prior
except DependencyError as error:
    print(error)
"""
    done = python(code)
    assert f"'{missing}'" in done.stdout, done.stderr
    assert "mtdcore[torch]" in done.stdout


def test_unknown_names_are_attribute_errors():
    import mtdbridge

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mtdbridge.nothing
