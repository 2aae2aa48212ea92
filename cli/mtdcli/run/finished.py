"""A finished run: its folder and its record, checked on reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mtdcore._base.records import check_types, from_record
from mtdcore._base.typing import pair
from mtdcore.data import Measurement
from mtdcore.data.micrographs.star import quoted
from mtdcore.data.micrographs.table import Entry, MicrographTable, default_name
from mtdcore.errors import InputError, MtdError, ParameterError
from mtdcore.model.likelihood import Likelihood
from mtdcore.model.likelihood.records import likelihood_from_record

from ..inputs.usable import open_usable
from ..terminal.console import log
from .arguments import asked_views
from .folder import RunFolder
from .parameters import RunParameters
from .record import RunRecord


@dataclass(frozen=True)
class FinishedRun:
    """A run whose ``run.json`` is there.

    Attributes:
        folder: its files.
        record: the content of ``run.json``.
        likelihood: at the end of the run.
    """

    folder: RunFolder
    record: RunRecord
    likelihood: Likelihood

    @classmethod
    def at(cls, path: Path | RunFolder) -> FinishedRun:
        """The finished run of a folder.

        Raises:
            StorageError: there is no such folder.
            InputError: no run is there, or its record is damaged or contradicts itself.
        """
        folder = path if isinstance(path, RunFolder) else RunFolder(path)
        plain = folder.read_record()
        if plain.get("kind") == "volume":
            raise InputError(
                f"{folder.path} is the run of a volume, and this command takes runs of images: `mtd evaluate --volume` compares it with a truth, "
                "`mtd trust` judges it, report.html shows it."
            )
        try:
            record = from_record(
                RunRecord,
                plain | {"parameters": RunParameters.from_record(plain.get("parameters"))},
                unknown="ignore",
            )
            likelihood = likelihood_from_record(record.result.likelihood)
            check_types(likelihood)
            _check(record, likelihood)
        except (ValueError, TypeError, LookupError, AttributeError, MtdError) as problem:
            raise InputError(
                f"{folder.record} should be as `mtd recover` wrote it: {problem}; restore it, or run again with --force."
            ) from problem
        return cls(folder, record, likelihood)

    @property
    def parameters(self) -> RunParameters:
        """How it was run."""
        return self.record.parameters

    @property
    def measurement(self) -> Path:
        """Where its measurement lay."""
        return self.record.measurement.path

    @property
    def commonest(self) -> int:
        """Index of the class with the most copies."""
        return int(np.argmax(self.likelihood.class_weights or (1.0,)))

    def open(self) -> Measurement:
        """The measurement, opened as in the run; InputError if its shape has changed since."""
        measurement = open_usable(self.measurement, self.parameters.skip_bad, self.parameters.defects)
        if measurement.shape != self.record.measurement.shape:
            raise InputError(f"{self.measurement} is not the measurement of this run any more.")
        return measurement

    def image(self, path: Path) -> np.ndarray:
        """One of the images of its folder: (L, L) float64, or (C, L, L) of C classes."""
        return self.folder.read_image(path, self.parameters.box_size)

    @property
    def estimate(self) -> np.ndarray:
        """The recovered target, as :meth:`image` gives it."""
        return self.image(self.folder.estimate)

    def table(self) -> MicrographTable:
        """The table of the micrographs in the run; numbered names where there is no table, or a name does not fit into a STAR file."""
        table = MicrographTable.load(self.folder.path)
        if table is not None:
            return MicrographTable(tuple(_nameable(i, entry) for i, entry in enumerate(table.entries)))
        count = self.record.measurement.shape[0]
        return MicrographTable(tuple(Entry(default_name(i)) for i in range(count)))


def _nameable(index: int, entry: Entry) -> Entry:
    """The entry; a name that no STAR file can hold (of several lines) is replaced by a number."""
    try:
        quoted(entry.name)
    except ParameterError as problem:
        log(f"warning: micrograph {index + 1} goes by its number: {problem}")
        return replace(entry, name=default_name(index))
    return entry


def _check(record: RunRecord, likelihood: Likelihood) -> None:
    """Raise ValueError where parts of a record contradict each other, before anything of their size is allocated."""
    parameters, side = record.parameters, max(record.measurement.shape[1:])
    same = {
        "box_size": (likelihood.views.box_shape, pair(parameters.box_size)),
        "rotations": (likelihood.templates, asked_views(parameters).count),
        "classes": (likelihood.classes, parameters.classes),
    }
    for name, (found, asked) in same.items():
        if found != asked:
            raise ValueError(f"{name} of the likelihood should be {asked}; it is {found}")
    if max(likelihood.margins) > max(likelihood.views.box_shape) or likelihood.separation > side:
        raise ValueError(
            "margin and separation of the likelihood should not be larger than box and micrograph"
        )
    if likelihood.micrographs is not None and len(likelihood.micrographs) != record.measurement.shape[0]:
        raise ValueError("the likelihood should know as many micrographs as there are")
