"""The files that ``mtd reproduce`` leaves: numbers, estimates, figures and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtdcore._base.files import write_whole

from ..report.page import write_page
from ..run.folder import RunFolder
from ..terminal.console import show, with_error
from . import figures
from .cases import Case, Experiment, pixels_of
from .runner import Outcome

#: Reference columns, which are not among the recovered images.
_FRAME = ("start", "oracle", "oracle + prior")


def write_results(
    folder: RunFolder,
    record: Mapping[str, Any],
    experiment: Experiment,
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
) -> None:
    """Write ``run.json``, ``estimates.npz``, the figures as PNG and ``report.html``.

    Args:
        folder: locked folder.
        record: the content of ``run.json``.
        experiment: the experiment.
        cases: its measurements.
        outcomes: of all methods on them.
    """
    arrays = _estimates(experiment, outcomes)
    write_whole(folder.path / "estimates.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))
    pictures = _pictures(record, experiment, cases, outcomes)
    for name, png in pictures.items():
        write_whole(folder.path / f"{name}.png", lambda file, png=png: file.write(png))  # type: ignore[misc]
    folder.write_record(record)
    _page(folder, record, pictures)


def _estimates(experiment: Experiment, outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    """``targets`` (T, L, L), and for ``METHOD, SNR`` an array (repeats, T, L, L), NaN where a run failed."""
    repeats = 1 + max(outcome.repeat for outcome in outcomes)
    arrays = {"targets": experiment.targets}
    for outcome in outcomes:
        name = f"{outcome.method}, SNR {outcome.snr:g}"
        blank = np.full((repeats, *experiment.targets.shape), np.nan)
        stack = arrays.setdefault(name, blank)
        if outcome.image is not None:
            stack[outcome.repeat, outcome.target] = outcome.image
    return arrays


def _pictures(
    record: Mapping[str, Any],
    experiment: Experiment,
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
) -> dict[str, bytes]:
    """The figures, file name without ending -> PNG."""
    first = [case for case in cases if case.target == 0 and case.repeat == 0]
    measured = {case.snr: pixels_of(case.simulate()) for case in first}
    rows = {
        f"SNR {snr:g}\n{method}": [
            outcome
            for outcome in outcomes
            if (outcome.snr, outcome.method, outcome.repeat) == (snr, method, 0)
        ]
        for snr in record["snrs"]
        for method in dict.fromkeys(o.method for o in outcomes if o.method not in _FRAME)
    }
    return {
        "measurements": figures.measurements(experiment.targets[0], measured),
        "recovered": figures.recovered(experiment.targets, rows, experiment.max_shift),
        "errors": figures.errors(record["table"]),
    }


def _page(folder: RunFolder, record: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
    seconds = record["seconds"]
    table = record["table"]
    failed = sum(cell["failed"] for cell in table)
    write_page(
        folder.page,
        "reproduce.html.j2",
        title=f"{'Gaussian images' if record['experiment'] == 'gaussian' else 'Digits'} by the "
        f"{'published' if record['method'] == 'paper' else record['method']} method",
        record=record,
        pictures=dict(pictures),
        rows=_rows(table),
        snrs=record["snrs"],
        facts=[
            ("targets", record["targets"]),
            ("measurements", record["measurements"]),
            ("failed runs", failed),
            ("seconds of runs", f"{seconds['runs']:.0f}"),
        ],
        failures=[run for run in record["runs"] if run["failure"] is not None],
        weights=[(name.replace("_", " "), show(value)) for name, value in record["weights"].items()],
        dark=figures.errors(table, dark=True),
    )


def _rows(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells by method, and below a method the figures of the authors' code where they are known."""
    rows = []
    for method in dict.fromkeys(cell["method"] for cell in table):
        cells = [cell for cell in table if cell["method"] == method]
        rows.append({"name": method, "cells": [_texts(cell) for cell in cells], "published": False})
        known = [(cell["published_error"], cell["published_gauge_free_error"]) for cell in cells]
        if any(error is not None for error, _ in known):
            texts = [tuple("" if v is None else f"{v:.3f}" for v in pair) for pair in known]
            rows.append({"name": "authors' code", "cells": texts, "published": True})
    return rows


def _texts(cell: Mapping[str, Any]) -> tuple[str, str]:
    return (
        with_error(cell["error"], cell["error_se"]).replace("+-", "±"),
        with_error(cell["gauge_free_error"], cell["gauge_free_error_se"]).replace("+-", "±"),
    )
