"""STAR tables as RELION writes and reads them: one ``loop_`` of named columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import ParameterError
from .files import write_whole


def write_star(path: str | Path, block: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Write one table.

    Args:
        path: the file, replaced whole.
        block: name of the data block, without ``data_``.
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
