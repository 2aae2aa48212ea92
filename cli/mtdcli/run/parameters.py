"""The options of ``mtd recover``, each stated once: as fields of one frozen dataclass. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import click

from ..terminal.declared import Options, declared
from ..terminal.options import FROM_ZERO, Address, Box, Bytes, Device, Length, NumberOr, in_pixels

_FROM_ZERO = click.FloatRange(min=0)


class Parameters(Options):
    """The options of a run of either kind, image or volume."""

    diameter: float | str | None
    prior: str | None
    initial: str | Path | None
    iterations: int
    skip_bad: bool
    defects: Literal["mask", "keep"]
    device: str
    stop_file: Path | None
    checkpoint_every: float

    def in_pixels(self, pixel_size: float | None) -> Self:
        """The parameters with all lengths in pixels of the measurement.

        Args:
            pixel_size: angstrom; None: unknown.

        Raises:
            UsageError: a length is in angstrom, and the pixel size is not known.
        """
        changed: dict[str, Any] = {"diameter": in_pixels("--diameter", self.diameter, pixel_size)}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class RunParameters(Parameters):
    """The options of the recovery of an image. A new option is one more field here, and its effect in ``run/arguments.py``."""

    box_size: int | tuple[int, int] = declared(
        "target",
        "Side of the box around one copy, pixels; HxW of one that is no square: 1x187 for 187 samples of a signal, 12x187 where it has 12 channels.",
        default=MISSING,
        metavar="L|HxW",
        kind=Box(),
    )
    diameter: float | str | None = declared(
        "target",
        "Diameter of the object, pixels of the measurement, or angstrom with an A: 120A. Cuts the estimate down to it, sets separation "
        "and starts. Particles need it.",
        metavar="PX|A",
        kind=Length(),
    )
    rotations: int | None = declared(
        "target",
        "Equally spaced rotations of a copy: of one at any angle about 1.6 times the box; in a box that is no square 1, or 2. Default: 4, or 1 in a box that is no square.",
        metavar="K",
    )
    coarse_rotations: int | Literal["auto"] = declared(
        "search",
        "Rotations of the search for copies; all K are scored where it finds one (window). auto: about 0.8 L, if K is at least twice that.",
        "auto",
        metavar="N|auto",
    )
    symmetry: str = declared(
        "target",
        "Symmetry of the target about the middle of its box: C1, C2, C3, ...; K rotations then are K / n different ones.",
        "C1",
        metavar="Cn",
    )
    mirror: bool = declared("target", "Copies may be mirrored, as particles on either face are.", False)
    subpixel: bool | None = declared(
        "model",
        "Copies lie between pixels: half pixels are scored where one is found (window). Default: no.",
    )
    amplitude_std: float | Literal["auto"] = declared(
        "model",
        "Standard deviation of the amplitudes of copies about 1, their mean (window); auto: learned; 0: copies are alike.",
        0.0,
        metavar="S|auto",
        kind=NumberOr("auto", minimum=0),
    )
    likelihood: Literal["window", "patch"] = declared(
        "model", "Model of the measurement. window: whole copies; patch: as published.", "window"
    )
    min_separation: int | Literal["auto"] | None = declared(
        "model",
        "Smallest distance of two copies, pixels; auto: the size of the recovered object. Default: diameter / sqrt 2, or the box size.",
        metavar="D|auto",
    )
    noise_std: float | Literal["auto"] = declared(
        "model",
        "Standard deviation of the noise, in units of the measurement; auto: estimated.",
        "auto",
        metavar="S|auto",
    )
    noise: Literal["auto", "white", "spectrum"] = declared(
        "model",
        "White, or of a spectrum that is learned with the target and divided out; auto: white unless the measurement shows otherwise.",
        "auto",
        before="white",
    )
    offset: float | Literal["auto", "none"] = declared(
        "model",
        "What pixels read where there is nothing, in units of the measurement; auto: estimated; none: 0.",
        "auto",
        metavar="B|auto|none",
        kind=NumberOr("auto", "none", minimum=-math.inf),
        before="none",
    )
    expected_count: float | None = declared(
        "model", "Number of copies at the start. Default: boxes over a tenth of the area.", metavar="P"
    )
    prior: str | None = declared(
        "prior",
        "Learned prior: glyphs, mnist, proteins-2d, a plug-in, or a .safetensors file (extra: torch). Default: no prior.",
        metavar="NAME|PATH",
        read=True,
    )
    method: Literal["em", "moments"] = declared(
        "search",
        "em; moments: fits the autocorrelations of the measurement, in one pass and without poses. For well separated copies, of which there are many.",
        "em",
    )
    initial: str | None = declared(
        "search",
        "Start. random: random pixels, faint at the first temperature; faint: the same without cooling; samples: draws from the prior; "
        "blob: a blurred spot; several: spots, a ring and faint pixels, with a prior as many draws from it; moments: what --method moments finds; uniform: random pixels in [0, 1], whatever the units; or an image file. Default: several with a diameter, "
        "samples with a prior, several in a box that is no square, faint with the wiener M-step, uniform with gradient, else random.",
        metavar="random|faint|samples|blob|several|moments|uniform|FILE",
        read=True,
    )
    starts: int | None = declared(
        "search",
        "Random starts; the one with the most evidence goes on. Default: 16 for samples, 6 for several (12 with a prior), 4 for random, else 1.",
        metavar="N",
    )
    temperature: float | Literal["auto"] | None = declared(
        "search",
        "Temperature at the start; it cools to 1. Default: auto for random and uniform starts and samples of the window likelihood, else 1.",
        metavar="T|auto",
        kind=NumberOr("auto", minimum=1),
    )
    update: Literal["auto", "denoising", "annealed", "exact", "wiener", "gradient"] = declared(
        "search",
        "M-step. auto: denoising with a prior; wiener without one for whitened micrographs and those with a CTF; else, with a diameter, one "
        "of a compact object, which has no name here; else exact. annealed: the first half of the iterations draw from the posterior of the target instead of averaging.",
        "auto",
    )
    step: float = declared("search", "Step size of --update gradient.", 1e-3)
    iterations: int = declared("search", "Largest number of iterations.", 60, metavar="N")
    batches: int = declared(
        "search",
        "Parts of the measurement: an iteration reads one, the last two read all. More parts need fewer passes over a large measurement.",
        1,
        metavar="N",
    )
    tolerance: float = declared(
        "search",
        "Stop when an iteration moves the estimate by less than so many noise levels.",
        1e-5,
        kind=_FROM_ZERO,
    )
    classes: int = declared("target", "Number of different images among the copies.", 1, metavar="C")
    micrographs: Literal["auto", "each", "alike"] = declared(
        "model",
        "each: noise level, number of copies and transfer (whitening, CTF) of every micrograph; alike: the same for all; "
        "auto: each where a transfer is known.",
        "auto",
    )
    skip_bad: bool = declared(
        "data", "Leave out missing and damaged micrographs of a list, or chunks of a Zarr measurement.", False
    )
    stop_file: Path | None = declared(  # noqa: RUF009 (a field, made once)
        "compute",
        "Stop with a checkpoint, as on SIGTERM, when this file appears.",
        metavar="FILE",
        decides=False,
    )
    seed: int = declared("search", "Seed of all random numbers.", 0, kind=FROM_ZERO)
    device: str = declared(
        "compute", "Where to compute.", "auto", metavar="auto|cpu|cuda[:i|:all]", kind=Device("cuda:all")
    )
    precision: Literal["float32", "float64"] = declared(
        "compute", "Precision of the correlations; sums are float64.", "float32"
    )
    threads: int | None = declared(
        "compute",
        "CPU threads; the result has the same bits for any number. Default: all cores.",
        metavar="N",
        decides=False,
    )
    workers: int | None = declared(
        "compute", "Processes on this machine that share the work (extra: dask).", metavar="N", decides=False
    )
    scheduler: str | None = declared(
        "compute",
        "Dask scheduler whose workers share the work, see docs/cluster.md (extra: dask).",
        metavar="ADDRESS",
        decides=False,
        kind=Address(),
    )
    max_memory: int | None = declared(
        "compute",
        "Memory limit, e.g. 4G: fewer threads are used where more would exceed it.",
        metavar="SIZE",
        decides=False,
        kind=Bytes(),
    )
    defects: Literal["mask", "keep"] = declared(
        "data", "Dead and hot pixels: masked, or kept as they are.", "mask", before="keep"
    )
    checkpoint_every: float = declared(
        "compute", "Seconds between checkpoints.", 30.0, decides=False, kind=_FROM_ZERO
    )

    @property
    def turns(self) -> int:
        """Number K of rotations."""
        from mtdcore._base.typing import pair
        from mtdcore.model.rotations import usual_rotations

        return usual_rotations(pair(self.box_size)) if self.rotations is None else self.rotations

    def refuse_contradictions(self) -> None:
        """Raise UsageError where an option would be ignored because of another one."""
        images = self.initial is not None and not self.initial.isalpha()
        moments, of_em = self.method == "moments", "is of the iterations of EM, not of --method moments"
        for given, beside, what in (
            (self.min_separation is not None, self.likelihood == "patch", "--min-separation is of the window likelihood, not of --likelihood patch"),
            (self.expected_count is not None, self.likelihood == "patch", "--expected-count is of the window likelihood, not of --likelihood patch"),
            (self.amplitude_std != 0.0, self.likelihood == "patch", "--amplitude-std is of the window likelihood, not of --likelihood patch"),
            (self.step != type(self).step, self.update != "gradient", "--step is of --update gradient"),
            (self.update in ("denoising", "annealed"), self.prior is None, f"--update {self.update} needs a --prior"),
            (self.initial is not None, moments and not images, f"--initial {self.initial} {of_em}"),
            (self.temperature is not None, moments, f"--temperature {of_em}"),
            (self.update != "auto", moments, f"--update {self.update} {of_em}"),
            (self.batches > 1, moments, f"--batches {of_em}"),
            (self.amplitude_std == "auto", moments, f"--amplitude-std auto {of_em}"),
            (self.classes > 1, moments or self.initial == "moments", "--classes: moments tell one target from noise, not several from one another"),
            (self.micrographs == "each", moments or self.initial == "moments", "--micrographs each: moments take micrographs to be alike"),
            (self.starts is not None, images, "--starts counts random starts, and --initial gives an image"),
        ):  # fmt: skip
            if given and beside:
                raise click.UsageError(f"{what}: leave one of them out")
