"""What users may rely on: names, docstrings, cheap imports, imports that go one way."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtdcore

PACKAGE = Path(mtdcore.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

#: CONTRIBUTING.md: imports go one way, from each layer to the ones before it.
LAYERS = [
    {"errors", "_typing"},
    {"rotation", "likelihood", "statistics", "priors"},
    {"backends", "measurement"},
    {"estep", "mstep"},
    {"em"},
]

#: Optional or heavy packages, and the files that may name them.
OPTIONAL = {
    "torch": set(),
    "click": set(),
    "matplotlib": set(),
    "dask": {"cluster.py"},
    "distributed": {"cluster.py"},
    "zarr": {"measurement/zarr_store.py"},
    "cupy": {"backends/_cuda_device.py"},
    "cupyx": {"backends/_cuda_device.py"},
    "safetensors": {"checkpoint.py"},
    "pytest": {"testing.py"},
    "mtdbridge": set(),
    "mtdcli": set(),
}


def unit(path):
    """The module or subpackage of mtdcore that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


UNITS = {unit(path) for path in MODULES}


def imports(path):
    """(package, unit of mtdcore or None) of every import in a file, at the top or inside functions."""
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], None
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], None
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            dotted = [*base, *(node.module.split(".") if node.module else [])]
            for name in dotted[:1] or [alias.name for alias in node.names]:
                if name in UNITS:  # `from . import __version__` imports no module
                    yield "mtdcore", name


def import_graph():
    graph = {name: set() for name in UNITS}
    for path in MODULES:
        graph[unit(path)] |= {other for package, other in imports(path) if other} - {unit(path)}
    return graph


def reachable(graph, start):
    found, front = set(), [start]
    while front:
        new = graph[front.pop()] - found
        found |= new
        front += new
    return found


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_mtdcore_imports_nothing_optional():
    loaded = set(fresh("import sys, mtdcore; print(*{n.split('.')[0] for n in sys.modules})").split())
    assert "mtdcore" in loaded
    assert not loaded & set(OPTIONAL)


def test_modules_import_in_no_circle():
    graph = import_graph()
    assert not [name for name in UNITS if name in reachable(graph, name)]


@pytest.mark.parametrize("level", range(len(LAYERS)))
def test_imports_go_one_way(level):
    graph, later = import_graph(), set().union(*LAYERS[level + 1 :])
    for name in LAYERS[level]:
        assert not reachable(graph, name) & later, name


def test_the_walk_finds_imports():
    """The tests above would pass if it saw nothing."""
    graph = import_graph()
    assert {"backends", "likelihood", "rotation", "statistics", "measurement"} <= graph["estep"]
    assert "errors" in reachable(graph, "rotation")
    assert ("zarr", None) in imports(PACKAGE / "measurement" / "zarr_store.py")
    assert {"likelihood", "statistics"} <= graph["backends"]
    assert {"datasets", "em"} <= graph["__init__"]


@pytest.mark.parametrize("package", OPTIONAL)
def test_optional_packages_are_named_only_where_they_are_wrapped(package):
    naming = {str(path.relative_to(PACKAGE)) for path in MODULES if package in dict(imports(path))}
    assert naming <= OPTIONAL[package]


@pytest.mark.parametrize("name", mtdcore.__all__)
def test_public_names_are_documented(name):
    value = getattr(mtdcore, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        members = [m for n, m in vars(value).items() if not n.startswith("_")]
        undocumented = [m for m in members if (callable(m) or isinstance(m, property)) and not m.__doc__]
        assert not undocumented


def test_all_is_sorted_and_complete():
    assert mtdcore.__all__ == sorted(mtdcore.__all__)
    public = {
        name
        for name, value in vars(mtdcore).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert public == set(mtdcore.__all__) - {"datasets"}


def test_every_module_can_be_imported_first():
    """No import works only because another came before (cupy's files need a device)."""
    names = [
        info.name
        for info in pkgutil.walk_packages([str(PACKAGE)], "mtdcore.")
        if "cuda" not in info.name and info.name != "mtdcore.testing"
    ]
    for name in names:
        assert importlib.import_module(name).__doc__
    assert "mtdcore.em" in names


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
