"""What users may rely on: names, docstrings, exit codes."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import mtdcore
from mtdcore.results import volumes

PACKAGE = Path(mtdcore.__file__).parent


@pytest.mark.parametrize(
    ("module", "name"), [(m, n) for m in (mtdcore, mtdcore.results, volumes) for n in m.__all__]
)
def test_public_names_are_documented(module, name):
    value = getattr(module, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        members = [m for n, m in vars(value).items() if not n.startswith("_")]
        undocumented = [m for m in members if (callable(m) or isinstance(m, property)) and not m.__doc__]
        assert not undocumented


@pytest.mark.parametrize("module", [mtdcore, mtdcore.results, volumes])
def test_all_is_sorted_and_complete(module):
    assert module.__all__ == sorted(module.__all__)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public == set(module.__all__) - {"datasets"}


@pytest.mark.parametrize("function", [mtdcore.recover, mtdcore.recover_volume, volumes.find_copies])
def test_what_a_docstring_names_as_a_class_is_public(function):
    named = set(re.findall(r":class:`~?(?:\w+\.)*(\w+)`", inspect.getdoc(function)))
    named |= set(re.findall(r"\b(?:VolumePlan|Search|WindowLikelihood)\b", str(inspect.signature(function))))
    assert named
    assert named <= {*mtdcore.__all__, *mtdcore.results.__all__, *volumes.__all__}


def test_every_module_can_be_imported_first():
    """No import works only because another came before (cupy's files need a device)."""
    names = [
        info.name
        for info in pkgutil.walk_packages([str(PACKAGE)], "mtdcore.")
        if "cuda" not in info.name and info.name != "mtdcore.testing"
    ]
    for name in names:
        assert importlib.import_module(name).__doc__
    assert "mtdcore.em.recover" in names


def test_what_follows_a_run_is_computed_where_the_run_was():
    """Every function with a backend has the same default."""
    defaults = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "mtdcore."):
        if "cuda" in info.name or info.name.startswith("mtdcore.testing"):
            continue
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            backend = inspect.signature(function).parameters.get("backend")
            if backend is not None and backend.default is not inspect.Parameter.empty:
                defaults[name] = backend.default
    assert set(defaults.values()) == {"auto"}, defaults
    assert {"recover", "e_step", "volume_e_step", "detect", "find_copies", "unbiased_average"} <= set(
        defaults
    )


def test_errors_carry_their_exit_codes():
    from mtdcore import errors

    codes = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.MtdError)
    }
    assert codes == {
        "MtdError": 1,
        "ParameterError": 2,
        "InputError": 65,
        "DeviceError": 69,
        "DependencyError": 69,
        "StorageError": 74,
        "CheckpointError": 74,
    }
    assert all(name in errors.__doc__ for name in codes)


def test_version_is_the_distributions():
    from importlib.metadata import version

    assert mtdcore.__version__ == version("mtdcore")
