"""Coordinates picked by other programs: tables of RELION, checked against their micrographs.

Coordinates are 0-based pixels of the stored micrograph, X along columns, of the box centre (see :mod:`mtdcore.results.relion`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..._base.typing import Lengths, pair
from ...errors import InputError, MtdError
from .listing import OnBad, located
from .star import Table, read_star
from .table import MicrographTable

_X, _Y, _FILES = "rlnCoordinateX", "rlnCoordinateY", "rlnMicrographCoordinates"

#: Share of coordinates outside their micrograph above which their unit counts as wrong.
_MOST_OUTSIDE = 0.5


@dataclass(frozen=True, eq=False)
class Picks:
    """Centres in a measurement.

    Attributes:
        centres: (N, 3) float64 rows (micrograph, row, column) in pixels of the measurement.
        micrographs: indices of the micrographs in the table, also of those without picks.
    """

    centres: np.ndarray
    micrographs: tuple[int, ...]

    def corners(self, box_size: Lengths) -> np.ndarray:
        """(N, 3) top-left corners of the boxes around the centres, as :func:`mtdcore.results.matching.match` takes them."""
        down, across = pair(box_size)
        return np.asarray(self.centres - [0, down // 2, across // 2])


class _Listed(NamedTuple):
    """The rows of one micrograph: their file, its name (None: unknown), and their coordinates as written."""

    source: Path
    name: str | None
    x: list[str]
    y: list[str]


def read_picks(
    path: str | Path, table: MicrographTable, shape: tuple[int, int], on_bad: OnBad | None = None
) -> Picks:
    """Read the picks of a STAR file: particles, coordinates, or a list of coordinate files (``autopick.star``).

    Args:
        path: the file. Without the column ``_rlnMicrographName``, ``table`` must have one micrograph.
        table: the micrographs of the measurement; a name may differ from that in the picks by its folder.
        shape: (H, W) of the measurement.
        on_bad: called with the reason for each micrograph, or set of coordinates, that is left out; None: raise it.

    Raises:
        InputError: no coordinates or none of these micrographs; coordinates that are no numbers, or outside of their
            micrograph; coordinates in fractions, or in a unit in which most are outside (these two also with ``on_bad``).
        StorageError: a file is missing.
    """
    on_bad_row = on_bad or _raised
    found: dict[int, list[np.ndarray]] = {}
    listed = [one for one in _listed(Path(path), on_bad_row)]
    for one in listed:
        index = _index(one, table)
        if index is None:
            on_bad_row(_unknown(one, table))
        else:
            found.setdefault(index, []).append(_numbers(one, on_bad_row))
    if listed and not found:
        raise _unknown(listed[0], table)
    centres = {index: np.concatenate(parts) for index, parts in found.items()}
    _check_unit(Path(path), centres, table, shape)
    kept = [np.empty((0, 3))]
    for index, xy in centres.items():
        inside = _inside(xy, table.entries[index].bin, shape)
        if not inside.all():
            on_bad_row(
                _outside(
                    Path(path), xy[~inside], len(xy), table.names[index], table.entries[index].bin, shape
                )
            )
        rows = np.column_stack([np.full(len(xy), index), xy[:, ::-1] / table.entries[index].bin])
        kept.append(rows[inside])
    return Picks(np.concatenate(kept), tuple(sorted(centres)))


def _raised(problem: MtdError) -> None:
    raise problem


def _listed(path: Path, on_bad_row: OnBad) -> Iterator[_Listed]:
    """The rows of each micrograph, in the file or in the files that it names."""
    tables = read_star(path)
    files = next((t for t in tables.values() if {"rlnMicrographName", _FILES} <= t.keys()), None)
    if files is None:
        yield from _rows(path, tables, None)
        return
    for name, file in zip(files["rlnMicrographName"], files[_FILES], strict=True):
        try:
            file_path = located(path, file)
            yield from _rows(file_path, read_star(file_path), name)
        except MtdError as problem:
            on_bad_row(problem)


def _rows(path: Path, tables: dict[str, Table], name: str | None) -> Iterator[_Listed]:
    table = next((t for t in tables.values() if {_X, _Y} <= t.keys()), None)
    if table is None:
        columns = [f"_{label}" for t in tables.values() for label in t]
        raise InputError(
            f"{path} should hold coordinates in the columns _{_X} and _{_Y}; it holds {', '.join(columns) or 'no table'}: "
            "give a STAR file of picks, particles or coordinate files."
        )
    names: list[str | None] = [*table.get("rlnMicrographName", [name] * len(table[_X]))]
    for one in dict.fromkeys(names or [name]):
        rows = [i for i, other in enumerate(names) if other == one]
        yield _Listed(path, one, [table[_X][i] for i in rows], [table[_Y][i] for i in rows])


def _index(listed: _Listed, table: MicrographTable) -> int | None:
    """Index of the micrograph with this name, or of the only one with this file name."""
    if listed.name is None:
        if len(table) == 1:
            return 0
        raise InputError(
            f"{listed.source} should say in the column _rlnMicrographName which of the {len(table)} micrographs each of its "
            "coordinates is in; it has no such column."
        )
    if listed.name in table.names:
        return table.names.index(listed.name)
    same = [i for i, name in enumerate(table.names) if Path(name).name == Path(listed.name).name]
    return same[0] if len(same) == 1 else None


def _unknown(listed: _Listed, table: MicrographTable) -> InputError:
    return InputError(
        f"{listed.source} should name micrographs of this measurement ({table.names[0]}"
        f"{', ...' if len(table) > 1 else ''}); {listed.name} is none of its {len(table)}."
    )


def _numbers(listed: _Listed, on_bad_row: OnBad) -> np.ndarray:
    """(n, 2) float64 rows (X, Y) of the coordinates that are finite numbers."""
    pairs = [(_number(x), _number(y)) for x, y in zip(listed.x, listed.y, strict=True)]
    numbers = np.array(pairs, np.float64).reshape(-1, 2)
    good = np.asarray(np.isfinite(numbers).all(axis=1))
    if not good.all():
        first = int(np.argmin(good))
        on_bad_row(
            InputError(
                f"the coordinates of {listed.name or 'the micrograph'} in {listed.source} should be numbers; {_count(~good)}, the "
                f"first ({listed.x[first]}, {listed.y[first]})."
            )
        )
    return numbers[good]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _count(wrong: np.ndarray) -> str:
    return f"{np.count_nonzero(wrong)} of {len(wrong)} are not"


def _inside(xy: np.ndarray, binning: int, shape: tuple[int, int]) -> np.ndarray:
    """(n,) bool, whether coordinates lie in the stored micrograph, which has up to ``binning - 1`` more far rows and columns than the measurement."""
    height, width = (side * binning + binning - 1 for side in shape)
    return np.asarray(((xy >= 0) & (xy < [width, height])).all(axis=1))


def _check_unit(
    path: Path, centres: dict[int, np.ndarray], table: MicrographTable, shape: tuple[int, int]
) -> None:
    """Raise InputError where the coordinates cannot be pixels of the stored micrographs."""
    every = np.concatenate(list(centres.values()) or [np.empty((0, 2))])
    if len(every) > 1 and every.min() >= 0 and every.max() <= 1:
        raise InputError(
            f"the coordinates in {path} should be pixels; all {len(every)} lie between 0 and 1, as fractions of the micrograph do: "
            "export them from the picking program as a RELION STAR file."
        )
    bins = {index: table.entries[index].bin for index in centres}
    outside = sum(np.count_nonzero(~_inside(xy, bins[index], shape)) for index, xy in centres.items())
    if outside <= _MOST_OUTSIDE * len(every):
        return
    size = table.entries[0].pixel_size
    fit = size is not None and all(
        _inside(xy / size, bins[index], shape).all() for index, xy in centres.items()
    )
    raise InputError(
        f"the coordinates in {path} should be pixels of the stored micrographs, {shape[1] * table.bin} x {shape[0] * table.bin}; "
        f"{outside} of {len(every)} are outside, up to X = {every[:, 0].max():g} and Y = {every[:, 1].max():g}: "
        + (
            f"divide them by the pixel size, {size:g} angstrom."
            if fit
            else "are they of unbinned micrographs, or of others?"
        )
    )


def _outside(
    path: Path, wrong: np.ndarray, count: int, name: str, binning: int, shape: tuple[int, int]
) -> InputError:
    (x, y), (height, width) = wrong[0], shape
    return InputError(
        f"the coordinates of {name} in {path} should lie inside its {width * binning} x {height * binning} pixels; "
        f"{len(wrong)} of {count} do not, the first X = {x:g}, Y = {y:g}."
    )
