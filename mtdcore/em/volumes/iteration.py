"""One iteration: E-step on a part, M-step with the statistics of that part, numbers, frame."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft

from ..._base.cores import usable_cores
from ...data import Measurement
from ...data.derived import without_offset
from ...estep.backends import Backend
from ...estep.volumes.expectation import volume_cut, volume_e_step, with_views
from ...estep.volumes.residual import left_over
from ...estep.volumes.statistics import VolumeStatistics
from ...estep.volumes.templates import Search
from ...model.filters.optics import Micrographs
from ...model.likelihood import WindowLikelihood
from ...model.likelihood.amplitudes import learned_std
from ...model.priors import Prior
from ...model.volumes.grids import ball, moved, shifted
from ...model.volumes.projections import Projections
from ...mstep.envelope import EnvelopePrior
from ...mstep.volumes import VolumeUpdate
from ..online.batches import OnlineEM
from .gauge import find_axes, off_centre
from .noise import NoiseModel, Picture
from .plan import VolumePlan
from .state import VolumeCandidate, VolumeRecord, VolumeState

#: Number of tiles from which the noise is estimated.
_RESIDUAL_TILES = 16

#: Share of the iterations in which the offset is held at the median: before copies are found the offset would absorb their mean.
_HELD = 0.25

#: Least noise level, as a share of the estimate from neighbouring pixels: if windows overlap, the energy explained by copies counts twice, and the
#: residual energy may be negative.
_QUIETEST = 0.5

#: Number of iterations from one centring of the volume to the next.
_CENTRED = 3


def window_model(
    box_size: int,
    sigma: float,
    count: float,
    separation: int,
    micrographs: Micrographs | None = None,
    amplitude_std: float = 0.0,
) -> WindowLikelihood:
    """The window model of a box, before its views are known."""
    views = Projections(box_size, 1)
    return WindowLikelihood(
        views, sigma, count, separation, micrographs=micrographs, amplitude_std=amplitude_std
    )


@dataclass(frozen=True)
class Setting:
    """The fixed parameters of a run.

    Attributes:
        plan: of the iterations.
        online: the parts that iterations read.
        separation: smallest distance of two corners, pixels.
        micrographs: differences between micrographs at the start; None: they are alike.
        each: whether noise levels and numbers of copies of the micrographs are learned.
        diameter: of the particle in voxels; None: that of the box.
        prior: learned prior on the device of the backend; None: no learned prior.
        noise_std: of a pixel; None: estimated at the start, updated by every M-step.
        amplitude_std: spread of the amplitudes of copies; None: learned, once the run has cooled.
        backend: of the E-step.
        executor: runs parts of an E-step elsewhere; None: the E-step runs here.
    """

    plan: VolumePlan
    online: OnlineEM
    separation: int
    micrographs: Micrographs | None
    each: bool
    diameter: float | None
    prior: Prior | None
    noise_std: float | None
    amplitude_std: float | None
    backend: Backend
    executor: Executor | None

    @property
    def cores(self) -> int:
        """Number of host cores for templates and M-steps: those of the CPU backend, or all usable cores if a device scores the tiles."""
        return self.backend.threads if self.backend.name == "cpu" else usable_cores()


@dataclass(frozen=True)
class Iteration:
    """One iteration of a run, made by calling the object.

    Attributes:
        setting: of the run.
        source: the measurement as the run reads it.
        noise_model: offset and filter of the noise.
    """

    setting: Setting
    source: Measurement
    noise_model: NoiseModel

    @property
    def plan(self) -> VolumePlan:
        """The plan of the run."""
        return self.setting.plan

    def __call__(self, state: VolumeState) -> VolumeState:
        """The state after one more iteration of every candidate, or of the best alone once the race is over."""
        iteration, candidates = state.iteration, state.candidates
        if len(candidates) > 1 and iteration >= round(self.plan.race * self.plan.iterations):
            candidates = (max(candidates, key=lambda c: self._judged(c, iteration)),)
        with scipy.fft.set_workers(self.setting.cores):  # same bits for any number
            moved_on, records = zip(*(self._advance(c, state) for c in candidates), strict=True)
        best = max(range(len(moved_on)), key=lambda i: moved_on[i].evidence)
        seconds = sum(record.seconds for record in records)
        return state.advanced(moved_on, replace(records[best], seconds=seconds))

    def statistics(
        self, source: Measurement, candidate: VolumeCandidate, search: Search, heat: float
    ) -> VolumeStatistics:
        """E-step at a candidate, over the measurement or a part of it."""
        sigma = candidate.noise_std * math.sqrt(heat)
        model = with_views(self._model(sigma, candidate), search.views)
        source = without_offset(source, candidate.offset)
        found = volume_e_step(
            source, candidate.volume, model, search, self.setting.backend, self.setting.executor
        )
        return found.normalised()

    def left_over(self, candidate: VolumeCandidate, iteration: int) -> Iterator[Picture]:
        """Residual of some tiles of the measurement after the copies of a candidate."""
        search, model = self.plan.search(iteration), self._model(candidate.noise_std, candidate)
        level = without_offset(self.source, candidate.offset)
        return left_over(level, candidate.volume, model, search, _RESIDUAL_TILES, self.setting.backend)

    def micrographs_of(self, candidate: VolumeCandidate) -> Micrographs | None:
        """The differences between micrographs, as learned by the candidate or as given."""
        learned, given = candidate.micrographs, self.setting.micrographs
        return given if learned is None or given is None else replace(learned, transfer=given.transfer)

    def _model(self, sigma: float, candidate: VolumeCandidate) -> WindowLikelihood:
        count, spread, distance = candidate.expected_count, candidate.amplitude_std, self.setting.separation
        return window_model(
            self.plan.box_size, sigma, count, distance, self.micrographs_of(candidate), spread
        )

    def _judged(self, candidate: VolumeCandidate, iteration: int) -> float:
        """Evidence over the whole measurement, for the race."""
        return self.statistics(self.source, candidate, self.plan.search(iteration), 1.0).log_likelihood

    def _advance(
        self, candidate: VolumeCandidate, state: VolumeState
    ) -> tuple[VolumeCandidate, VolumeRecord]:
        began, iteration, plan = time.perf_counter(), state.iteration, self.plan
        if iteration > 0 and plan.symmetry_at(iteration) != plan.symmetry_at(iteration - 1):
            candidate = self._on_axes(candidate)
        search, heat = plan.search(iteration), plan.heat(iteration, state.first_heat)
        whole = plan.reads_all(iteration)
        part = self.source if whole else self.setting.online.batch(self.source, iteration, plan.iterations)
        found = self.statistics(part, candidate, search, heat)
        sites = volume_cut(self._model(1.0, candidate)).sites(self.source.shape)
        share = found.sites / sites
        copies = found.expected_count / share
        volume, spectrum = self._updated(candidate, found, copies, iteration, heat)
        least = 0.5 * state.first_count if plan.early(iteration) else 1.0
        micrographs = self._told_apart(candidate, found, volume, sites, least)
        noise_std, offset = self._levels(candidate, found, volume, iteration, micrographs)
        amplitude_std = candidate.amplitude_std
        if self.setting.amplitude_std is None and heat == 1.0 and iteration >= plan.cooled:
            amplitude_std = learned_std(amplitude_std, found, found.copy_energy(volume) / noise_std**2)
        if iteration % _CENTRED == _CENTRED - 1:
            volume = self._centred(volume)
        evidence = found.log_likelihood / share
        each = None if micrographs is None else micrographs.count
        count = copies if each is None else float(each.sum())
        advanced = VolumeCandidate(
            volume, noise_std, max(count, least), evidence, spectrum, offset, amplitude_std, micrographs
        )
        record = VolumeRecord(
            iteration=iteration + 1,
            band=search.views.band,
            views=search.views.count,
            temperature=heat,
            evidence=evidence,
            expected_count=copies,
            noise_std=noise_std,
            share=share,
            local=found.local / max(found.sites, 1.0),
            seconds=time.perf_counter() - began,
        )
        return advanced, record

    def _updated(
        self, candidate: VolumeCandidate, found: VolumeStatistics, copies: float, iteration: int, heat: float
    ) -> tuple[np.ndarray, EnvelopePrior | None]:
        """The M-step of the volume, and the prior that it estimated."""
        plan = self.plan
        if copies < 1.0:  # too few to update the volume, which may be too strong for the data
            weaker = 0.5 if plan.early(iteration) else 1.0
            return weaker * candidate.volume, candidate.spectrum
        # The statistics are those of the part alone: the prior weighs them by its few copies, and earlier parts do not slow the volume.
        return VolumeUpdate(seed=plan.drawn(iteration))(
            candidate.volume,
            found.right,
            found.normal,
            candidate.noise_std * math.sqrt(heat),
            plan.band(iteration),
            candidate.spectrum,
            self.setting.prior,
            self.setting.diameter,
        )

    def _told_apart(
        self,
        candidate: VolumeCandidate,
        found: VolumeStatistics,
        volume: np.ndarray,
        sites: int,
        least_copies: float,
    ) -> Micrographs | None:
        """The M-step of the micrographs' own numbers: noise levels in units of the pixels, and numbers of copies.

        Micrographs outside the part keep their numbers. Residuals of single micrographs are known only at the volume of the E-step: the ratios of
        the levels come from these residuals, the scale from the residual at the new volume.
        """
        optics, given = self.micrographs_of(candidate), self.setting.micrographs
        if not self.setting.each or optics is None or given is None or found.ledger is None:
            return candidate.micrographs
        ledger = found.ledger.copy()
        before = float(optics.weights[ledger[:, 0].astype(int)] @ ledger[:, 3])
        if before > 0.0:
            ledger[:, 3] *= max(found.residual_energy(volume), 0.0) / (before * self.noise_model.share)
        learn, model = self.setting.noise_std is None, self._model(candidate.noise_std, candidate)
        entered = model.entered(optics, ledger, sites / len(optics), learn)
        assert entered.count is not None
        # no micrograph may settle at zero copies while the volume is meaningless
        count = np.maximum(entered.count, least_copies * given.count_share)
        quiet = _QUIETEST * self.noise_model.noise_std * given.noise_ratio
        return replace(
            entered, noise=np.maximum(entered.noise, quiet) if learn else entered.noise, count=count
        )

    def _levels(
        self,
        candidate: VolumeCandidate,
        found: VolumeStatistics,
        volume: np.ndarray,
        iteration: int,
        micrographs: Micrographs | None,
    ) -> tuple[float, float]:
        """The M-step of the common noise level (the root mean square if micrographs have their own) and of the offset."""
        noise_std, offset = candidate.noise_std, candidate.offset
        if not found.pixels > 0:
            return noise_std, offset
        if self.setting.noise_std is None:
            if micrographs is None:
                left = max(found.residual_energy(volume) / (found.pixels * self.noise_model.share), 0.0)
                noise_std = max(math.sqrt(left), _QUIETEST * self.noise_model.noise_std)
            else:
                noise_std = math.sqrt(np.mean(micrographs.noise**2))
        if iteration >= _HELD * self.plan.iterations:
            # the pixels of every view sum to the sum of the volume
            offset += (found.total - found.bright * float(volume.sum())) / found.weighed_pixels
        return noise_std, offset

    def _centred(self, volume: np.ndarray) -> np.ndarray:
        """The volume with its centre of mass in the middle."""
        support = ball(self.plan.box_size, self.setting.diameter)
        shift = off_centre(volume, support)
        return volume if shift is None else shifted(volume, shift) * support

    def _on_axes(self, candidate: VolumeCandidate) -> VolumeCandidate:
        """The candidate with its symmetry axes turned to those of the point group, and its volume made symmetric."""
        symmetry = self.plan.symmetry
        rotation, _ = find_axes(candidate.volume, symmetry)
        turned = moved(candidate.volume, rotation)
        views = self.plan.search(self.plan.iterations).views
        return replace(candidate, volume=views.symmetrised(turned) * ball(len(turned)))
