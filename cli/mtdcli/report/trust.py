"""The part of a report on trust: verdict, half sets, null runs, uncertainty."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

from mtdcore.results.metrics import RingCorrelation

from ..run.finished import FinishedRun
from ..run.folder import RunFolder
from ..run.judging import findings
from ..run.record import Null
from . import figures
from .figures_signal import shown_as

#: What null runs were made of, for people.
_NULLS: dict[Null, str] = {
    "white": "white noise of the same size",
    "phases": "the same data with random phases",
}


def verdict(run: FinishedRun) -> dict[str, str]:
    """Title, text, command still to be run (or none) and kind ("yes", "no", "open") of the verdict."""
    found = findings(run)
    command = shlex.join(["mtd", "trust", str(run.folder.path)])
    evidence = f"Evidence against the data being noise alone: {found['evidence_nats']:,.1f} nats."
    if "verdict" not in found:
        text = f"{evidence} Noise gives some too, and how much cannot be told without trying: this repeats the recovery on noise and on halves of the data."
        return {"kind": "open", "title": "No verdict yet", "text": text, "command": command}
    tried = [
        f"{len(values)} recoveries from {_NULLS[kind]} reached {', '.join(f'{round(value, 1) + 0.0:,}' for value in sorted(values))}; "
        f"up to {found['threshold'][kind]:,.0f} may be noise."
        for kind, values in found["null_evidence"].items()
    ]
    title = found["verdict"][0].upper() + found["verdict"][1:]
    kind = "yes" if found["supported"] else "no"
    return {"kind": kind, "title": title, "text": " ".join([evidence, *tried]), "command": ""}


def curves(folder: RunFolder) -> list[tuple[str, RingCorrelation]]:
    """Half-set correlations with their names, that of the data first; empty before they were computed."""
    trust = folder.read_trust()
    if trust.halves is None:
        return []
    null = [(f"halves of {name}", trust.null(kind).halves) for kind, name in _NULLS.items()]
    return [
        ("halves of the data", trust.halves),
        *((name, curve) for name, curve in null if curve is not None),
    ]


def images(run: FinishedRun, limits: tuple[float, float]) -> list[dict[str, Any]]:
    """What noise gives, and how sure each pixel is.

    Args:
        run: finished.
        limits: values that are drawn black and white.
    """
    folder = run.folder
    shown: list[tuple[str, str, np.ndarray, tuple[float, float] | None]] = []
    for kind, name in _NULLS.items():
        file = folder.null_target(kind)
        if file.exists():
            image = run.image(file)
            text = f"What the same recovery makes of {name}, on the grey scale of the estimate."
            shown.append(("Null run", text, image if image.ndim == 2 else image[0], limits))
    if folder.posterior_std.exists():
        std = run.image(folder.posterior_std)
        text = "Of draws from the posterior, given the aligned average; on the grey scale of the estimate."
        shown.append(("Posterior mean", text, run.image(folder.posterior_mean), limits))
        text = f"Of every pixel among those draws, black to white from {std.min():.2g} to {std.max():.2g}. Wrong answers, which the verdict is about, are not in it."
        shown.append(("Posterior standard deviation", text, std, None))
    return [
        {"title": title, "text": text, **shown_as(image, range_ or figures.value_range(image))}
        for title, text, image, range_ in shown
    ]
