"""Copies that were found, and the tables that programs of the field read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..._base.files import write_whole
from ..._base.typing import Lengths, pair, plain
from ...data.micrographs.star import write_star
from ...data.micrographs.table import names_of
from ...model.poses import Poses, may_be_mirrored
from ...model.views import Views
from ..metrics import Alignment

#: Digits of columns that need more than six: a day of a signal to a microsecond.
_DIGITS = {"seconds": 12}

#: Largest probability in log-odds: beyond it float32 weights cannot distinguish 1 - q from 0. It caps log-odds at 16 nats.
_SUREST = 1.0 - 2.0**-23


@dataclass(frozen=True, eq=False)
class Detections:
    """Copies found, the most probable first.

    Attributes:
        micrograph: (N,) int64 index of the micrograph.
        row: (N,) row of the top-left corner of the box, int64, or float64 if the views include sub-pixel shifts.
        column: (N,) column of the same corner.
        rotation: (N,) int64 index k: the copy looks like the target turned by ``2 pi k / K`` counter-clockwise. Of a target with
            symmetry C_n the k below K / n are all there are.
        probability: (N,) float64 posterior probability that a copy is there, within a few pixels.
        box_size: side L of the box in pixels, or (height, width).
        rotations: number K of rotations in a full turn.
        class_index: (N,) int64, which of the targets the copy shows; 0 where there is one.
        mirrored: (N,) bool, whether the copy looks like the mirror image of the target, its columns in reverse order, turned by
            that angle; None: copies are not mirrored.
        amplitude: (N,) float64, factor of the target in the copy, posterior mean given the pose; None: copies are alike.
    """

    micrograph: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rotation: np.ndarray
    probability: np.ndarray
    box_size: Lengths
    rotations: int
    class_index: np.ndarray
    mirrored: np.ndarray | None = None
    amplitude: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) rows (micrograph, row, column), int64 or float64, as in :class:`mtdcore.synthetic.simulate.Truth`."""
        return np.stack([self.micrograph, self.row, self.column], axis=1)

    @property
    def angle(self) -> np.ndarray:
        """(N,) float64 degrees, counter-clockwise with row 0 on top, in [0, 360)."""
        return 360.0 * self.rotation / self.rotations

    @property
    def log_odds(self) -> np.ndarray:
        """(N,) float64 nats, ``log(q / (1 - q))`` of the probability q; at most 16, the resolution of float32."""
        q = np.minimum(self.probability, _SUREST)
        return np.asarray(np.log(q) - np.log1p(-q))

    def in_frame_of(self, alignment: Alignment) -> Detections:
        """The same copies, posed with the truth that the target was aligned to (``metrics.align(target, truth)``).

        A target recovered turned by k and shifted by s puts every copy at a corner that is off by s *in the frame of
        the copy*: the correction turns with the copy, and no single offset removes it.
        """
        mine = np.zeros(len(self), bool) if self.mirrored is None else self.mirrored
        other = mine ^ alignment.mirrored  # hand, as the truth is seen
        turn = np.where(other, -alignment.rotation, alignment.rotation)
        posed = replace(
            self,
            rotation=(self.rotation - turn) % self.rotations,
            mirrored=other if alignment.mirrored else self.mirrored,
        )
        return posed.moved(*(-step for step in alignment.shift))

    def moved(self, down: float, right: float) -> Detections:
        """The same copies at corners that are so much further down and right in the frame of the target; whole pixels stay whole."""
        angle = 2.0 * np.pi * self.rotation / self.rotations
        across = right if self.mirrored is None else np.where(self.mirrored, -right, right)
        rows = down * np.cos(angle) - across * np.sin(angle)
        columns = down * np.sin(angle) + across * np.cos(angle)
        row, column = self.row + rows, self.column + columns
        if self.row.dtype.kind == "i":
            row, column = (
                self.row + np.rint(rows).astype(np.int64),
                self.column + np.rint(columns).astype(np.int64),
            )
        return replace(self, row=row, column=column)

    def _columns(self, sampling_rate: float | None = None) -> dict[str, np.ndarray]:
        """(N,) values of each field of :meth:`records`, in the order of the table."""
        return {
            "micrograph": self.micrograph,
            "row": self.row,
            "column": self.column,
            **({} if sampling_rate is None else {"seconds": self.column / sampling_rate}),
            "rotation": self.rotation,
            "angle_degrees": self.angle,
            "probability": self.probability,
            "log_odds": self.log_odds,
            "class": self.class_index,
            **({} if self.mirrored is None else {"mirrored": self.mirrored}),
            **({} if self.amplitude is None else {"amplitude": self.amplitude}),
        }

    def records(self, sampling_rate: float | None = None) -> list[dict[str, int | float]]:
        """One dictionary per copy: micrograph, row and column of the corner, rotation, angle, probability, log-odds, class, hand, amplitude.

        Args:
            sampling_rate: of a signal, samples per second: the column, which is the first sample of the copy, in seconds as well.
        """
        columns = self._columns(sampling_rate)

        def value(name: str, number: np.generic) -> int | float:
            if number.dtype.kind != "f":
                return int(number)
            if name in ("row", "column"):
                return round(float(number), 3)
            return float(f"{number:.{_DIGITS.get(name, 6)}g}")

        return [{n: value(n, v[i]) for n, v in columns.items()} for i in range(len(self))]

    def to_csv(self, path: str | Path, sampling_rate: float | None = None) -> None:
        """One line per copy, the fields of :meth:`records`.

        Raises:
            StorageError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns(sampling_rate), lineterminator="\n")
        writer.writeheader()
        for row in self.records(sampling_rate):
            writer.writerow({n: _text(n, v) for n, v in row.items()})
        write_whole(Path(path), lambda file: file.write(text.getvalue().encode()))

    def to_json(self, path: str | Path, sampling_rate: float | None = None) -> None:
        """A list of :meth:`records`, with the size of the box and the number of rotations.

        Raises:
            StorageError: the file cannot be written.
        """
        copies = self.records(sampling_rate)
        found = {"box_size": self.box_size, "rotations": self.rotations, "copies": copies}
        write_whole(Path(path), lambda file: file.write((json.dumps(found) + "\n").encode()))

    def only(self, micrograph: int) -> Detections:
        """The copies in one micrograph."""
        return self.where(self.micrograph == micrograph)

    def where(self, chosen: np.ndarray) -> Detections:
        """Those of the copies for which ``chosen``, (N,) bool, is true."""
        names = [field.name for field in fields(self) if isinstance(getattr(self, field.name), np.ndarray)]
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def pick_columns(self, binning: int = 1) -> dict[str, Sequence[object]]:
        """RELION's columns of picks: centres ``X = column + L // 2``, ``Y = row + L // 2``, psi = +360 k / K degrees, hand; RELION has
        no column for the amplitude of a particle, and reads over ours.

        Args:
            binning: pixels of the micrograph, along one side, in a pixel of the measurement.
        """
        down, across = (n // 2 for n in pair(self.box_size))
        return {
            "rlnCoordinateX": [f"{x:.6f}" for x in (self.column + across) * binning],
            "rlnCoordinateY": [f"{y:.6f}" for y in (self.row + down) * binning],
            "rlnAnglePsi": [f"{angle:.6f}" for angle in self.angle],
            "rlnClassNumber": [int(c) + 1 for c in self.class_index],
            "rlnAutopickFigureOfMerit": [f"{odds:.6f}" for odds in self.log_odds],
            "mtdProbability": [f"{q:.6f}" for q in self.probability],
            **({} if self.mirrored is None else {"rlnIsFlip": [int(m) for m in self.mirrored]}),
            **({} if self.amplitude is None else {"mtdAmplitude": [f"{a:.6f}" for a in self.amplitude]}),
        }

    def to_star(self, path: str | Path, micrographs: Sequence[str] | None = None, binning: int = 1) -> None:
        """One RELION table of the picks in all micrographs, see :meth:`pick_columns`.

        Args:
            path: the file.
            micrographs: name of each micrograph of the measurement; None: ``micrograph_000001`` and so on.
            binning: see :meth:`pick_columns`.

        Raises:
            ParameterError: fewer names than micrographs, or a name with white space.
            StorageError: the file cannot be written.
        """
        columns: dict[str, Sequence[object]] = {"rlnMicrographName": names_of(self.micrograph, micrographs)}
        columns |= self.pick_columns(binning)
        write_star(path, "particles", columns)


def no_copies(views: Views) -> Detections:
    """No copies, with the types that those of these views have."""
    poses, whole = Poses.of(views), np.zeros(0, np.int64)
    place = np.zeros(0) if len(poses.whole) < views.count else whole
    box, hands = plain(*views.box_shape), np.zeros(0, bool) if may_be_mirrored(views) else None
    return Detections(whole, place, place, whole, np.zeros(0), box, poses.rotations, whole, hands)


def _text(name: str, value: int | float) -> int | str:
    """Of a number in a table: thousandths of a pixel, six digits of anything else."""
    if isinstance(value, int):
        return value
    return f"{value:.3f}" if name in ("row", "column") else f"{value:.{_DIGITS.get(name, 6)}g}"
