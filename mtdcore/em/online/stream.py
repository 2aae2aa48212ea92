"""EM over micrographs that arrive one after another: each is scored once and mixed into running statistics.

The first few micrographs are recovered as a measurement of their own (:func:`mtdcore.recover`), which chooses start, frame, noise and
separation. From then on every micrograph is one iteration of the same loop, at the target from the earlier micrographs
(:class:`.batches.Arriving`). The state after n micrographs depends only on the micrographs and their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...data import Measurement
from ...estep.statistics import Statistics
from ...model.filters.optics import Micrographs
from ..framing import average
from ..loop import Iteration
from ..plan.defaults import Plan, begin_plan
from ..state import Candidate, EMState, Recovery
from .batches import Arriving, Running


def first_state(recovery: Recovery, count: int) -> EMState:
    """The state after the first ``count`` micrographs, from their recovery: the leader alone, with statistics of a mean micrograph."""
    leader, found = recovery.state.leader, recovery.statistics
    ledger = found.ledger
    if ledger is not None:
        ledger = np.concatenate([[0.0], ledger[:, 1:].sum(axis=0)])[None]
    mean = replace(found, ledger=ledger).scaled(1.0 / count)
    one = replace(
        leader,
        likelihood=leader.likelihood.of_times(1.0 / count, None),
        running=Running(mean, count, float(count)),
    )
    return replace(recovery.state, candidates=(one,))


@dataclass(frozen=True)
class Stream:
    """The iteration that one more micrograph makes.

    Attributes:
        plan: of the iterations; frame, noise and separation stay those of the first micrographs.
    """

    plan: Plan

    @classmethod
    def of(cls, one: Measurement, state: EMState, options: Mapping[str, Any]) -> Self:
        """The stream that goes on from a state.

        Args:
            one: a single micrograph, of the common size.
            state: from :func:`first_state`, or of an earlier stream.
            options: keyword arguments of the recovery of the first micrographs.
        """
        same = ("prior", "update", "coarse_rotations", "iterations", "tolerance", "diameter", "backend")
        plan = begin_plan(
            one,
            state.likelihood,
            **{name: options[name] for name in same},
            executor=options.get("executor"),
            prior_scale=options.get("prior_scale"),
            gauge=None,
            online=Arriving(),
            learn_noise=options["noise_std"] == "auto",
            learn_amplitude=options.get("amplitude_std") == "auto",
            offset=options["offset"],
            learn_separation=False,
            noise="white",
        )
        return cls(plan)

    def __call__(self, state: EMState, one: Measurement, micrographs: Micrographs | None) -> EMState:
        """The state after one more micrograph, with what is known about it."""
        seen = replace(state.leader, likelihood=replace(state.likelihood, micrographs=micrographs))
        after = Iteration(self.plan, one)(replace(state, candidates=(seen,)))
        *earlier, last = after.history
        count = _running(after.leader).mixed
        record = replace(
            last,
            objective=last.objective * count,
            expected_count=last.expected_count * count,
            passes=1.0 / count,
        )
        return replace(after, history=(*earlier, record))

    def recovery(self, state: EMState, micrographs: Micrographs | None, settled: bool | None) -> Recovery:
        """The recovery from all micrographs so far.

        Its statistics are those of a mean micrograph, in which later micrographs weigh more, times the number of micrographs.

        Args:
            state: after the micrographs.
            micrographs: what is known about all of them.
            settled: of the recovery of the first micrographs.
        """
        leader, running = state.leader, _running(state.leader)
        whole: Statistics = running.statistics.scaled(running.mixed)
        candidate: Candidate = replace(
            leader,
            likelihood=leader.likelihood.of_times(running.mixed, micrographs),
            objective=whole.log_likelihood,
            running=None,
        )
        mean = average(self.plan, leader.target, whole.moved(self.plan.backend.asarray))
        return Recovery(replace(state, candidates=(candidate,)), whole, mean, "waiting", settled)


def nats(state: EMState) -> float:
    """Evidence, in nats, of the last micrograph at the target from the earlier micrographs."""
    return _running(state.leader).nats


def _running(leader: Candidate) -> Running:
    if leader.running is None:
        raise ValueError("a state of a stream remembers what it has seen; this one does not.")
    return leader.running
