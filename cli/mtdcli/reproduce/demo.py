"""The demo: methods compared on glyphs hidden in noise, and on noise alone."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

import mtdcore as mtd
from mtdcore._base.files import write_whole
from mtdcore.data.tiles import TileGeometry
from mtdcore.em.checks.doubts import undoubted
from mtdcore.results.metrics import align, forgiven_shift
from mtdcore.synthetic.glyphs import glyphs
from mtdcore.synthetic.simulate import Simulation

from ..inputs.truth import errors
from ..report import figures
from ..report.page import write_page
from ..run.folder import RunFolder
from ..terminal.console import log
from ..terminal.progress import Progress
from .demo_methods import BOX, Method, methods, window_evidence

#: The paper's measurement (docs/model.md 6) with glyphs in place of digits.
_SIDE, _DENSITY, _SNR, _TARGETS = 308, 0.1, 0.5, 3


def demo(folder: RunFolder, seed: int) -> dict[str, dict[str, float]]:
    """Recover glyphs from noise by every method, and write report, picture and numbers.

    Args:
        folder: locked.
        seed: chooses glyphs, places and noise.

    Returns:
        Method -> means over the glyphs.
    """
    started = time.perf_counter()
    glyph_cases = [
        _Case(mtd.simulate(target, side=_SIDE, density=_DENSITY, snr=_SNR, seed=seed + i))
        for i, target in enumerate(glyphs(_TARGETS, BOX, seed).astype(np.float64))
    ]
    first = glyph_cases[0].simulation
    empty = mtd.simulate(first.target, side=_SIDE, count=0, noise_std=first.noise_std, seed=seed + _TARGETS)
    cases = [*glyph_cases, _Case(empty)]
    ways = methods()
    log(
        f"{_TARGETS} glyphs and noise alone, {_SIDE} x {_SIDE} pixels, {len(first.positions)} copies, SNR {_SNR}"
    )
    with Progress("demo", len(cases) * len(ways), "recoveries") as bar:
        for done, (case, way) in enumerate(itertools.product(cases, ways), start=1):
            case.run(way, copies=len(first.positions))
            bar.update(done)
    table = {way.name: _row(way.name, glyph_cases, cases[-1]) for way in ways}
    _write(folder, cases, table, time.perf_counter() - started)
    return table


@dataclass(frozen=True)
class _Case:
    """A measurement of the demo and the estimates of the methods."""

    simulation: Simulation
    estimates: dict[str, np.ndarray] = field(default_factory=dict)
    evidence: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, way: Method, copies: int) -> None:
        """Recover the image by one method."""
        measurement, sigma = self.simulation.measurement, self.simulation.noise_std
        started = time.perf_counter()
        with undoubted():  # no warning for the row of noise alone, where finding nothing is right
            estimate = way.recover(measurement, sigma).target
        self.seconds[way.name] = time.perf_counter() - started
        self.estimates[way.name] = estimate
        self.evidence[way.name] = window_evidence(measurement, estimate, sigma, copies)


def _row(name: str, cases: list[_Case], empty: _Case) -> dict[str, float]:
    """Means over the glyphs, and the evidence found in noise alone."""
    found = [errors(case.estimates[name], case.simulation.target, rotations=4) for case in cases]
    return {
        "E": fmean(e["E"] for e in found),
        "E_s": fmean(e["E_s"] for e in found),
        "evidence": fmean(case.evidence[name] for case in cases),
        "evidence_noise_only": empty.evidence[name],
        "seconds": fmean(case.seconds[name] for case in cases),
    }


def _write(folder: RunFolder, cases: list[_Case], table: dict[str, dict[str, float]], seconds: float) -> None:
    """Write the report, its picture as a file of its own, and the numbers."""
    whole = TileGeometry(side=_SIDE, unit=1, halo=0, reach=0)
    rows = []
    for number, case in enumerate(cases, start=1):
        simulation = case.simulation
        pixels = next(iter(simulation.measurement.tiles(whole))).values
        if case is cases[-1]:
            blank = np.zeros_like(simulation.target)
            rows.append(figures.Row("noise alone", pixels, blank, case.estimates, {}))
            continue
        turned, captions = {}, {}
        for name, estimate in case.estimates.items():
            best = align(estimate, simulation.target, rotations=4, max_shift=forgiven_shift(BOX))
            turned[name], captions[name] = np.rot90(estimate, best.rotation), f"E$_s$ {best.error:.2f}"
        rows.append(figures.Row(f"glyph {number}", pixels, simulation.target, turned, captions))
    picture = figures.comparison(rows)
    write_whole(folder.path / "demo.png", lambda file: file.write(picture))
    folder.write_record({"seconds": seconds, "methods": table})
    first = cases[0].simulation
    write_page(
        folder.page,
        "demo.html.j2",
        title="One image from noise",
        copies=len(first.positions),
        side=_SIDE,
        snr=_SNR,
        targets=len(cases) - 1,
        seconds=seconds,
        pictures={"comparison": picture},
        table=table,
        best=min(table, key=lambda name: table[name]["E_s"]),
    )
