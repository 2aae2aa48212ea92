"""The micrographs that a watched run has counted, in order: one sealed file, replaced as a whole for every micrograph.

A micrograph is counted once the file that lists it is in place. Its chunks and picks are written before, are ignored until then,
and are written again after a crash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import mtdcore as mtd
from mtdcore._base.files import write_whole
from mtdcore._base.records import from_record
from mtdcore.data.micrographs.listing import Micrograph
from mtdcore.data.micrographs.table import Entry, MicrographTable
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.em.checkpoint import read_kept, state_of, state_record, write_kept
from mtdcore.errors import CheckpointError, StorageError
from mtdcore.results.detections import Detections

from ..run.folder import RunFolder
from .arrivals import Key, Stamp

_FORMAT = 1

#: Numbers in a row of the picks: micrograph, row, column, rotation, probability, class, mirrored.
_ROW = 7


@dataclass(frozen=True)
class Counted:
    """One counted micrograph.

    Attributes:
        entry: of the table of micrographs.
        path: its file, links resolved.
        section: index of its image in the file.
        stored: (H, W) of that image.
        stamp: bytes and time of change of the file.
        digest: of its prepared pixels, hexadecimal.
        valid: number of valid pixels.
        skewness: of its contrast, with its standard error.
        nats: held-out evidence for the target before it was mixed in; None: there was no target yet.
        picks: number of copies found in it; None: not detected yet.
    """

    entry: Entry
    path: str
    section: int
    stored: tuple[int, int]
    stamp: tuple[int, int]
    digest: str
    valid: int
    skewness: tuple[float, float]
    nats: float | None = None
    picks: int | None = None

    @property
    def key(self) -> Key:
        """The key of its file and section."""
        return Key(Path(self.path), self.section)

    @property
    def micrograph(self) -> Micrograph:
        """The micrograph, with which later ones are compared."""
        return Micrograph(self.entry.name, Path(self.path), self.section, self.stored, self.entry.pixel_size)


@dataclass(frozen=True)
class Ledger:
    """The state of a watched run, on which the next micrograph is added.

    Attributes:
        steps: preparation of every micrograph, decided on the first.
        counted: the micrographs, in their order.
        digests: (micrographs, rows, columns) uint64 of their chunks.
        begun: number of micrographs in the last joint recovery; 0: there was none.
        state: of the stream since then; None: no copies were found, or no recovery was made.
        settled: whether the starts of that recovery agreed.
        reported: number of micrographs in the last report.
    """

    steps: Preparation
    counted: tuple[Counted, ...] = ()
    digests: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.uint64))
    begun: int = 0
    state: mtd.EMState | None = None
    settled: bool | None = None
    reported: int = 0

    def __len__(self) -> int:
        return len(self.counted)

    @property
    def table(self) -> MicrographTable:
        """The table of the counted micrographs."""
        return MicrographTable(tuple(one.entry for one in self.counted))

    @property
    def stamps(self) -> dict[Key, Stamp]:
        """Stamps of the files of the counted micrographs."""
        return {one.key: Stamp(*one.stamp) for one in self.counted}

    @property
    def held_out(self) -> tuple[float, int]:
        """Held-out evidence in nats since the last joint recovery, and the number of micrographs that gave it."""
        scored = [one.nats for one in self.counted[self.begun :] if one.nats is not None]
        return sum(scored), len(scored)

    def with_one(self, one: Counted, digests: np.ndarray) -> Ledger:
        """The ledger with one more micrograph."""
        stack = digests[None] if not len(self) else np.concatenate([self.digests, digests[None]])
        return replace(self, counted=(*self.counted, one), digests=stack)

    def with_picks(self, found: Detections, first: int) -> Ledger:
        """The ledger with the numbers of copies found in the micrographs from ``first`` on."""
        counts = np.bincount(found.micrograph, minlength=len(self))
        updated = (replace(one, picks=int(counts[first + i])) for i, one in enumerate(self.counted[first:]))
        return replace(self, counted=(*self.counted[:first], *updated))


class Store:
    """The files of a watched run that hold ledger and picks.

    Args:
        folder: of the run, locked.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._skipped, self._rows, self._seal = 0, 0, hashlib.sha256()

    def load(self) -> tuple[dict[str, Any], Ledger] | None:
        """Identity and ledger of the run in the folder; None: there is none. Picks that were not committed are cut off.

        Raises:
            CheckpointError: its files are damaged.
        """
        path = self.folder.watch
        if not path.exists():
            return None
        header, arrays = read_kept(path)
        try:
            if header["format"] != _FORMAT:
                raise ValueError(f"it has format {header['format']}; this version reads format {_FORMAT}")
            ledger = Ledger(
                from_record(Preparation, header["steps"]),
                tuple(from_record(Counted, one) for one in header["counted"]),
                arrays["digests"],
                header["begun"],
                None if header["candidates"] is None else state_of(header, arrays),
                header["settled"],
                header["reported"],
            )
        except (LookupError, TypeError, ValueError) as problem:
            raise CheckpointError(
                f"{path} should be as `mtd watch` wrote it: {problem}; start again (--force)."
            ) from problem
        skipped, rows = header["rows"]
        self._cut(skipped, rows, header["picks"])
        return header["identity"], ledger

    def commit(self, ledger: Ledger, identity: Mapping[str, Any]) -> None:
        """Replace the stored ledger in one step."""
        record, arrays = ({"candidates": None}, {}) if ledger.state is None else state_record(ledger.state)
        header = {
            "format": _FORMAT,
            "identity": identity,
            "steps": asdict(ledger.steps),
            "counted": ledger.counted,
            "begun": ledger.begun,
            "settled": ledger.settled,
            "reported": ledger.reported,
            "rows": (self._skipped, self._rows),
            "picks": self._seal.hexdigest(),
            **record,
        }
        write_kept(self.folder.watch, header, {"digests": ledger.digests, **arrays})

    def add_picks(self, found: Detections) -> None:
        """Append copies to the file of picks; they count from the next commit on."""
        hands = np.zeros(len(found)) if found.mirrored is None else found.mirrored
        columns = (
            found.micrograph,
            found.row,
            found.column,
            found.rotation,
            found.probability,
            found.class_index,
            hands,
        )
        content = np.stack([np.asarray(one, np.float64) for one in columns], axis=1).astype("<f8").tobytes()
        try:
            with open(self.folder.watch_picks, "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise StorageError(f"{self.folder.watch_picks} could not be written: {problem}.") from problem
        self._seal.update(content)
        self._rows += len(found)

    def clear_picks(self) -> None:
        """Discard all copies in the file, from the next commit on."""
        self._skipped, self._rows, self._seal = self._skipped + self._rows, 0, hashlib.sha256()

    def picks(self) -> np.ndarray:
        """(N, 7) rows of the copies that are not discarded, see :data:`_ROW`."""
        content = self.folder.watch_picks.read_bytes() if self._rows else b""
        return np.frombuffer(content, "<f8").reshape(-1, _ROW)[self._skipped :]

    def _cut(self, skipped: int, rows: int, seal: str) -> None:
        """Truncate the file of picks to the committed rows, of which the first ``skipped`` are discarded."""
        path, size = self.folder.watch_picks, 8 * _ROW
        try:
            content = path.read_bytes()[: size * (skipped + rows)] if path.exists() else b""
        except OSError as problem:
            raise StorageError(f"{path} could not be read: {problem}.") from problem
        self._skipped, self._rows = skipped, rows
        self._seal = hashlib.sha256(content[size * skipped :])
        if self._seal.hexdigest() != seal:
            raise CheckpointError(
                f"{path} should hold the {rows} copies that were found so far; it is damaged: start again (--force)."
            )
        write_whole(path, lambda file: file.write(content))


def as_detections(rows: np.ndarray, like: Detections) -> Detections:
    """Rows of :meth:`Store.picks` as copies, the most probable first, with the dtypes and optional fields of ``like``."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0], -rows[:, 4]))]
    of, row, column, rotation, probability, which, hands = rows.T
    whole = np.int64
    return replace(
        like,
        micrograph=of.astype(whole),
        row=row.astype(like.row.dtype),
        column=column.astype(like.column.dtype),
        rotation=rotation.astype(whole),
        probability=np.array(probability),
        class_index=which.astype(whole),
        mirrored=None if like.mirrored is None else hands.astype(bool),
    )


def order_lines(counted: Sequence[Counted]) -> str:
    """The content of ``order.txt``, with which a run is repeated in the same order."""
    return "".join(f"{one.section + 1:06d}@{one.path}\n" for one in counted)
