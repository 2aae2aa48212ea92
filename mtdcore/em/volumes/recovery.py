"""Result of the recovery of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...data import Measurement
from ...drawing.overview import Plotted, volume_overview
from ...estep.volumes.statistics import VolumeStatistics
from ...model.filters.optics import Micrographs
from ...model.likelihood import WindowLikelihood
from ...model.volumes.maps import write_map
from .noise import NoiseModel
from .plan import VolumePlan
from .state import VolumeRecord, VolumeState

if TYPE_CHECKING:
    from ...drawing.overview import AnyFigure


@dataclass(frozen=True, eq=False, repr=False)
class VolumeRecovery(Plotted):
    """A recovered volume; its hand is arbitrary, since projections do not determine it.

    Attributes:
        state: last state of the run.
        statistics: of an E-step over the whole measurement at the volume.
        plan: of the run.
        noise_model: offset and filter of the noise.
        separation: smallest distance of two copies, pixels.
        stopped: why the run ended; "blank": nothing was found.
        micrographs: noise levels and numbers of copies, as given or learned, and transfers, which are corrected in the volume; None: they are alike.
    """

    state: VolumeState
    statistics: VolumeStatistics
    plan: VolumePlan
    noise_model: NoiseModel
    separation: int
    stopped: Literal["iterations", "callback", "blank"]
    micrographs: Micrographs | None = None

    @property
    def volume(self) -> np.ndarray:
        """(L, L, L) float64, axes (z, y, x), at the scale of the measurement."""
        return self.noise_model.unfiltered(self.seen, self.plan.last_band)

    @property
    def seen(self) -> np.ndarray:
        """The volume behind the filter of the noise; the volume itself if the noise is white."""
        return self.state.best.volume

    @property
    def noise(self) -> str:
        """The noise model that was found, in plain words."""
        apart = ""
        if self.micrographs is not None and np.ptp(self.micrographs.noise) > 0.0:
            levels = self.noise_std * self.micrographs.noise_ratio
            apart = (
                f", from {levels.min():.4g} to {levels.max():.4g} in the quietest and the noisiest micrograph"
            )
        if self.noise_model.whitening is None:
            return f"the noise is taken to be white{apart}"
        amplitude = self.noise_model.whitening.amplitude
        return (
            "the noise is not white: the run saw the micrographs through a radial filter, which the volume is without (amplitudes of the "
            f"noise within the band up to {amplitude.max():.3g} times those at its end){apart}"
        )

    def read(self, measurement: Measurement) -> Measurement:
        """A measurement as the run reads it: without the offset, through the filter."""
        return self.likelihood.whitened(measurement)

    @property
    def evidence(self) -> float:
        """Nats against "no copies" at the volume."""
        return self.statistics.log_likelihood

    @property
    def expected_count(self) -> float:
        """Posterior expected number of copies in the measurement."""
        return self.statistics.expected_count

    @property
    def found_copies(self) -> bool:
        """Whether at least one copy is expected and the evidence is at least one nat; the evidence excludes a blank volume, which fits anywhere."""
        return self.expected_count >= 1.0 and self.evidence >= 1.0

    @property
    def noise_std(self) -> float:
        """Noise level of a pixel, after the filter if any, if the noise of the band is continued as white noise beyond the band."""
        return self.state.best.noise_std

    @property
    def amplitude_std(self) -> float:
        """Standard deviation of the amplitudes of copies about 1, their mean; 0: all are alike."""
        return self.state.best.amplitude_std

    @property
    def likelihood(self) -> WindowLikelihood:
        """The window model with the final views and numbers."""
        views, count = self.plan.search(self.plan.iterations).views, max(self.expected_count, 1.0)
        offset, whitening = self.noise_model.offset, self.noise_model.whitening
        # the offset that the run learned is that of filtered pixels
        offset += self.state.best.offset / (1.0 if whitening is None else float(whitening.kernel.sum()))
        return WindowLikelihood(
            views,
            self.noise_std,
            count,
            self.separation,
            offset=offset,
            whitening=whitening,
            micrographs=self.micrographs,
            amplitude_std=self.amplitude_std,
        )

    @property
    def history(self) -> tuple[VolumeRecord, ...]:
        """One record per iteration."""
        return self.state.history

    def plot(self, figure: AnyFigure | None = None) -> AnyFigure:
        """Draw three sections of the volume above three projections, beside evidence and expected copies over the iterations.

        Args:
            figure: of matplotlib, to draw into, for instance ``pyplot.figure()``; None: a new one, without a window.

        Returns:
            The figure; ``savefig`` writes it to a file.
        """
        return volume_overview(self.volume, self.state.columns, figure)

    def __repr__(self) -> str:
        """The result on one line, without arrays."""
        found = (
            f"{self.expected_count:,.1f} copies, {self.evidence:,.0f} nats"
            if self.found_copies
            else "no copies"
        )
        shape, sigma = " x ".join(map(str, self.volume.shape)), f"noise_std={self.noise_std:.4g}"
        return f"VolumeRecovery({shape}: {found}, {sigma}, {self.state.iteration} iterations, stopped by {self.stopped})"

    def save_mrc(self, path: str | Path, pixel_size: float | None = None) -> None:
        """Write the volume as an MRC map that RELION and ChimeraX open, whole or not at all.

        Args:
            path: the file, replaced.
            pixel_size: angstrom; None: unknown.

        Raises:
            DependencyError: mrcfile is not installed.
            StorageError: the file cannot be written.
        """
        write_map(path, self.volume, pixel_size)
