"""The options of ``mtd recover --volume``, each stated once. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

import click

from ..run.parameters import Parameters, RunParameters
from ..terminal.declared import declared, like
from ..terminal.options import CountOr, Device, Length

#: Default number of parts of an omit test.
PARTS = 10


@dataclass(frozen=True, kw_only=True)
class VolumeParameters(Parameters):
    """The options of the recovery of a volume. A new option is one more field here, and its effect in ``volumes/run.py``."""

    box_size: int = declared("target", "Side of the volume, pixels.", MISSING, metavar="L")
    diameter: float | str | None = declared(
        "target",
        "Diameter of the particle, pixels, or angstrom with an A: 120A. Default: the box.",
        metavar="PX|A",
        kind=Length(),
    )
    symmetry: str = declared(
        "target",
        "Point group: C1, C2, ..., D2, ..., T, O, I. Imposed late, on the axes found.",
        "C1",
        metavar="GROUP",
    )
    min_separation: int | None = declared(
        "model",
        "Smallest distance of two copies, pixels. Default: diameter / sqrt 2, or three quarters of the box.",
        metavar="D",
    )
    noise_std: float | Literal["auto"] = like(RunParameters, "noise_std")
    noise: Literal["auto", "white"] = declared(
        "model",
        "white, or auto: behind a radial filter where neither quiet parts nor what the copies leave are white.",
        "auto",
    )
    amplitude_std: float | Literal["auto"] = like(RunParameters, "amplitude_std")
    micrographs: Literal["auto", "each", "alike"] = declared(
        "model",
        "each: noise level, number of copies and transfer (whitening, CTF) of every micrograph; alike: the same for all; "
        "auto: transfers where they are known, noise and copies alike.",
        "auto",
    )
    expected_count: float | None = declared(
        "model", "Number of copies to start from. Default: a tenth of the area.", metavar="P"
    )
    prior: str | None = declared(
        "prior",
        "Learned prior over volumes: proteins-3d, or a .safetensors file (extra: torch). Default: a Gaussian that the data give.",
        metavar="NAME|PATH",
        read=True,
    )
    initial: Path | None = declared(  # noqa: RUF009 (a field, made once)
        "search",
        "Start: an MRC map at the scale of the measurement. Default: rough blobs.",
        metavar="FILE",
        read=True,
    )
    starts: int = declared(
        "search", "Random starts; half way the one of most evidence goes on.", 1, metavar="N"
    )
    iterations: int = declared("search", "Number of iterations.", 120, metavar="N")
    views: int = declared("search", "Number of views in the end.", 1200, metavar="T")
    band: float | None = declared(
        "search",
        "Frequency limit in the end, cycles per pixel. Default: what suits the box.",
        metavar="F",
        kind=click.FloatRange(0, 0.5, min_open=True),
    )
    subpixel: bool = declared(
        "search", "Half pixels are scored where a copy is found: copies lie between pixels.", False
    )
    parts: int | None = declared(
        "search",
        "An iteration reads one of so many parts, the last ones everything. Default: 8, or the number of tiles.",
        metavar="N",
    )
    seed: int = like(RunParameters, "seed")
    halves: bool = declared(
        "output",
        "Recover two halves of the data as well: half maps and their shell correlation.",
        True,
        decides=False,
    )
    trust: int | None = declared(
        "output",
        "Judge the result, with up to so many null runs of each kind (see `mtd trust`). Default: not judged.",
        metavar="N",
        decides=False,
        kind=click.IntRange(min=2),
    )
    omit: int | Literal["none"] | None = declared(
        "output",
        "Omit test: leave each of N equal parts out of the volume of one half of the data, and ask the other half for it; none: not. Default: 10 with a learned prior, else none.",
        metavar="N|none",
        decides=False,
        kind=CountOr("none", minimum=2),
    )
    draws: int | None = declared(
        "output",
        "Draw N volumes from the posterior, poses left open: standard deviation of every voxel. Default: none.",
        metavar="N",
        decides=False,
        kind=click.IntRange(min=2),
    )
    skip_bad: bool = like(RunParameters, "skip_bad")
    defects: Literal["mask", "keep"] = like(RunParameters, "defects")
    #: Not deciding by its name: the identity of a run holds the backend that the name resolves to.
    device: str = like(RunParameters, "device", metavar="auto|cpu|cuda[:i]", decides=False, kind=Device())
    stop_file: Path | None = like(RunParameters, "stop_file")  # noqa: RUF009
    checkpoint_every: float = like(RunParameters, "checkpoint_every")

    @property
    def judged(self) -> bool:
        """Whether halves, a verdict or draws are asked for besides the volume."""
        return self.halves or self.trust is not None or self.draws is not None

    @property
    def omitted(self) -> int:
        """Number of parts of the omit test; 0: no omit test."""
        if self.omit is None:
            return PARTS if self.prior and self.halves else 0
        return 0 if self.omit == "none" else self.omit
