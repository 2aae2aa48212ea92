"""STAR tables as RELION writes and reads them: blocks of named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..._base.files import write_whole
from ..._base.optional import optional
from ...errors import InputError, ParameterError, StorageError

#: The columns of one block by label.
Table: TypeAlias = dict[str, list[str]]


def write_star(path: str | Path, block: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Write one table.

    Args:
        path: the file, replaced whole.
        block: name of the data block, without ``data_``; may be empty.
        columns: values by label without the leading underscore (``rlnCoordinateX``), all of one length.

    Raises:
        ParameterError: columns of different lengths, or a value that is empty or holds white space.
        StorageError: the file cannot be written.
    """
    rows = [[str(value) for value in row] for row in _transposed(columns)]
    for value in (value for row in rows for value in row):
        if len(value.split()) != 1:
            raise ParameterError(
                f"a STAR value should be one word; got {value!r}: rename it without white space."
            )
    labels = [f"_{label} #{i}" for i, label in enumerate(columns, start=1)]
    lines = [
        "# version 30001",
        "",
        f"data_{block}",
        "",
        "loop_",
        *labels,
        *(" ".join(row) for row in rows),
        "",
    ]
    write_whole(Path(path), lambda file: file.write("\n".join(lines).encode()))


def _transposed(columns: Mapping[str, Sequence[object]]) -> list[tuple[object, ...]]:
    lengths = {label: len(values) for label, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ParameterError(f"the columns of a STAR table should have one length; got {lengths}.")
    return list(zip(*columns.values(), strict=True))


def read_star(path: str | Path) -> dict[str, Table]:
    """Read the tables of a STAR file (RELION 3.0 to 5, or any other STAR 1.1).

    Args:
        path: the file.

    Returns:
        Every block by its name without ``data_`` (empty for RELION's anonymous one): the values of each label, without
        the leading underscore. Single values are columns of length 1; all values are strings, unquoted.

    Raises:
        InputError: no STAR file, or a damaged one.
        DependencyError: the package gemmi is not installed (extra ``em``).
        StorageError: the file cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} should be a STAR file; it is not text ({problem.reason}).") from problem
    except OSError as problem:
        raise StorageError(f"{path} could not be read: {problem.strerror or problem}.") from problem
    cif = optional("gemmi").cif
    try:
        return {block.name.strip(): _columns(cif, block) for block in cif.read_string(text)}
    except (ValueError, RuntimeError) as problem:  # what gemmi raises
        raise InputError(f"{path} should be a STAR file; it could not be read: {problem}.") from problem


def _columns(cif: Any, block: Any) -> Table:
    columns: Table = {}
    for item in block:
        if item.loop is not None:
            width = len(item.loop.tags)
            values = [cif.as_string(value) for value in item.loop.values]
            columns |= {tag[1:]: values[i::width] for i, tag in enumerate(item.loop.tags)}
        elif item.pair is not None:
            columns[item.pair[0][1:]] = [cif.as_string(item.pair[1])]
    return columns
