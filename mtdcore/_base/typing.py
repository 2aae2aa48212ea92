"""Types shared by the engine."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

#: An array of any library that follows the Python array API (NumPy, CuPy, ...). Static types cannot
#: express "the same library as the argument"; docstrings give shape and dtype.
Array: TypeAlias = Any

#: The dtype in which a backend correlates.
Precision: TypeAlias = Literal["float32", "float64"]
