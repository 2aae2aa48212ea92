"""Packages that only some users need, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import DependencyError


def optional(name: str, extra: str = "em") -> Any:
    """Import a package that an extra of mtdcore brings.

    Args:
        name: of the package.
        extra: the extra; by default the one with the readers of cryo-EM formats.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise DependencyError(
            f"this needs the package {name}, which is not installed: pip install 'mtdcore[{extra}]'."
        ) from problem
