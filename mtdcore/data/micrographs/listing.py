"""Lists of micrographs: names, files, pixel sizes and CTFs, from a STAR list or from the files themselves."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...errors import DependencyError, InputError, MtdError, StorageError
from ..preparation.ctf import Ctf
from ..preparation.pixels import MRC, TIFF, open_pixels
from .star import Table, read_star

_log = logging.getLogger(__name__)

#: Extensions of the files that :func:`find_micrographs` takes.
SUFFIXES = (*MRC, *TIFF, ".star")

#: Called with the reason why a micrograph cannot be used; if it returns, the micrograph is left out.
OnBad: TypeAlias = Callable[[MtdError], None]

#: Columns of RELION that make a :class:`Ctf`, each in the micrograph's row or in its optics group.
_CTF = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "phase_shift": "rlnPhaseShift",
}
_CTF_OPTIONAL = ("defocus_angle", "phase_shift")

#: Pixel size columns in angstrom, the more trusted first; where none is positive, RELION 3.0 has a detector pixel size and magnification.
_PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnPixelSize", "rlnImagePixelSize")


#: Most names in a warning.
_SHOWN = 5

#: Columns of a list of particles, which is refused: each of its rows would count as a micrograph.
_PARTICLES = ("rlnImageName", "rlnCoordinateX", "rlnCoordinateY")


@dataclass(frozen=True)
class Micrograph:
    """One 2-D image, its file, pixel size and CTF.

    Attributes:
        name: as in tables: the name in the STAR list, or the path as given.
        path: the file.
        section: which image of the file, 0 for the first.
        shape: (H, W) as stored.
        pixel_size: angstrom; None: unknown.
        ctf: contrast transfer; None: unknown.
        phase_flipped: whether the pixels were phase-flipped already.
    """

    name: str
    path: Path
    section: int
    shape: tuple[int, int]
    pixel_size: float | None = None
    ctf: Ctf | None = None
    phase_flipped: bool = False

    def read(self) -> np.ndarray:
        """(H, W) pixels as stored, mapped where the format allows it.

        Raises:
            InputError: the file is damaged, or has changed.
            StorageError: the file is missing.
        """
        stack = open_pixels(self.path).stack
        if self.section >= len(stack) or stack.shape[1:] != self.shape:
            raise InputError(
                f"{self.path} should still hold {self.section + 1} or more images of {self.shape[0]} x {self.shape[1]}; it "
                f"now holds {stack.shape}."
            )
        return np.asarray(stack[self.section])


def find_micrographs(
    path: str | Path,
    pixel_size: float | None = None,
    on_bad: OnBad | None = None,
    known: Container[str] = (),
) -> list[Micrograph]:
    """The micrographs of a STAR list, or of one MRC or TIFF file.

    Args:
        path: ``.star`` (RELION 3.0 to 5, a micrographs table), or an image file, each section of which is a micrograph.
        pixel_size: angstrom, where the STAR list names none; it takes precedence over headers.
        on_bad: called with the reason for each micrograph that cannot be opened; None: raise it.
        known: names in the STAR list that are left out, and not opened.

    Raises:
        InputError: no such table, or a micrograph that is damaged or contradicts the others in its file.
        StorageError: a file is missing.
    """
    path = Path(path)
    if path.suffix.lower() != ".star":
        return list(_sections(_Row(str(path), path), pixel_size))
    found: list[Micrograph] = []
    for row in _rows(path):
        try:
            one = row()
            if one.name not in known:
                found.extend(_sections(one, pixel_size))
        except DependencyError:  # nothing is wrong with the file
            raise
        except MtdError as problem:
            if on_bad is None:
                raise
            on_bad(problem)
    return found


def of_one_size(micrographs: Iterable[Micrograph], on_bad: OnBad | None = None) -> list[Micrograph]:
    """The micrographs, all of the size and pixel size of the first. Repeated ones count once; a warning names them.

    Args:
        micrographs: in order.
        on_bad: called with the reason for each that differs; None: raise it.

    Raises:
        InputError: a micrograph differs and ``on_bad`` is None, or there is none at all.
    """
    kept: list[Micrograph] = []
    for micrograph in _without_repeats(micrographs):
        problem = difference(kept[0], micrograph) if kept else None
        if problem is None:
            kept.append(micrograph)
        elif on_bad is None:
            raise problem
        else:
            on_bad(problem)
    if not kept:
        raise InputError("expected one or more usable micrographs; there is none.")
    return kept


def _without_repeats(micrographs: Iterable[Micrograph]) -> Iterator[Micrograph]:
    """Each image of each file once: repeats, as in a list joined from two, would count copies twice, and noise as signal."""
    seen: dict[tuple[str, int], str] = {}
    repeated: list[str] = []
    for one in micrographs:
        key = os.path.realpath(one.path), one.section
        if key in seen:
            repeated.append(one.name)
        else:
            seen[key] = one.name
            yield one
    if repeated:
        shown = ", ".join(repeated[:_SHOWN]) + (", ..." if len(repeated) > _SHOWN else "")
        _log.warning("%d micrograph(s) came more than once and count once: %s", len(repeated), shown)


def difference(first: Micrograph, other: Micrograph) -> InputError | None:
    """Why two micrographs cannot be of one measurement; None: they can."""
    if other.shape != first.shape:
        (h, w), (height, width) = first.shape, other.shape
        return InputError(
            f"all micrographs should have the size of the first, {h} x {w}; {other.name} has {height} x {width}: "
            "make one measurement of each size."
        )
    a, b = first.pixel_size, other.pixel_size
    if a is not None and b is not None and abs(a - b) > 1e-3 * a:
        return InputError(
            f"all micrographs should have the pixel size of the first, {a:g} angstrom; {other.name} has {b:g}: make one "
            "measurement of each pixel size."
        )
    return None


@dataclass(frozen=True)
class _Row:
    """What a list says about one micrograph."""

    name: str
    path: Path
    section: int | None = None  # None: all of the file
    pixel_size: float | None = None
    ctf: Ctf | None = None
    phase_flipped: bool = False


def _sections(row: _Row, pixel_size: float | None) -> Iterator[Micrograph]:
    stack, in_header = open_pixels(row.path)
    height, width = stack.shape[1:]
    size = row.pixel_size or pixel_size or in_header
    if row.section is not None and row.section >= len(stack):
        raise InputError(
            f"{row.name} should be one of the {len(stack)} images in {row.path}; there are no more."
        )
    for section in range(len(stack)) if row.section is None else [row.section]:
        several = row.section is None and len(stack) > 1
        name = f"{section + 1:06d}@{row.name}" if several else row.name
        yield Micrograph(name, row.path, section, (height, width), size, row.ctf, row.phase_flipped)


def _rows(path: Path) -> Iterator[Callable[[], _Row]]:
    """The rows of a micrographs table as functions: calling one parses its row, and raises its errors."""
    tables = read_star(path)
    table = next(
        (
            table
            for table in (tables.get("micrographs"), *tables.values())
            if table and "rlnMicrographName" in table
        ),
        None,
    )
    if table is None:
        raise InputError(
            f"{path} should hold a table with the column _rlnMicrographName; it holds "
            f"{', '.join(f'data_{name}' for name in tables) or 'no table'}: give the STAR file of motion correction or "
            "of CTF estimation."
        )
    if table is tables.get("particles") or any(label in table for label in _PARTICLES):
        raise InputError(
            f"{path} should list micrographs; it lists {len(table['rlnMicrographName'])} particles, whose micrographs would be "
            "read once for each: give the STAR file of motion correction or of CTF estimation."
        )
    if "rlnOpticsGroup" in table and "optics" not in tables:
        raise InputError(
            f"{path} names optics groups and holds no table data_optics, so pixel size and voltage are unknown: restore that "
            "table, or remove the column _rlnOpticsGroup to go on without."
        )
    optics = _optics(path, tables.get("optics"))
    for i in range(len(table["rlnMicrographName"])):
        yield lambda i=i: _row(path, {label: values[i] for label, values in table.items()}, optics)  # type: ignore[misc]


def _optics(path: Path, table: Table | None) -> dict[str, dict[str, str]] | None:
    """The optics groups by their number; None: the list has none."""
    if table is None:
        return None
    if "rlnOpticsGroup" not in table:
        raise InputError(f"data_optics in {path} should have the column _rlnOpticsGroup; it has not.")
    groups = map(_group, table["rlnOpticsGroup"])
    return {group: {label: values[i] for label, values in table.items()} for i, group in enumerate(groups)}


def _row(path: Path, row: dict[str, str], optics: dict[str, dict[str, str]] | None) -> _Row:
    name = row["rlnMicrographName"]
    group = _group(row["rlnOpticsGroup"]) if "rlnOpticsGroup" in row else None
    if optics is not None and group is not None:
        if group not in optics:
            raise InputError(
                f"{name} in {path} should be of one of the optics groups {', '.join(optics)}; it is of group {group}."
            )
        row = optics[group] | row
    section, file = split_name(name)
    if section == 0:
        raise InputError(f"{name} in {path} should read NUMBER@FILE with a number from 1.")
    return _Row(
        name,
        located(path, file),
        None if section is None else section - 1,
        _pixel_size(path, row),
        _ctf(path, row),
        row.get("rlnCtfDataArePhaseFlipped", "0") == "1",
    )


def split_name(name: str) -> tuple[int | None, str]:
    """Number (None: there is none) and file of ``NUMBER@FILE``; the name of a file may contain an @."""
    found = re.fullmatch(r"(\d+)@(.+)", name, re.DOTALL)
    return (int(found[1]), found[2]) if found else (None, name)


def _group(value: str) -> str:
    """The number of an optics group; some programs write 1 as 1.000000."""
    with suppress(ValueError, OverflowError):
        number = float(value)
        return str(int(number)) if number == int(number) else value
    return value


def located(star: Path, name: str) -> Path:
    """The file that a STAR list names, relative to the project: the working directory or a folder above the list."""
    spellings = [name]
    with suppress(UnicodeError):  # a list in Latin-1 may be about files in UTF-8
        spellings.append(name.encode("utf-8", "surrogateescape").decode("latin-1"))
    for folder in (Path(), *star.absolute().parents):
        for spelling in spellings if not name.isascii() else [name]:
            with suppress(OSError, ValueError):  # a name that no file can have
                if (folder / spelling).exists():
                    return folder / spelling
    raise StorageError(
        f"{name}, listed in {star}, is neither below the current folder nor below a folder above the list; run in the "
        "project's folder, or restore the file."
    )


def _number(path: Path, row: dict[str, str], label: str) -> float:
    try:
        value = float(row[label])
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(
            f"_{label} of {row['rlnMicrographName']} in {path} should be a number; it is {row[label]!r}."
        )
    return value


def _pixel_size(path: Path, row: dict[str, str]) -> float | None:
    for label in _PIXEL_SIZES:
        if label in row and (size := _number(path, row, label)) > 0:
            return size
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= row.keys():  # RELION 3.0: micrometre, magnified
        magnification = _number(path, row, "rlnMagnification")
        return 1e4 * _number(path, row, "rlnDetectorPixelSize") / magnification if magnification > 0 else None
    return None


def _ctf(path: Path, row: dict[str, str]) -> Ctf | None:
    """The CTF, where every column it needs is there."""
    values = {name: _number(path, row, label) for name, label in _CTF.items() if label in row}
    needed = {field.name for field in fields(Ctf)} - set(_CTF_OPTIONAL)
    return Ctf(**values) if needed <= values.keys() else None
