"""Recipes for conda and Apptainer, and the citation, say what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: Packages that conda-forge splits.
SPLIT = {"matplotlib": "matplotlib-base"}


def test_conda_wants_what_pip_wants():
    recipe = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text())
    wanted = {"python" + " " + PROJECT["requires-python"]}
    for line in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        wanted.add(f"{SPLIT.get(name, name)} {bound}")
    assert set(recipe["requirements"]["run"]) == wanted
    points = {f"{name} = {place}" for name, place in PROJECT["scripts"].items()}
    assert set(recipe["build"]["python"]["entry_points"]) == points


def test_one_version_everywhere():
    recipe = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert recipe["context"]["version"] == citation["version"] == PROJECT["version"]


def test_the_container_installs_extras_that_exist():
    text = (ROOT / "packaging/apptainer.def").read_text()
    (extras,) = re.findall(r"mtdcore\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"%post", "%runscript", "%test"} <= set(re.findall(r"^%\w+", text, re.MULTILINE))
