"""Prepared micrographs as one stack on disk."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mtdcore import __version__
from mtdcore.data.micrographs.table import Entry, MicrographTable
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.data.zarr.store import creating

from ..terminal.console import log
from ..terminal.progress import Progress
from ..terminal.stopping import patiently
from .frames import Frames


def write_stack(
    frames: Frames,
    steps: Preparation,
    output: Path,
    force: bool = False,
    sampling_rate: float | None = None,
) -> dict[str, Any]:
    """Prepare micrographs and write them as one OME-Zarr stack with their table.

    Args:
        frames: the micrographs.
        steps: what is done to each.
        output: the folder to write.
        force: replace a measurement that mtd wrote there.
        sampling_rate: samples per second of signals; None: unknown.

    Returns:
        Summary of the stack: micrographs, height, width, masked_pixels, the shares of all pixels masked as borders and as
        contaminants, pixel_size, skipped.
    """
    first = frames.usable[0]
    height, width = steps.shape(first.shape)
    pixel_size = None if first.pixel_size is None else first.pixel_size * steps.bin
    attributes = {
        "version": __version__,
        "made_by": "import",
        "sources": [str(source) for source in frames.sources],
        "parameters": asdict(steps) | {"key": frames.key, "pixel_size": frames.pixel_size},
    }
    shape = (len(frames.usable), height, width)
    entries: list[Entry] = []
    masked, borders, contaminants = 0, [], []
    with (
        patiently() as stop,  # a signal must not interrupt Zarr's thread in the middle of a write
        creating(
            output,
            shape,
            np.dtype(np.float32),
            {"mtdcore": attributes},
            overwrite=force,
            pixel_size=pixel_size,
            ome=True,
            inputs=frames.files,
        ) as (array, folder),
        Progress("import", shape[0], "micrographs") as bar,
    ):
        for micrograph, prepared in frames.prepared(steps):
            array[len(entries)] = prepared.pixels
            entry = Entry.of(micrograph, prepared, steps.bin, steps.invert)
            rate = None if sampling_rate is None else sampling_rate / steps.bin
            entries.append(replace(entry, sampling_rate=rate))
            masked += int(np.isnan(prepared.pixels).sum())
            borders.append(prepared.borders)
            contaminants.append(prepared.contaminants)
            bar.update(len(entries))
            stop.check()
        array.resize(
            (len(entries), height, width)
        )  # drops the rows of micrographs that proved unusable on reading
        MicrographTable(tuple(entries)).save(folder)
    scales = [entry.scale for entry in entries]
    span = f"{min(scales):.4g} to {max(scales):.4g}"
    if frames.signals:
        log(f"{len(entries)} signal(s) of {height} x {width} samples; scale {span}")
    else:
        log(
            f"{len(entries)} micrograph(s) of {height} x {width} pixels; pixel scale {span}; {frames.contrast}"
        )
    names = [entry.name for entry in entries]
    for what, option, shares in (
        ("constant or smeared borders", "borders", borders),
        ("carbon and contaminants", "contaminants", contaminants),
    ):
        if any(shares):
            log(
                f"masked {what}: {_worst(names, shares)} (mtd inspect --picture draws them; --{option} keep keeps them)"
            )
    if masked:
        log(f"{masked} of {len(entries) * height * width} pixels are masked (invalid, defective or as asked)")
    return {
        "micrographs": len(entries),
        "height": height,
        "width": width,
        "masked_pixels": masked,
        "borders": float(np.mean(borders)),
        "contaminants": float(np.mean(contaminants)),
        "pixel_size": pixel_size,
        "skipped": frames.skipped,
    }


def _worst(names: list[str], shares: list[float], most: int = 3) -> str:
    """Mean share of masked pixels, and the micrographs with the largest shares."""
    touched = sorted((i for i, share in enumerate(shares) if share), key=lambda i: -shares[i])
    some = [f"no. {i} ({Path(names[i]).name}) {shares[i]:.1%}" for i in touched[:most]] + ["..."] * (
        len(touched) > most
    )
    return f"{np.mean(shares):.2%} of the pixels, in {len(touched)} of {len(names)} micrographs: {', '.join(some)}"
