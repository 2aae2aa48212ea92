"""Test whether copies lie at more angles than a run scored."""

from __future__ import annotations

import math
from dataclasses import replace

from ...data import Measurement
from ...model.poses import on_whole_pixels
from ...model.rotations import in_plane
from ...model.views import Views
from ..framing import Framing
from ..state import Recovery

#: Nats by which twice as many angles must be likelier at the same target. The target was not fitted to them, so chance exceeds this once in a thousand times.
_LEAST = math.log(1000.0)


def more_angles(recovery: Recovery, source: Measurement, framing: Framing) -> str | None:
    """The warning if the target explains its copies better at twice as many angles, all equally likely; None: no warning.

    The test is a Bayes factor: angles that copies do not have lower the evidence of the same target. A part of the measurement with enough
    copies is scored.

    Args:
        recovery: the result.
        source: what it was recovered from.
        framing: of the run.
    """
    likelihood = recovery.likelihood
    views = on_whole_pixels(likelihood.views)
    turns = in_plane(views)
    if turns is None or not (likelihood.localises and recovery.found_copies):
        return None
    height, width = turns.box_shape
    wanted = math.pi * width / 2  # steps of two pixels at the rim
    if height != width or 2 * turns.around > wanted:
        return None
    finer = views.coarse(2 * views.count // views.classes)
    if finer is None:
        return None
    part, _, _ = framing.enough(recovery.target, likelihood, source)

    def nats(scored: Views) -> float:
        other = replace(likelihood, views=scored)
        return other.evidence(framing.statistics(part, recovery.target, other))

    gain = nats(finer) - nats(views)
    if gain < _LEAST:
        return None
    asked = "the measurement" if part is source else "a part of the measurement"
    return (
        f"copies lie at more than {turns.around} angles, which blurs the target: scored at {2 * turns.around} it explains {gain:.3g} nats more of {asked}; "
        f"give rotations={4 * math.ceil(wanted / 4)}, or as many as there are."
    )
