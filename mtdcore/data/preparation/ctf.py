"""The contrast transfer function of a microscope.

    CTF(s, a) = -sin( pi lambda s^2 ( D(a) - lambda^2 s^2 Cs / 2 ) + phase + arctan(w / sqrt(1 - w^2)) )
    D(a) = ( U + V + (U - V) cos 2 (a - angle) ) / 2

Source: A. Rohou, N. Grigorieff, J. Struct. Biol. 192 (2015) 216, eqs. 2 to 5, the convention of CTFFIND and of the columns
of RELION: underfocus is positive, s is a spatial frequency in 1/angstrom at angle a from the column axis towards the row
axis of the stored array. The sign is that of raw micrographs: below the first zero it is negative, particles are dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...errors import InputError

#: h / sqrt(2 m e) in angstrom sqrt(volt), and e / (2 m c^2) in 1/volt (CODATA 2018).
_WAVE, _RELATIVITY = 12.264259661581, 9.784755917e-7


def wavelength(voltage: float) -> float:
    """Relativistic wavelength of electrons in angstrom; ``voltage`` in kilovolt."""
    volts = 1e3 * voltage
    return _WAVE / math.sqrt(volts * (1.0 + _RELATIVITY * volts))


def aberration_phase(squared: Any, defocus: Any, wave: Any, aberration: float) -> Any:
    """Phase of defocus and spherical aberration, ``pi lambda s^2 (D - lambda^2 s^2 Cs / 2)``, in radians.

    Args:
        squared: s^2, 1/angstrom^2; an array of any library, like ``defocus`` and ``wave``, which broadcast.
        defocus: D, angstrom, positive for underfocus.
        wave: lambda, angstrom.
        aberration: Cs, angstrom.
    """
    return math.pi * wave * squared * (defocus - wave**2 * squared * aberration / 2)


@dataclass(frozen=True)
class Ctf:
    """Parameters of one micrograph, in the units of RELION's columns.

    Attributes:
        defocus_u: larger defocus, angstrom, positive for underfocus.
        defocus_v: smaller defocus, angstrom.
        defocus_angle: degrees from the column axis to the axis of ``defocus_u``.
        voltage: kilovolt.
        spherical_aberration: Cs, millimetre.
        amplitude_contrast: w, in [0, 1).
        phase_shift: of a phase plate, degrees.
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if not all(map(math.isfinite, values.values())):
            raise InputError(f"CTF parameters should be finite numbers; got {values}.")
        if not (self.voltage > 0 and 0 <= self.amplitude_contrast < 1):
            raise InputError(
                "a CTF needs a positive voltage (kV) and an amplitude contrast from 0 to below 1; got "
                f"{self.voltage:g} kV and {self.amplitude_contrast:g}: check the optics table."
            )

    def grid(self, shape: tuple[int, int], pixel_size: float) -> np.ndarray:
        """CTF at the frequencies of ``rfft2`` of an image of this shape, (H, W // 2 + 1) float64."""
        rows = np.fft.fftfreq(shape[0], pixel_size)[:, None]
        columns = np.fft.rfftfreq(shape[1], pixel_size)[None, :]
        return self._at(rows**2 + columns**2, np.arctan2(rows, columns))

    def radial(self, frequencies: np.ndarray) -> np.ndarray:
        """CTF at the mean defocus (no astigmatism); frequencies in 1/angstrom, float64 of their shape."""
        return self._at(np.square(frequencies), None)

    def _at(self, squared: np.ndarray, angle: np.ndarray | None) -> np.ndarray:
        """CTF at squared frequencies; without an angle, at the mean defocus."""
        wave, aberration = wavelength(self.voltage), 1e7 * self.spherical_aberration
        mean, half = (self.defocus_u + self.defocus_v) / 2, (self.defocus_u - self.defocus_v) / 2
        defocus = (
            mean if angle is None else mean + half * np.cos(2 * (angle - math.radians(self.defocus_angle)))
        )
        constant = math.radians(self.phase_shift) + math.asin(self.amplitude_contrast)
        return np.asarray(-np.sin(aberration_phase(squared, defocus, wave, aberration) + constant))
