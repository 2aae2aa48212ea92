"""The house: imports go one way, in no circle, and heavy packages stay where they are wrapped."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "mtdcore": ROOT / "mtdcore",
    "mtdbridge": ROOT / "bridge/mtdbridge",
    "mtdcli": ROOT / "cli/mtdcli",
}

#: CONTRIBUTING.md: a folder imports from those before it. ``synthetic`` stands beside ``estep``.
FLOORS = ["errors", "_base", "drawing", "data", "model", "estep", "mstep", "moments", "em", "results"]
BESIDE = {"synthetic": "estep"}

#: Modules that may look at everything below the packages that use the engine.
ROOFS = {"", "testing"}

#: Folders of the command line, from the ground up. A run opens its inputs, which know of no run.
CLI_FLOORS = [
    "terminal",
    "inputs",
    "run",
    "volumes",
    "report",
    "live",
    "watching",
    "viewers",
    "reproduce",
    "commands",
    "main",
    "relion",
]

#: Optional or heavy packages, and the only files of mtdcore that may name them.
WRAPPED = {
    "torch": set(),
    "click": set(),
    "matplotlib": {"drawing/charts.py", "drawing/overview.py"},
    "PIL": {"drawing/images.py"},
    "IPython": set(),
    "dask": {"estep/dask.py"},
    "distributed": {"estep/dask.py"},
    "zarr": {"data/zarr/store.py"},
    "cupy": {"estep/backends/cuda/device.py"},
    "cupyx": {"estep/backends/cuda/device.py"},
    "safetensors": {"_base/records.py"},
    "pytest": {f"testing/{name}.py" for name in ("backends", "matrix", "measurements", "priors", "views")},
    "mtdbridge": set(),
    "mtdcli": set(),
}


def name_of(package, path):
    parts = [package, *path.relative_to(PACKAGES[package]).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(p, path): path for p, folder in PACKAGES.items() for path in sorted(folder.rglob("*.py"))}


@cache
def imports(module, path, inside_functions=True):
    """Dotted names of the modules that a file imports."""
    home = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    tree, names = ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            wholes = [f"{source}.{alias.name}" for alias in node.names]
            names += [whole if whole in FILES else source for whole in wholes]
    return names


GRAPH = {module: set(imports(module, path)) & set(FILES) for module, path in FILES.items()}


def room(module):
    """(package, folder or module directly under it)."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def wrong_way(graph):
    """Imports of mtdcore that climb from a folder to a later one, and of packages that use the engine by the engine."""
    for module, others in graph.items():
        package, mine = room(module)
        for other in others:
            if package != "mtdcore" or mine in ROOFS:
                continue
            home, theirs = room(other)
            mine_, theirs_ = BESIDE.get(mine, mine), BESIDE.get(theirs, theirs)
            known = home == "mtdcore" and theirs_ in FLOORS
            if (
                not known
                or FLOORS.index(theirs_) > FLOORS.index(mine_)
                or {mine, theirs} == {"synthetic", "estep"}
            ):
                yield module, other


def circles(graph):
    """Modules that can be reached from themselves; a package and what it re-exports count as one place to start from."""
    for start in graph:
        found, front = set(), [start]
        while front:
            new = graph[front.pop()] - found
            found |= new
            front += new
        if start in found:
            yield start


def test_every_module_of_the_engine_imports_downwards():
    assert list(wrong_way(GRAPH)) == []


def test_no_module_imports_itself_by_a_detour():
    assert sorted(circles(GRAPH)) == []


def test_packages_import_downwards():
    order = list(PACKAGES)
    climbing = [
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if order.index(room(other)[0]) > order.index(room(module)[0])
    ]
    assert climbing == []


def test_the_command_line_imports_downwards():
    climbing = [
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if room(module)[0] == room(other)[0] == "mtdcli" and room(module)[1] and room(other)[1]
        if CLI_FLOORS.index(room(other)[1]) > CLI_FLOORS.index(room(module)[1])
    ]
    assert climbing == []


def test_contributing_names_every_folder_in_this_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE)
    engine, beside = [floor for floor in FLOORS if floor != "errors"], ["synthetic", "testing"]
    assert named == [*engine, *beside, *(floor for floor in CLI_FLOORS if floor not in ("main", "relion"))]
    inits = [init for package in ("mtdcore", "mtdcli") for init in PACKAGES[package].glob("*/__init__.py")]
    assert sorted(named) == sorted(init.parent.name for init in inits)


def test_the_walk_finds_what_is_wrong():
    """The tests above would pass if it saw nothing."""
    assert "mtdcore.model.likelihood.window" in GRAPH["mtdcore.model.likelihood"]
    assert "zarr" in set(imports("mtdcore.data.zarr.store", FILES["mtdcore.data.zarr.store"]))
    assert list(wrong_way({"mtdcore.data.noise": {"mtdcore.em.loop"}}))
    assert list(wrong_way({"mtdcore.estep.expectation": {"mtdcore.synthetic.glyphs"}}))
    assert list(wrong_way({"mtdcore.em.loop": {"mtdcli.main"}}))
    assert list(circles({"a": {"b"}, "b": {"a"}, "c": {"a"}})) == ["a", "b"]


def test_rooms_are_few_and_small():
    """Modules directly in mtdcore/, and entries of each folder; one file per command, and per promise, is excepted."""
    direct = [path.name for path in PACKAGES["mtdcore"].glob("*.py") if path.name != "__init__.py"]
    assert len(direct) <= 4
    for folder in {path.parent for path in FILES.values()}:
        entries = [e for e in folder.iterdir() if e.name not in ("__init__.py", "__pycache__", "py.typed")]
        assert len(entries) <= 12 or folder.name == "commands", (folder, len(entries))


@pytest.mark.parametrize("package", WRAPPED)
def test_optional_packages_are_named_only_where_they_are_wrapped(package):
    naming = {
        str(path.relative_to(PACKAGES["mtdcore"]))
        for module, path in FILES.items()
        if module.startswith("mtdcore") and package in {n.split(".")[0] for n in imports(module, path)}
    }
    assert naming <= WRAPPED[package]


def test_importing_mtdcore_imports_nothing_optional():
    code = "import sys, mtdcore; print(*{n.split('.')[0] for n in sys.modules})"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )
    assert "mtdcore" in loaded
    assert not loaded & set(WRAPPED)


#: What nothing outside its own folder may ask for by type: the thing itself should do what differs.
KINDS = {
    "model": r"(Patch|Window)?Likelihood|\w*Prior|Rotations|Shifted|Classes|Defocused|Projections",
    "mstep": r"\w*(Update|Ascent)",
    "estep/backends": r"\w*Backend",
}


@pytest.mark.parametrize("home", KINDS)
def test_kinds_are_not_asked_for_outside_their_folder(home):
    pattern = re.compile(rf"isinstance\([^\n]*\b({KINDS[home]})\b")
    asking = [
        f"{module}: {line.strip()}"
        for module, path in FILES.items()
        if PACKAGES["mtdcore"] / home not in path.parents
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert asking == []
