"""Packages that only some users need, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import DependencyError


def optional(name: str) -> Any:
    """Import a package of the extra ``em``: the readers of cryo-EM formats.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise DependencyError(
            f"reading this format needs the package {name}; install it with: pip install 'mtdcore[em]'."
        ) from problem
