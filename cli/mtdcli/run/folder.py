"""A run folder: its files, and how they are written (whole or not at all)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mtdcore import IterationRecord
from mtdcore._base.files import write_whole
from mtdcore._base.guarded import opened, read_regular
from mtdcore._base.records import from_record, to_record
from mtdcore._base.typing import Lengths, pair
from mtdcore.data.micrographs.table import TABLE
from mtdcore.em.checkpoint import previous_checkpoint
from mtdcore.errors import InputError, StorageError

from ..terminal.console import to_json
from .record import RunRecord, TrustRecord, VolumeTrustRecord

T = TypeVar("T", TrustRecord, VolumeTrustRecord)

#: Largest size in bytes of a text file or record of a run that is read.
_MOST = 1 << 30


class RunFolder:
    """The folder that ``mtd recover -o`` fills, of an image or of a volume.

    Attributes:
        path: the folder.
        record: ``run.json``, every parameter, version, seed and result.
        estimate: ``estimate.npy``, (L, L) float64.
        average: ``aligned_average.npy``, (L, L) float64, no prior applied.
        history: ``history.csv``, one row per iteration.
        checkpoint: what ``--resume`` continues from.
        page: ``report.html``.
        picks: ``detections.csv``, one row per copy that ``mtd detect`` found.
        picks_star: ``detections.star``, the same for RELION.
        trust: ``trust.json``, the results of ``mtd trust`` so far.
        posterior_mean: ``posterior_mean.npy``, (L, L) float64, mean of draws from the posterior of the target.
        posterior_std: ``posterior_std.npy``, (L, L) float64, their standard deviation.
        picks_json: ``detections.json``, the same for other programs.
        table: ``micrographs.json``, the table of the micrographs, where there is one.
        watch: ledger and state of `mtd watch`.
        watch_picks: the copies it found, rows of float64.
        watch_order: ``order.txt``, the names of the counted micrographs in their order.
        watched: ``micrographs.zarr``, the prepared micrographs.
        volume: ``volume.mrc``, of ``--volume``.
        whitened: ``volume_whitened.mrc``, the volume after the whitening filter of the noise; absent where the noise is white.
        half1: ``half1.mrc``, the volume of one half of the data.
        half2: ``half2.mrc``, that of the other.
        volume_mean: ``volume_mean.mrc``, the mean of draws from the posterior.
        volume_std: ``volume_std.mrc``, standard deviation of every voxel among them.
        poses: ``particles.star``, copies with RELION's angles.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.estimate = path / "estimate.npy"
        self.average = path / "aligned_average.npy"
        self.history = path / "history.csv"
        self.checkpoint = path / "checkpoint.safetensors"
        self.page = path / "report.html"
        self.picks = path / "detections.csv"
        self.picks_star = path / "detections.star"
        self.picks_json = path / "detections.json"
        self.trust = path / "trust.json"
        self.posterior_mean = path / "posterior_mean.npy"
        self.posterior_std = path / "posterior_std.npy"
        self.table = path / TABLE
        self.watch = path / "watch.safetensors"
        self.watch_picks = path / "watch.picks"
        self.watch_order = path / "order.txt"
        self.watched = path / "micrographs.zarr"
        self.volume = path / "volume.mrc"
        self.whitened = path / "volume_whitened.mrc"
        self.half1 = path / "half1.mrc"
        self.half2 = path / "half2.mrc"
        self.volume_mean = path / "volume_mean.mrc"
        self.volume_std = path / "volume_std.mrc"
        self.poses = path / "particles.star"

    def repetition(self, name: str) -> Path:
        """Checkpoint of one of the recoveries for the verdict on a volume."""
        return self.path / f"repeated_{name}.safetensors"

    def null_target(self, kind: str) -> Path:
        """The target of the first null run of this kind, an image like ``estimate``."""
        return self.path / f"null_{kind}.npy"

    @property
    def occupied(self) -> bool:
        """Whether results or checkpoints of a run are here."""
        checkpoints = (self.checkpoint, previous_checkpoint(self.checkpoint))
        return any(file.exists() for file in (self.record, *checkpoints, self.watch))

    def clear_judgement(self) -> None:
        """Remove what `mtd trust` wrote about an earlier result."""
        nulls = self.path.glob("null_*.npy")
        for file in (self.trust, self.posterior_mean, self.posterior_std, *nulls):
            file.unlink(missing_ok=True)
        self.clear_repetitions()

    def clear_repetitions(self, needed: Collection[str] = ()) -> None:
        """Remove the checkpoints of the recoveries for the verdict on a volume, except for those named in ``needed``."""
        kept = {self.repetition(name) for name in needed}
        kept |= {previous_checkpoint(file) for file in kept}
        for file in set(self.path.glob(self.repetition("*").name)) - kept:
            file.unlink(missing_ok=True)

    def clear_watch(self) -> None:
        """Remove ledger, picks and order of `mtd watch`; the next run replaces its measurement."""
        for file in (
            self.watch,
            previous_checkpoint(self.watch),
            self.watch_picks,
            self.watch_order,
        ):
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of an earlier run (and nothing else); what `mtd watch` has counted stays."""
        self.clear_judgement()
        checkpoints = (self.checkpoint, previous_checkpoint(self.checkpoint))
        results = (self.record, self.estimate, self.average, self.history, self.page)
        halves, drawn = (self.half1, self.half2), (self.volume_mean, self.volume_std)
        volumes = (self.volume, self.whitened, *halves, *drawn, self.poses)
        for file in (
            *results,
            *volumes,
            *checkpoints,
            self.picks,
            self.picks_star,
            self.picks_json,
            self.table,
        ):
            file.unlink(missing_ok=True)

    def read_record(self) -> dict[str, Any]:
        """``run.json`` as a dictionary; InputError if this is no finished run, StorageError if nothing is there at all."""
        if not self.path.exists():
            raise StorageError(f"{self.path} should be a folder written by `mtd recover`; there is none.")
        if not self.record.exists():
            raise InputError(f"{self.path} should be a folder written by `mtd recover`; it has no run.json.")
        return _read_json(self.record)

    @property
    def holds_volume(self) -> bool:
        """Whether this is the finished run of a volume."""
        return self.record.exists() and self.read_record().get("kind") == "volume"

    def read_trust(self) -> TrustRecord:
        """``trust.json`` of an image; empty before ``mtd trust``."""
        return self._read_trust(TrustRecord)

    def read_volume_trust(self) -> VolumeTrustRecord:
        """``trust.json`` of a volume; empty before it is judged."""
        return self._read_trust(VolumeTrustRecord)

    def _read_trust(self, kind: type[T]) -> T:
        if not self.trust.exists():
            return kind()
        try:
            return from_record(kind, _read_json(self.trust))
        except ValueError as problem:
            raise InputError(
                f"{self.trust} should be as `mtd trust` wrote it: {problem}; remove it, and judge the run again."
            ) from problem

    def read_image(self, path: Path, box_size: Lengths) -> np.ndarray:
        """One of the images of this run, (h, w) float64 of the box, or (C, h, w) of C classes."""
        box = pair(box_size)
        try:
            opened(path, _MOST).close()
            image = np.array(np.load(path, mmap_mode="r", allow_pickle=False), dtype=np.float64)
            if image.ndim not in (2, 3) or image.shape[-2:] != box or not np.isfinite(image).all():
                raise ValueError(f"it holds {image.shape}, or pixels that are not finite")
        except Exception as problem:  # the header is parsed as Python text, which fails in many ways
            raise InputError(
                f"{path} should hold images of {box[0]} x {box[1]} pixels written by mtd; it could not be read ({problem})."
            ) from problem
        return image

    def read_history(self) -> dict[str, list[float]]:
        """The columns of ``history.csv``, the fields of :class:`mtdcore.IterationRecord`."""
        names = {field.name for field in fields(IterationRecord)}
        try:
            table = csv.DictReader(_rows(self.history))
            rows = list(table)
            if any(set(columns) != names for columns in (table.fieldnames or names, *rows)):
                raise ValueError(f"its columns should be {', '.join(names)}")
            return {name: [float(row[name]) for row in rows] for name in names}
        except (OSError, ValueError, TypeError, csv.Error) as problem:
            raise InputError(
                f"{self.history} should be the table that `mtd recover` wrote; it is damaged ({problem})."
            ) from problem

    def read_detections(self) -> dict[str, list[float]]:
        """The columns of ``detections.csv``, finite numbers; none before there is one."""
        if not self.picks.exists():
            return {}
        try:
            table = csv.DictReader(_rows(self.picks))
            rows, names = list(table), table.fieldnames or ()
            return {name: [_number(row[name]) for row in rows] for name in names}
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as problem:
            raise InputError(
                f"{self.picks} should be the table that `mtd detect` wrote; it is damaged ({problem})."
            ) from problem

    def read_picks(self, micrograph: int) -> list[tuple[float, float]]:
        """Row and column of the copies in one micrograph, of ``detections.csv``; none before there is one."""
        table = self.read_detections()
        if not table:
            return []
        try:
            columns = (table["micrograph"], table["row"], table["column"])
        except KeyError as problem:
            raise InputError(
                f"{self.picks} should be the table that `mtd detect` wrote; it has no column {problem}."
            ) from problem
        return [(row, column) for m, row, column in zip(*columns, strict=True) if m == micrograph]

    def write_record(self, record: RunRecord | Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        _write_json(self.record, record)

    def write_trust(self, trust: TrustRecord) -> None:
        """Write ``trust.json``."""
        _write_json(self.trust, trust)

    def write_image(self, path: Path, image: np.ndarray) -> None:
        """Write one (L, L) image as ``.npy``."""
        write_whole(path, lambda file: np.save(file, image))

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv`` with the keys of the rows as its header."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.history, lambda file: file.write(text.getvalue().encode()))


def _rows(path: Path) -> io.StringIO:
    """The text of a table."""
    return io.StringIO(read_regular(path, _MOST).decode("utf-8"), newline="")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_regular(path, _MOST))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{path} should be JSON; it is damaged ({problem}).") from problem
    if not isinstance(record, dict):
        raise InputError(f"{path} should hold a JSON object; it holds a {type(record).__name__}.")
    return record


def _write_json(path: Path, record: object) -> None:
    text = to_json(to_record(record)) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def refuse_to_replace(path: Path, force: bool) -> None:
    """Raise StorageError when something is at ``path`` and ``--force`` was not given."""
    if path.exists() and not force:
        raise StorageError(f"{path} exists already; --force replaces it, -o chooses another place.")


def _number(text: str) -> float:
    """The finite number or truth value of a text; ValueError for any other text."""
    number = float({"True": "1", "False": "0"}.get(text, text))
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
