"""The table of the micrographs of a measurement: names and numbers that tables, images and the likelihood need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..._base.files import write_whole
from ...errors import InputError, ParameterError
from ..preparation.prepare import Prepared
from ..zarr.guard import ChunkDamaged, ChunkMissing, read_inside
from .listing import Micrograph

#: File of the table, beside the pixels of an imported measurement.
TABLE = "micrographs.json"

#: Largest size of the file in bytes: a million micrographs.
_MOST = 1 << 30

#: Digits to which the transfer is stored.
_DIGITS = 7


@dataclass(frozen=True)
class Entry:
    """One prepared micrograph.

    Attributes:
        name: as in the list of micrographs.
        pixel_size: of the *stored* micrograph, angstrom; None: unknown.
        bin: Fourier binning factor; pixel (i, j) of the measurement lies at (bin i, bin j) of the micrograph.
        inverted: whether the contrast was inverted.
        scale: grey values of the micrograph per unit of the measurement.
        transfer: radial transfer function of the copies, see :attr:`Prepared.transfer`; None: all 1.
        sampling_rate: of a signal, samples of the measurement per second; None: unknown.
    """

    name: str
    pixel_size: float | None = None
    bin: int = 1
    inverted: bool = False
    scale: float = 1.0
    transfer: tuple[float, ...] | None = None
    sampling_rate: float | None = None

    @classmethod
    def of(cls, micrograph: Micrograph, prepared: Prepared, factor: int, inverted: bool) -> Self:
        """The entry of a micrograph after its preparation."""
        transfer = prepared.transfer
        plain = bool(np.all(transfer == 1.0))
        rounded = tuple(float(f"{value:.{_DIGITS}g}") for value in transfer)
        return cls(
            micrograph.name,
            micrograph.pixel_size,
            factor,
            inverted,
            prepared.scale,
            None if plain else rounded,
        )


@dataclass(frozen=True)
class MicrographTable:
    """The entries of a measurement, in the order of its micrographs."""

    entries: tuple[Entry, ...]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> list[str]:
        """Name of every micrograph."""
        return [entry.name for entry in self.entries]

    @property
    def pixel_size(self) -> float | None:
        """Angstrom per pixel of the measurement; None: unknown."""
        first = self.entries[0]
        return None if first.pixel_size is None else first.pixel_size * first.bin

    @property
    def sampling_rate(self) -> float | None:
        """Samples of a signal per second; None: unknown."""
        return self.entries[0].sampling_rate

    @property
    def bin(self) -> int:
        """Binning factor between micrographs and measurement."""
        return self.entries[0].bin

    @property
    def scale(self) -> float:
        """Grey values of a typical (median) micrograph per unit of the measurement."""
        return float(np.median([entry.scale for entry in self.entries]))

    @property
    def transfer(self) -> np.ndarray | None:
        """(M, R) radial transfer function of each micrograph, 1 where unknown; None: unknown in all of them."""
        if all(entry.transfer is None for entry in self.entries):
            return None
        values = max(len(entry.transfer or ()) for entry in self.entries)
        return np.array([entry.transfer or (1.0,) * values for entry in self.entries])

    def save(self, folder: Path) -> None:
        """Write the table beside the pixels; StorageError if that fails."""
        text = json.dumps([asdict(entry) for entry in self.entries], indent=None) + "\n"
        write_whole(folder / TABLE, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The table beside an imported measurement; None: there is none.

        Raises:
            InputError: it is damaged.
        """
        try:
            rows: Sequence[dict[str, Any]] = json.loads(read_inside(folder, TABLE, _MOST))
            entries = tuple(
                Entry(**row | {"transfer": row["transfer"] and tuple(map(float, row["transfer"]))})
                for row in rows
            )
            if not entries:
                raise ValueError("it is empty")
            return cls(entries)
        except ChunkMissing:
            return None
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
            ChunkDamaged,
        ) as problem:
            raise InputError(
                f"{folder / TABLE} should be the table that `mtd import` wrote; it is damaged ({problem})."
            ) from problem


def default_name(index: int) -> str:
    """Name of a micrograph without one; ``index`` counts from 0."""
    return f"micrograph_{index + 1:06d}"


def names_of(micrographs: np.ndarray, given: Sequence[str] | None) -> list[str]:
    """Name of the micrograph of each copy.

    Args:
        micrographs: (N,) int64, index of the micrograph.
        given: name of each micrograph of the measurement; None: :func:`default_name`.

    Raises:
        ParameterError: fewer names than micrographs.
    """
    if given is None:
        return [default_name(int(m)) for m in micrographs]
    most = int(micrographs.max(initial=-1)) + 1
    if len(given) < most:
        raise ParameterError(f"expected a name for each micrograph, at least {most}; got {len(given)}.")
    return [given[m] for m in micrographs]
