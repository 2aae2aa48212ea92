"""Plug-ins of other packages: entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from ..errors import DependencyError


def plugin(group: str, name: str) -> Any | None:
    """Load the object behind an entry point; None: there is none of this name.

    Args:
        group: "mtdcore.priors" or "mtdcore.backends".
        name: of the plug-in.

    Raises:
        DependencyError: it cannot be imported.
    """
    for found in entry_points(group=group, name=name):
        try:
            return found.load()
        except Exception as problem:  # code of another package may raise anything
            raise DependencyError(
                f"the plug-in {name} ({found.value}) should be importable; it is not: {type(problem).__name__}: {problem}."
            ) from problem
    return None


def plugin_names(group: str) -> list[str]:
    """Names of the plug-ins of a group."""
    return sorted({found.name for found in entry_points(group=group)})
