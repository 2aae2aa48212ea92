"""The part of a report on trust: verdict, half sets, null runs, uncertainty."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from mtdcore._base.numerics.convergence import MET
from mtdcore.drawing.images import value_range
from mtdcore.results.halves import pooled_evidence
from mtdcore.results.metrics import RingCorrelation
from mtdcore.results.nulls import Null
from mtdcore.results.verdict import HELD_OUT, Check, Verdict

from ..run.finished import FinishedRun
from ..run.folder import RunFolder
from ..run.judging import powerless, verdict_of
from ..run.record import ChainsRecord
from ..terminal.progress import duration
from .figures_signal import shown_as

#: Descriptions of the kinds of null run, for people.
NULLS: dict[Null, str] = {
    "white": "white noise of the same size",
    "phases": "the same data with random phases",
}


def verdict(run: FinishedRun) -> dict[str, Any]:
    """Title, text, answers, command still to be run (or none) and kind ("yes", "no", "open") of the verdict."""
    trust, result = run.folder.read_trust(), run.record.result
    evidence, found = result.evidence_nats, verdict_of(run, trust)
    text = f"Evidence against the data being noise alone: {evidence:,.1f} nats."
    command = shlex.join(["mtd", "trust", str(run.folder.path)])
    if not trust.seconds or found.supported is None:
        text += " Noise gives some too, and how much cannot be told without trying: this repeats the recovery on noise and on halves of the data."
        return {"kind": "open", "title": "No verdict yet", "text": text, "answers": [], "command": command}
    if found.powerless:
        text += f" No power: {powerless(found)}"
    if found.white and found.phases:
        text += (
            f" Being above all null runs of a kind happens to noise once in {round(1 / found.least_rate)} times; that the limits leave less "
            "assumes null evidence that is about normal."
        )
    text += f" The verdict took {duration(trust.seconds)}, {trust.seconds / max(run.record.seconds, 1e-3):.1f} times the recovery."
    return {
        "kind": "yes" if found.supported else "no",
        "title": found.sentence[0].upper() + found.sentence[1:],
        "text": text,
        "answers": answers(found),
        "command": "",
    }


def answers(found: Verdict) -> list[tuple[str, str]]:
    """Mark and sentence of every question."""
    return [
        (_MARKS[check.passed], _answer(found, check)) for check in found.checks if check.name != "evidence"
    ]


#: How answers are marked in the page.
_MARKS = {True: "yes", False: "no", None: "open"}


def _answer(found: Verdict, check: Check) -> str:
    """One question with its number, for people."""
    match check.name:
        case "white" | "phases":
            runs = found.nulls(check.name)
            if not runs:
                return f"Recoveries from {NULLS[check.name]}: not tried, they could not change the verdict."
            reached = ", ".join(f"{round(value, 1) + 0.0:,}" for value in sorted(runs))
            limit = "" if check.limit is None else f"; up to {check.limit:,.0f} may be noise"
            return f"{len(runs)} recover{'y' if len(runs) == 1 else 'ies'} from {NULLS[check.name]} reached {reached} nats{limit}."
        case "held_out":
            if found.held_out is None:
                return "Held-out data: not tried, they could not change the verdict."
            told = " and ".join(f"{value:,.1f}" for value in found.held_out)
            return (
                f"What one half of the data shows gives the other {told} nats, {pooled_evidence(found.held_out):,.1f} together; white noise exceeds "
                f"{HELD_OUT:.1f} once in a thousand times."
            )
        case "prior":
            if found.unaided is None:
                return "Held-out data without the prior: not tried, they could not change the verdict."
            return (
                f"Without the prior one half of the data gives the other {pooled_evidence(found.unaided):,.1f} nats together: "
                + (
                    "as much as with it, or less."
                    if check.passed
                    else "more than with it. Recover without the prior."
                )
            )
    if check.passed is None:
        return "Another start: not tried, it could not change the verdict."
    nats = "" if found.rival is None else f" (evidence {found.rival:,.1f} nats)"
    same = (
        "ends at the same image, or at less evidence"
        if check.passed
        else "ends at another image with as much evidence"
    )
    return f"Another start {same}{nats}."


def curves(folder: RunFolder) -> list[tuple[str, RingCorrelation]]:
    """Half-set correlations with their names, that of the data first; empty unless one of noise is known too."""
    trust = folder.read_trust()
    null = [(f"halves of {name}", trust.null(kind).halves) for kind, name in NULLS.items()]
    known = [(name, curve) for name, curve in null if curve is not None]
    return [("halves of the data", trust.halves), *known] if known and trust.halves is not None else []


def images(run: FinishedRun, limits: tuple[float, float]) -> list[dict[str, Any]]:
    """Targets of null runs, and mean and standard deviation of posterior draws.

    Args:
        run: finished.
        limits: values that are drawn black and white.
    """
    folder = run.folder
    shown: list[tuple[str, str, np.ndarray, tuple[float, float] | None]] = []
    for kind, name in NULLS.items():
        file = folder.null_target(kind)
        if file.exists():
            image = run.image(file)
            text = f"What the same recovery makes of {name}, on the scale of the estimate."
            shown.append(("Null run", text, image if image.ndim == 2 else image[0], limits))
    if folder.posterior_std.exists():
        std = run.image(folder.posterior_std)
        text = f"Of draws from the posterior, {_drawn(folder.read_trust().chains)}; on the scale of the estimate."
        shown.append(("Posterior mean", text, run.image(folder.posterior_mean), limits))
        text = f"Of every pixel among those draws, black to white from {std.min():.2g} to {std.max():.2g}. Wrong answers, which the verdict is about, are not in it."
        shown.append(("Posterior standard deviation", text, std, None))
    return [
        {"title": title, "text": text, **shown_as(image, range_ or value_range(image))}
        for title, text, image, range_ in shown
    ]


def _drawn(chains: ChainsRecord | None) -> str:
    """Description of the draws: given the aligned average, or from chains."""
    if chains is None:
        return "given the aligned average"
    met = "have met" if chains.r_hat < MET else "have not met: longer ones are needed"
    return f"{chains.draws} of {chains.chains} chains that {met} (R-hat {chains.r_hat:.2f}), worth {chains.effective_size:.0f} independent ones"
