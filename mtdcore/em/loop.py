"""The loop of expectation-maximisation, which runs a :class:`mtdcore.em.plan.defaults.Plan`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .._base.typing import Array
from ..data import Measurement
from ..errors import Doubt
from ..estep.expectation import e_step
from ..estep.statistics import Statistics
from ..model.filters.whitening import Whitening
from ..model.likelihood import Likelihood
from ..model.likelihood.amplitudes import SETTLED, learned_std
from ..mstep.noise import noise_filter
from .framing import Framing, average
from .gauge.agreement import rivals, unrivalled
from .gauge.extent import spaced
from .gauge.scale import Scales
from .gauge.seen import Gauge
from .plan.defaults import FEW, FILLED, KEPT, NOISE_UNTIL, ROUNDS, Plan
from .state import Candidate, EMState, IterationRecord, Recovery

#: Relative change of the filter below which the noise counts as unchanged.
_SAME = 0.03

#: Step, as a share of the norm of the target, below which the target is nearly at rest.
_SMALL = 0.02


def run(
    plan: Plan, source: Measurement, state: EMState, callback: Callable[[EMState], bool | None] | None
) -> Recovery:
    """Iterate from a state until the target is at rest, the iterations are done, or the callback returns True."""
    step = Iteration(plan, source)
    stopped: Literal["iterations", "tolerance", "callback"] = "iterations"
    while True:
        if _done(plan, state):  # a resumed run may be done already
            learned = step.with_noise_filter(state)
            if learned is state:
                stopped = "tolerance"
                break
            state = learned
        if state.iteration >= plan.iterations:
            break
        state = step(state)
        if callback is not None and callback(state):
            stopped = "callback"
            break
    final = step.statistics(source, state.target, state.likelihood)
    return Recovery(state, final, average(plan, state.target, final), stopped, settled(state))


def _done(plan: Plan, state: EMState) -> bool:
    return state.at_rest(plan.tolerance) if plan.late else state.converged(plan.tolerance)


def settled(state: EMState) -> bool | None:
    """Whether all starts with about as much evidence as the best ended at the same image; None: there is no such rival, or it cannot be judged.

    A start that ends far above all others may be right, or may fit noise best; only another run can decide.
    """
    first, *others = state.best(len(state.candidates))
    if not (first.likelihood.localises and first.objective >= 1.0 and others):
        return None
    pairs = [(other.target, other.objective) for other in others]
    if not rivals(first.objective, pairs):
        return None
    return unrivalled(first.target, first.objective, pairs, first.likelihood.views)


@dataclass(frozen=True)
class Iteration:
    """One iteration of a run: E-step, M-step, tied parameters, and at times the gauge."""

    plan: Plan
    source: Measurement

    def __call__(self, state: EMState) -> EMState:
        """The state after one more iteration of every candidate, or of the best one once the race is over."""
        began = time.perf_counter()
        if state.iteration % max(1, self.plan.iterations // ROUNDS) == 0:
            state = self.with_noise_filter(state)
        carried = state.best(self._places(state))
        gauge = self.plan.gauge if len(carried) == 1 or self.plan.late else None
        moved, records = zip(*(self._advance(c, state, gauge, began) for c in carried), strict=True)
        best = max(range(len(moved)), key=lambda i: moved[i].objective)
        slowest = max(record.step_norm for record in records)
        passes = sum(record.passes for record in records)
        return state.advance(moved, replace(records[best], step_norm=slowest, passes=passes))

    def with_noise_filter(self, state: EMState) -> EMState:
        """The state with the noise filter estimated from the residual of the leader, for all candidates; the same object if nothing changes.

        While the target still moves, unexplained copies colour the residual. So noise that has been white is tested only once the target is
        nearly at rest. The last iterations keep the filter.
        """
        plan, leader = self.plan, state.leader
        before = leader.likelihood.whitening
        if plan.noise == "white" or not 0 < state.iteration <= NOISE_UNTIL * plan.iterations:
            return state
        if before is None and not self._settling(state):
            return state
        learned = noise_filter(
            self.source,
            leader.likelihood,
            plan.noise,
            plan.backend,
            leader.target,
            state.history[-1].expected_count,
        )
        if learned is before or (learned is not None and learned.agrees(before, _SAME)):
            return state
        if learned is not None and plan.noise == "auto" and not self._keeps_copies(state, learned):
            return state
        others = (c.likelihood.with_whitening(learned) for c in state.candidates)
        # the running statistics of mini-batches belong to the old filter
        return replace(
            state,
            candidates=tuple(
                replace(c, likelihood=other, running=None)
                for c, other in zip(state.candidates, others, strict=True)
            ),
        )

    def _keeps_copies(self, state: EMState, learned: Whitening) -> bool:
        """Whether the copies of the leader keep enough evidence behind a filter; otherwise the filter removes them as noise, and a Doubt is issued.

        In a crowded field of which much is unexplained, or in pixels that were smoothed before, the residual resembles the copies.
        """
        seen = self.statistics(self.source, state.target, state.likelihood.with_whitening(learned))
        if seen.log_likelihood >= KEPT * state.history[-1].objective:
            return True
        warnings.warn(
            "what the copies leave is not white, and a filter that makes it so hides the copies too: the noise stays as it was. Compare "
            'with noise="spectrum", and with more of the field explained.',
            Doubt,
            stacklevel=2,
        )
        return False

    def _settling(self, state: EMState) -> bool:
        """Whether the race is over, the temperature 1, and the last step was small."""
        moved = state.history[-1].step_norm
        raced = state.iteration >= self.plan.quarter and state.schedule.at(state.iteration) == 1.0
        return raced and moved < _SMALL * float(np.linalg.norm(state.target))

    def _places(self, state: EMState) -> int:
        """Number of candidates that continue: all at first, ``quarter / n`` after n iterations, one from the first quarter on.

        In a late race ``FEW`` candidates run to the end; a larger number is halved from the first quarter on and reaches ``FEW`` half way through.

        So every stage of the race costs about the same, and many starts cost little more than a few (successive halving:
        Jamieson and Talwalkar 2016).
        """
        quarter, count = self.plan.quarter, len(state.candidates)
        if self.plan.late:
            return self._late(state.iteration, count)
        if state.iteration == 0 < quarter:
            return count
        if state.iteration >= quarter or state.at_rest(self.plan.tolerance):
            return 1
        return math.ceil(quarter / state.iteration)

    def _late(self, iteration: int, count: int) -> int:
        quarter = self.plan.quarter
        if iteration < quarter or count <= FEW:
            return count
        if iteration >= 2 * quarter:
            return FEW
        due = iteration % max(1, quarter // 4) == 0
        return max(FEW, count // 2) if due else count

    def _advance(
        self, candidate: Candidate, state: EMState, gauge: Gauge | None, began: float
    ) -> tuple[Candidate, IterationRecord]:
        plan, iteration, heat = self.plan, state.iteration, state.schedule.at(state.iteration)
        likelihood, target = candidate.likelihood, candidate.target
        tempered = likelihood.with_noise_std(likelihood.noise_std * math.sqrt(heat))
        batch = plan.online.batch(self.source, iteration, plan.iterations)
        found = self.statistics(batch, target, tempered)
        passes = share = found.sites / likelihood.geometry.sites(self.source.shape)
        earlier = candidate.running and candidate.running.moved(plan.backend.asarray)
        running = plan.online.mix(earlier, found, share)
        remembered = plan.online.remembers(share)
        image, scales = self._updated(candidate, running.weighed, iteration, heat > 1.0)
        statistics = running.statistics
        likelihood, comparable, due = self._numbers(candidate, statistics, image, state)
        carried = running.moved(plan.backend.to_host) if remembered else None
        rests = self._rests(heat, float(np.linalg.norm(image - target)) / likelihood.noise_std)
        kept = candidate.framed and rests
        if gauge is not None and due and not kept:
            framed, extra = Framing(plan, self.source, self.statistics)(
                gauge, image, likelihood, batch, scales
            )
            passes += extra * share
            left = np.array_equal(framed, image)
            kept = rests and left
            if not left:
                image, carried = framed, None  # the statistics belong to the old frame
        # a step from a part of the pixels, or under a changed likelihood, is no sign of convergence
        least = 0.0 if comparable and not remembered else plan.tolerance * likelihood.noise_std
        record = IterationRecord(
            iteration=iteration + 1,
            objective=statistics.log_likelihood,
            step_norm=max(float(np.linalg.norm(image - target)), least),
            expected_count=statistics.expected_count,
            noise_std=likelihood.noise_std,
            temperature=heat,
            seconds=time.perf_counter() - began,
            passes=passes,
        )
        return Candidate(image, likelihood, statistics.log_likelihood, carried, scales, kept), record

    def _updated(
        self, candidate: Candidate, weighed: Statistics, iteration: int, hot: bool
    ) -> tuple[np.ndarray, Scales]:
        """The target after the M-step, on the host, and the units of the prior in that M-step."""
        plan, scales, early = self.plan, candidate.scales, hot or self._early(iteration)
        shown = plan.backend.asarray(candidate.target)
        if plan.units is not None and scales is not None:
            scales = plan.units.fitted(shown, weighed, plan.prior, scales, early)
        moved = plan.backend.to_host(
            plan.update(shown, weighed, plan.prior, iteration, plan.iterations, scales)
        )
        if plan.units is not None and early:
            moved = plan.units.visible(moved, weighed.noise_std)
        return moved, scales

    def _numbers(
        self, candidate: Candidate, statistics: Statistics, image: np.ndarray, state: EMState
    ) -> tuple[Likelihood, bool, bool]:
        """The M-step of the numbers of the likelihood, at the new target.

        Returns:
            The likelihood; whether its evidence is comparable with that of the previous likelihood; whether the frame is due.
        """
        plan, iteration, heat = self.plan, state.iteration, state.schedule.at(state.iteration)
        likelihood, shown = candidate.likelihood, plan.backend.asarray(image)
        length = float(np.linalg.norm(image - candidate.target))
        rests = self._rests(heat, length / likelihood.noise_std)
        shift = self._offset_step(iteration, rests, statistics, shown, likelihood)

        def residual() -> float:
            return statistics.residual_energy(shown) - shift**2 * statistics.pixels

        corners = likelihood.geometry.sites((1, *self.source.shape[1:]))
        learnt = residual if plan.learn_noise else None
        likelihood = likelihood.updated(
            statistics, learnt, state.first_count, corners, self._early(iteration)
        )
        likelihood = likelihood.with_offset(likelihood.offset + shift) if shift else likelihood
        due = self._is_due(iteration, heat, length / likelihood.noise_std)
        # a changed offset moves the target in the next iteration
        comparable = abs(shift) < plan.tolerance * likelihood.noise_std or iteration >= plan.quarter
        if plan.learn_amplitude and heat == 1.0 and (iteration >= plan.quarter or due):
            spread = learned_std(likelihood.amplitude_std, statistics, statistics.copy_energy(shown))
            comparable &= abs(likelihood.amplitude_std - spread) < SETTLED
            likelihood = likelihood.with_amplitude_std(spread)
        if plan.learn_separation and due:
            before, likelihood = likelihood, spaced(likelihood, image)
            comparable &= likelihood is before
        return likelihood, comparable, due

    def _early(self, iteration: int) -> bool:
        """Whether the iteration is in the first half, in which the numbers stay near those of the start."""
        return 2 * iteration < self.plan.iterations

    def _offset_step(
        self, iteration: int, rests: bool, statistics: Statistics, target: Array, likelihood: Likelihood
    ) -> float:
        """Change of the offset: to the mean of the residual, as long as the boxes of the copies do not fill the field.

        Pixels that boxes share would be subtracted twice, so where boxes overlap the offset stays at the median. The offset also stays there
        during the first quarter unless the target is at rest: the mean of a target that is still faint would go to the offset and stay in it.
        """
        # filtered pixels carry no offset
        learns = self.plan.learn_offset and likelihood.whitening is None
        if not learns or (iteration < self.plan.quarter and not rests):
            return 0.0
        boxes = statistics.expected_count * math.prod(likelihood.views.box_shape)
        offset = statistics.offset(target)
        return 0.0 if offset is None or boxes > FILLED * statistics.pixels else offset - likelihood.offset

    def statistics(self, source: Measurement, target: np.ndarray, likelihood: Likelihood) -> Statistics:
        """E-step at a host target, over the measurement or a part of it."""
        plan = self.plan
        pixels = None if source is self.source else 0  # parts are read in the smallest tiles
        shown = plan.backend.asarray(target)
        found = e_step(source, shown, likelihood, plan.backend, plan.executor, pixels, plan.coarse)
        return found.normalised()

    def _is_due(self, iteration: int, heat: float, moved: float) -> bool:
        """Whether the frame is due: at each quarter of the iterations, and when a step of ``moved`` noise levels means rest."""
        quarter = max(1, self.plan.quarter)
        return self._rests(heat, moved) or (iteration > 0 and iteration % quarter == 0)

    def _rests(self, heat: float, moved: float) -> bool:
        """Whether a target that moved by so many noise levels is at rest."""
        return heat == 1.0 and moved < self.plan.tolerance
