"""The page of an unfinished run, made from its latest checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mtdcore._base.records import Damaged, unseal
from mtdcore.drawing.charts import convergence
from mtdcore.drawing.images import section_pictures, value_range

from ..report.figures_signal import shown_as
from ..report.page import render
from ..run.folder import RunFolder
from ..terminal.progress import duration

#: Seconds between two updates of the page.
EVERY = 2

#: Replaces the content in place, so that the reader's position (on the screen, or of a screen reader) is kept; the finished report is loaded as a new page.
SCRIPT = f"""
setInterval(async () => {{
  const answer = await fetch(location.href).catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!page.querySelector("script")) return location.reload();
  document.querySelector("main").replaceWith(page.querySelector("main"));
}}, {1000 * EVERY});
"""

#: Number of latest iterations whose mean time gives the time left.
_RECENT = 10


@dataclass(frozen=True)
class Live:
    """The state of a run that goes on, as its files show it.

    Attributes:
        folder: its files.
    """

    folder: RunFolder

    @cached_property
    def checkpoint(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Header and arrays of its latest checkpoint; None: there is none yet, or it is just being replaced."""
        try:
            return unseal(self.folder.checkpoint)
        except Damaged:
            return None

    @property
    def page(self) -> bytes:
        """The finished report, or the page of the latest checkpoint."""
        if self.folder.record.exists() and self.folder.page.exists():
            return self.folder.page.read_bytes()
        found = self.checkpoint
        context: dict[str, Any] = {"facts": [], "images": [], "curves": []}
        if found is not None:
            header, arrays = found
            context = {
                "facts": _facts(header["history"], header["identity"].get("iterations")),
                "images": _images(arrays, header["candidates"]),
                "curves": _curves(header["history"]),
            }
        name = self.folder.path.resolve().name
        return render("live.html.j2", title=f"{name}, as it goes", every=EVERY, script=SCRIPT, **context)


def _facts(history: Sequence[Mapping[str, Any]], iterations: object) -> list[tuple[str, str]]:
    """Names and values of the latest iteration, for people."""
    if not history:
        return []
    last = history[-1]
    total = int(str(iterations)) if iterations is not None else None
    facts = [(f"of {total} iterations" if total else "iterations", str(last["iteration"]))]
    if total:
        recent = [record["seconds"] for record in history[-_RECENT:]]
        left = (total - last["iteration"]) * sum(recent) / len(recent)
        facts.append(("left at most, from the last checkpoint on", duration(left)))
    nats = last.get("objective", last.get("evidence"))
    return [
        *facts,
        ("evidence, nats", f"{nats:,.1f}"),
        ("copies expected", f"{last['expected_count']:.1f}"),
        ("noise standard deviation", f"{last['noise_std']:.4g}"),
    ]


def _images(
    arrays: Mapping[str, np.ndarray], candidates: Sequence[Mapping[str, Any]]
) -> list[dict[str, object]]:
    """Targets of the remaining starts, or sections of their volumes, in order of decreasing evidence."""
    nats = [one.get("objective", one.get("evidence", 0.0)) for one in candidates]
    order = sorted(range(len(nats)), key=lambda i: -nats[i])
    shown: list[dict[str, object]] = []
    for rank, i in enumerate(order):
        less = f"{nats[order[0]] - nats[i]:,.0f}"
        text = "most evidence" if len(order) > 1 else "the only start left"
        if rank:
            text = "another start, " + ("as much" if less == "0" else f"{less} nats less")
        if f"volume.{i}" in arrays:
            pictures = section_pictures(arrays[f"volume.{i}"])
            shown += [
                {"text": f"across {axis}; {text}", "data": one, "dark": None}
                for axis, one in zip("zyx", pictures, strict=True)
            ]
        else:
            target = arrays["targets"][i]
            images = [*target.reshape(-1, *target.shape[-2:])]
            shown += [{"text": text, **shown_as(image, value_range(image))} for image in images]
    return shown


def _curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convergence so far."""
    columns = {name: [float(record[name]) for record in history] for name in (history[0] if history else ())}
    return convergence(columns)
