"""Sufficient statistics of one E-step (docs/model.md 3 and 7). They are a sum over tiles: chunks, threads,
processes and machines just add them, and the M-step needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from array_api_compat import array_namespace

from .._base.files import write_whole
from .._base.typing import Array
from ..errors import InputError, ParameterError
from ..model.optics import radial_filter
from ..model.rotations import RotationSet, templates

#: The fields that an E-step computes and that ``+`` adds.
SUMMED = (
    "backprojection",
    "coverage",
    "log_likelihood",
    "energy",
    "expected_count",
    "empty_mass",
    "sites",
    "pixels",
)


@dataclass(frozen=True)
class Statistics:
    """What an E-step found, additive over tiles.

    Attributes:
        backprojection: (C K, B, B) float64, class by class, B = box_size + 2 margin; posterior-weighted sum of measurement
            pixels in the frame of each rotated target.
        coverage: (C K, B, B) float64, posterior mass that saw each of those pixels.
        log_likelihood: nats. Patch model: log p(valid pixels | F). Window model: evidence against
            "no copies" (docs/model.md 7).
        energy: sum of the squared valid pixels.
        expected_count: posterior expected number of copies (patch model: mean coverage of a target pixel).
        empty_mass: posterior mass of the empty poses (patch model; 0 in the window model).
        sites: patches (patch model) or corners (window model) that were scored.
        pixels: valid pixels that ``energy`` sums over. Both are whole numbers unless :meth:`scaled`.
        noise_std: noise level at which the posterior was computed.
        box_size: side L of the target.
        classes: number of classes C.
        spectrum: (C K, R) NumPy float64, where micrographs have a transfer H_m: ``sum_m c_mk H_m^2`` at the frequencies
            of the transfer, c_mk the copies. What the normal operator then weighs instead of ``coverage``.
        ledger: (n, 5) NumPy float64, where micrographs are told apart: rows (micrograph, sites, valid pixels, residual
            energy at the target of the E-step, expected copies), by micrograph.

    With likelihoods that tell micrographs apart, the sums over pixels weigh each by ``noise_std^2 / sigma_m^2``, as if
    all had the noise level ``noise_std``.
    """

    backprojection: Array
    coverage: Array
    log_likelihood: float
    energy: float
    expected_count: float
    empty_mass: float
    sites: float
    pixels: float
    noise_std: float
    box_size: int
    classes: int = 1
    spectrum: np.ndarray | None = None
    ledger: np.ndarray | None = None

    @classmethod
    def zeros(
        cls, rotations: int, box_size: int, noise_std: float, margin: int = 0, xp: Array = np
    ) -> Statistics:
        """The neutral element of ``+``."""
        side = box_size + 2 * margin
        empty = xp.zeros((rotations, side, side), dtype=xp.float64)
        return cls(empty, empty, 0.0, 0.0, 0.0, 0.0, 0, 0, noise_std, box_size)

    def __add__(self, other: Statistics) -> Statistics:
        if not isinstance(other, Statistics):
            return NotImplemented
        if (self.backprojection.shape, self.box_size, self.noise_std) != (
            other.backprojection.shape,
            other.box_size,
            other.noise_std,
        ):
            raise ParameterError(
                "statistics add only when rotations, box_size, margin and noise_std agree; got "
                f"{self.backprojection.shape} at noise {self.noise_std} and {other.backprojection.shape} at {other.noise_std}."
            )
        sums = {name: getattr(self, name) + getattr(other, name) for name in SUMMED}
        spectrum = _joined(self.spectrum, other.spectrum, np.add)
        return replace(self, **sums, spectrum=spectrum, ledger=_joined(self.ledger, other.ledger, _entered))

    def scaled(self, factor: float) -> Statistics:
        """Every sum times ``factor``: statistics of so many times the data."""
        if factor == 1.0:
            return self
        sums = {name: getattr(self, name) * factor for name in SUMMED}
        spectrum = None if self.spectrum is None else self.spectrum * factor
        ledger = None if self.ledger is None else np.hstack([self.ledger[:, :1], self.ledger[:, 1:] * factor])
        return replace(self, **sums, spectrum=spectrum, ledger=ledger)

    def moved(self, convert: Callable[[Array], Array]) -> Statistics:
        """The same statistics with converted arrays, for example by ``Backend.to_host``."""
        return replace(self, backprojection=convert(self.backprojection), coverage=convert(self.coverage))

    @property
    def rotations(self) -> int:
        """Number of rotations K."""
        return int(self.backprojection.shape[0]) // self.classes

    @property
    def margin(self) -> int:
        """Pixels kept around the box on each side."""
        return int(self.backprojection.shape[-1] - self.box_size) // 2

    @property
    def rotation_set(self) -> RotationSet:
        """Rotations of the frame that the statistics live on (box plus margin)."""
        return RotationSet(self.rotations, int(self.backprojection.shape[-1]))

    def cropped(self) -> Statistics:
        """The same statistics without the margin."""
        m = self.margin
        if m == 0:
            return self
        inner = (slice(None), slice(m, -m), slice(m, -m))
        return replace(self, backprojection=self.backprojection[inner], coverage=self.coverage[inner])

    def of_class(self, index: int) -> Statistics:
        """Those of one class; what is summed over the measurement (energy, pixels, ...) stays that of all classes."""
        if self.classes == 1:
            return self
        cut = slice(index * self.rotations, (index + 1) * self.rotations)
        coverage = self.coverage[cut]
        xp, m = array_namespace(coverage), self.margin
        inside = slice(m, m + self.box_size)
        return replace(
            self,
            backprojection=self.backprojection[cut],
            coverage=coverage,
            spectrum=None if self.spectrum is None else self.spectrum[cut],
            expected_count=float(xp.sum(coverage[:, inside, inside])) / self.box_size**2,
            classes=1,
        )

    def explained(self, turned: Array) -> Array:
        """The normal operator on (C K, B, B) templates: ``coverage_k R_k F``, or the spectrum in its place."""
        return self.coverage * turned if self.spectrum is None else radial_filter(turned, self.spectrum)

    @property
    def largest_coverage(self) -> float:
        """Number of copies where coverage is uniform; in general the sum over rotations of its largest value.

        It bounds the eigenvalues of the normal operator ``sum_k R_k^T coverage_k R_k``.
        """
        if self.spectrum is not None:
            return float(self.spectrum.max(axis=1).sum())
        coverage = self.cropped().coverage
        xp = array_namespace(coverage)
        return float(xp.sum(xp.max(coverage, axis=(1, 2))))

    def gradient(self, target: Array) -> Array:
        """Gradient of Q at any target: ``sum_k R_k^T (backprojection_k - coverage_k R_k F) / sigma^2``.

        See docs/model.md 3.

        Args:
            target: (L, L), or (C, L, L) for several classes, float array of the library of the statistics.
        """
        if target.ndim == 3:
            xp = array_namespace(target)
            return xp.stack([self.of_class(c).gradient(target[c, ...]) for c in range(self.classes)])
        inner = self.cropped()
        turned = inner.rotation_set
        residual = inner.backprojection - inner.explained(turned.apply(target))
        return turned.adjoint(residual) / self.noise_std**2

    def residual_energy(self, target: Array) -> float:
        """Expected squared residual of the measurement given the target, summed over the valid pixels."""
        inner = self.cropped()
        turned = templates(target, inner.rotation_set)
        xp = array_namespace(turned)
        explained = turned * (inner.explained(turned) - 2.0 * inner.backprojection)
        return self.energy + float(xp.sum(explained))

    def save(self, path: str | Path) -> None:
        """Write to an uncompressed ``.npz`` file.

        Raises:
            StorageError: the operating system refused.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        # CuPy's arrays become NumPy's by get() alone
        arrays = {
            name: np.asarray(value.get() if hasattr(value, "get") else value)
            for name, value in given.items()
            if value is not None
        }
        write_whole(Path(path), lambda file: np.savez(file, allow_pickle=False, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what :meth:`save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as data:
                values = {name: data[name] for name in data.files}
            return cls(**{n: v if v.ndim else v.item() for n, v in values.items()})
        except Exception as error:  # NumPy, zipfile and zlib share no exception type
            raise InputError(
                f"{path} should hold statistics written by Statistics.save; it could not be read: {error}."
            ) from error


def _joined(
    first: np.ndarray | None, second: np.ndarray | None, join: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Both, or the one there is."""
    if first is None or second is None:
        return second if first is None else first
    return join(first, second)


def _entered(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One ledger out of two, with a row per micrograph."""
    rows = np.concatenate([first, second])
    micrographs, row = np.unique(rows[:, 0], return_inverse=True)
    ledger = np.zeros((len(micrographs), rows.shape[1]))
    np.add.at(ledger, row, rows)
    ledger[:, 0] = micrographs
    return ledger
