"""Means and standard errors per method and signal-to-noise ratio, and the published figures beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..terminal.console import with_error
from .runner import Outcome


@dataclass(frozen=True)
class Cell:
    """A method at a signal-to-noise ratio.

    Attributes:
        method: its name.
        snr: signal-to-noise ratio.
        count: runs that the means are over.
        failed: runs that failed and are left out.
        error: mean relative error E.
        error_se: its standard error; NaN for a single run.
        gauge_free_error: mean E_s.
        gauge_free_error_se: its standard error.
        seconds: mean wall time of a run.
    """

    method: str
    snr: float
    count: int
    failed: int
    error: float
    error_se: float
    gauge_free_error: float
    gauge_free_error_se: float
    seconds: float


def tabulate(outcomes: Sequence[Outcome]) -> list[Cell]:
    """One cell per method and SNR, in the order of their first appearance."""
    groups: dict[tuple[str, float], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.method, outcome.snr), []).append(outcome)
    return [_cell(method, snr, group) for (method, snr), group in groups.items()]


def _cell(method: str, snr: float, group: list[Outcome]) -> Cell:
    done = [outcome for outcome in group if outcome.failure is None]
    error, error_se = _mean([outcome.error for outcome in done])
    free, free_se = _mean([outcome.gauge_free_error for outcome in done])
    seconds, _ = _mean([outcome.seconds for outcome in done])
    return Cell(method, snr, len(done), len(group) - len(done), error, error_se, free, free_se, seconds)


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and standard error; NaN where there are too few values."""
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    return mean, float(np.std(values, ddof=1)) / math.sqrt(count) if count > 1 else math.nan


#: The published algorithm (arXiv:2312.08500, Table I) as measured with its authors' code, mean over ten targets:
#: experiment, method -> SNR -> (E, E_s); E_s is not known for the Gaussian experiment.
_PUBLISHED: dict[tuple[str, str], dict[float, tuple[float, float | None]]] = {
    ("gaussian", "start"): {1.0: (0.857, None), 5.0: (0.857, None), 10.0: (0.857, None)},
    ("gaussian", "without prior"): {1.0: (0.838, None), 5.0: (0.753, None), 10.0: (0.736, None)},
    ("gaussian", "with prior"): {1.0: (0.786, None), 5.0: (0.693, None), 10.0: (0.722, None)},
    ("mnist", "start"): {0.1: (0.846, 0.809)},
    ("mnist", "without prior"): {0.1: (1.04, 0.911), 0.5: (0.944, 0.634), 1.0: (0.893, 0.481)},
    ("mnist", "with prior"): {0.1: (0.918, 0.794), 0.5: (0.895, 0.546), 1.0: (0.870, 0.451)},
}


def published(experiment: str, method: str, snr: float) -> tuple[float, float | None] | None:
    """(E, E_s) of the authors' code under the paper's settings; None where there is no figure."""
    return _PUBLISHED.get((experiment, method), {}).get(snr)


def text_table(cells: Sequence[dict[str, Any]]) -> str:
    """The results as aligned text: one line per method, E and E_s at every SNR."""
    snrs = list(dict.fromkeys(cell["snr"] for cell in cells))
    lines = [["", *(f"SNR {snr:g}: E" for snr in snrs), *(f"E_s at {snr:g}" for snr in snrs)]]
    for method in dict.fromkeys(cell["method"] for cell in cells):
        row = {cell["snr"]: cell for cell in cells if cell["method"] == method}
        lines.append(
            [
                method,
                *(with_error(row[snr]["error"], row[snr]["error_se"]) for snr in snrs),
                *(with_error(row[snr]["gauge_free_error"], row[snr]["gauge_free_error_se"]) for snr in snrs),
            ]
        )
        if any(cell["published_error"] is not None for cell in row.values()):
            known = [row[snr]["published_error"] for snr in snrs]
            free = [row[snr]["published_gauge_free_error"] for snr in snrs]
            lines.append(["  authors' code", *("-" if v is None else f"{v:.3f}" for v in (*known, *free))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
