"""Types shared by the engine."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

#: An array of any library that follows the Python array API (NumPy, CuPy, ...). Static types cannot
#: express "the same library as the argument"; docstrings give shape and dtype.
Array: TypeAlias = Any

#: The dtype in which a backend correlates.
Precision: TypeAlias = Literal["float32", "float64"]

#: A length along rows and along columns, or one number for both.
Lengths: TypeAlias = int | tuple[int, int]


def pair(lengths: Lengths) -> tuple[int, int]:
    """(along rows, along columns)."""
    return lengths if isinstance(lengths, tuple) else (lengths, lengths)


def plain(rows: int, columns: int) -> Lengths:
    """One number where both lengths are equal."""
    return rows if rows == columns else (rows, columns)
