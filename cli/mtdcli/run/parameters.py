"""The options of ``mtd recover``, each stated once: as fields of one frozen dataclass. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import click

from ..terminal.console import F
from ..terminal.options import (
    COUNT,
    FROM_ZERO,
    PATH,
    POSITIVE,
    Address,
    Box,
    Bytes,
    CountOr,
    GroupedOption,
    Length,
    NumberOr,
    in_pixels,
)

_FROM_ZERO = click.FloatRange(min=0)

#: Stands for "runs did what is the default now".
_SAME: Any = object()


def _option(
    group: str,
    text: str,
    default: Any = None,
    *,
    kind: click.ParamType[Any] | None = None,
    metavar: str | None = None,
    decides: bool = True,
    before: Any = _SAME,
) -> Any:
    """A field that is an option.

    Args:
        group: its heading in ``--help``.
        text: its help.
        default: its default; MISSING: it is required.
        kind: type for click; None: as :func:`_kind` reads it from the type of the field.
        metavar: what ``--help`` shows for the value.
        decides: whether it may change a bit of the result; if not, a continuation may change it.
        before: what runs did before the option existed, where that is not the default.
    """
    more = {"group": group, "help": text, "kind": kind, "metavar": metavar, "decides": decides}
    return field(default=default, metadata=more | {"before": before})


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    """How a recovery is run. A new option is one more field here, and what it does in ``run/arguments.py``.

    The name of a field is that of its option, its metadata are what ``--help`` says. Only plain values: the record of
    this class stands in ``run.json``.
    """

    box_size: int | tuple[int, int] = _option(
        "target",
        "Side of the box around one copy, pixels; HxW of one that is no square: 1x187 for 187 samples of a signal, 12x187 where it has 12 channels.",
        default=MISSING,
        metavar="L|HxW",
        kind=Box(),
    )
    diameter: float | str | None = _option(
        "target",
        "Diameter of the object, pixels of the measurement, or angstrom with an A: 120A. Cuts the estimate down to it, sets separation "
        "and starts. Particles need it.",
        metavar="PX|A",
        kind=Length(),
    )
    rotations: int | None = _option(
        "target",
        "Equally spaced rotations of a copy; in a box that is no square 1, or 2. Default: 4, or 1 in a box that is no square.",
        metavar="K",
    )
    coarse_rotations: int | Literal["auto"] = _option(
        "search",
        "Rotations of the search for copies; all K are scored where it finds one (window). auto: about 0.8 L, if K is at least twice that.",
        "auto",
        metavar="N|auto",
    )
    symmetry: str = _option(
        "target",
        "Symmetry of the target about the middle of its box: C1, C2, C3, ...; K rotations then are K / n different ones.",
        "C1",
        metavar="Cn",
    )
    mirror: bool = _option("target", "Copies may be mirrored, as particles on either face are.", False)
    subpixel: bool | None = _option(
        "model",
        "Copies lie between pixels: half pixels are scored where one is found (window). Default: no.",
    )
    amplitude_std: float | Literal["auto"] = _option(
        "model",
        "Standard deviation of the amplitudes of copies about 1, their mean (window); auto: learned; 0: copies are alike.",
        0.0,
        metavar="S|auto",
        kind=NumberOr("auto", minimum=0),
    )
    likelihood: Literal["window", "patch"] = _option(
        "model", "Model of the measurement. window: whole copies; patch: as published.", "window"
    )
    min_separation: int | Literal["auto"] | None = _option(
        "model",
        "Smallest distance of two copies, pixels; auto: the size of the recovered object. Default: diameter / sqrt 2, or the box size.",
        metavar="D|auto",
    )
    noise_std: float | Literal["auto"] = _option(
        "model",
        "Standard deviation of the noise, in units of the measurement; auto: estimated.",
        "auto",
        metavar="S|auto",
    )
    noise: Literal["auto", "white", "spectrum"] = _option(
        "model",
        "White, or of a spectrum that is learned with the target and divided out; auto: white unless the measurement shows otherwise.",
        "auto",
        before="white",
    )
    offset: float | Literal["auto", "none"] = _option(
        "model",
        "What pixels read where there is nothing, in units of the measurement; auto: estimated; none: 0.",
        "auto",
        metavar="B|auto|none",
        kind=NumberOr("auto", "none", minimum=-math.inf),
        before="none",
    )
    expected_count: float | None = _option(
        "model", "Number of copies at the start. Default: boxes over a tenth of the area.", metavar="P"
    )
    prior: str | None = _option(
        "prior",
        "Learned prior: glyphs, mnist, proteins-2d, a plug-in, or a .safetensors file (extra: torch). Default: no prior.",
        metavar="NAME|PATH",
    )
    method: Literal["em", "moments"] = _option(
        "search",
        "em; moments: fits the autocorrelations of the measurement, in one pass and without poses. For well separated copies, of which there are many.",
        "em",
    )
    initial: str | None = _option(
        "search",
        "Start. random: random pixels, faint at the first temperature; faint: the same without cooling; samples: draws from the prior; "
        "blob: a blurred spot; several: spots, a ring and faint pixels; moments: what --method moments finds; uniform: random pixels in [0, 1], whatever the units; or an image file. Default: samples with a prior, "
        "several with a diameter or a box that is no square, faint with the wiener M-step, uniform with gradient, else random.",
        metavar="random|faint|samples|blob|several|moments|uniform|FILE",
    )
    starts: int | None = _option(
        "search",
        "Random starts; the one with the most evidence goes on. Default: 16 for samples, 6 for several, 4 for random, else 1.",
        metavar="N",
    )
    temperature: float | Literal["auto"] | None = _option(
        "search",
        "Temperature at the start; it cools to 1. Default: auto for random and uniform starts and samples of the window likelihood, else 1.",
        metavar="T|auto",
        kind=NumberOr("auto", minimum=1),
    )
    update: Literal["auto", "denoising", "exact", "wiener", "gradient"] = _option(
        "search",
        "M-step. auto: denoising with a prior; wiener without one for whitened micrographs and those with a CTF; else, with a diameter, one "
        "of a compact object, which has no name here; else exact.",
        "auto",
    )
    step: float = _option("search", "Step size of --update gradient.", 1e-3)
    iterations: int = _option("search", "Largest number of iterations.", 60, metavar="N")
    batches: int = _option(
        "search",
        "Parts of the measurement: an iteration reads one, the last two read all. More parts need fewer passes over a large measurement.",
        1,
        metavar="N",
    )
    tolerance: float = _option(
        "search",
        "Stop when an iteration moves the estimate by less than so many noise levels.",
        1e-5,
        kind=_FROM_ZERO,
    )
    classes: int = _option("target", "Number of different images among the copies.", 1, metavar="C")
    micrographs: Literal["auto", "each", "alike"] = _option(
        "model",
        "each: noise level, number of copies and transfer (whitening, CTF) of every micrograph; alike: the same for all; "
        "auto: each where a transfer is known.",
        "auto",
    )
    skip_bad: bool = _option(
        "data", "Leave out missing and damaged micrographs of a list, or chunks of a Zarr measurement.", False
    )
    stop_file: Path | None = _option(  # noqa: RUF009 (a field, made once)
        "compute",
        "Stop with a checkpoint, as on SIGTERM, when this file appears.",
        metavar="FILE",
        decides=False,
    )
    seed: int = _option("search", "Seed of all random numbers.", 0, kind=FROM_ZERO)
    device: str = _option("compute", "Where to compute.", "auto", metavar="auto|cpu|cuda[:i|:all]")
    precision: Literal["float32", "float64"] = _option(
        "compute", "Precision of the correlations; sums are float64.", "float32"
    )
    threads: int | None = _option(
        "compute",
        "CPU threads; the result has the same bits for any number. Default: all cores.",
        metavar="N",
        decides=False,
    )
    workers: int | None = _option(
        "compute", "Processes on this machine that share the work (extra: dask).", metavar="N", decides=False
    )
    scheduler: str | None = _option(
        "compute",
        "Dask scheduler whose workers share the work, see docs/cluster.md (extra: dask).",
        metavar="ADDRESS",
        decides=False,
        kind=Address(),
    )
    max_memory: int | None = _option(
        "compute",
        "Memory limit, e.g. 4G: fewer threads are used where more would exceed it.",
        metavar="SIZE",
        decides=False,
        kind=Bytes(),
    )
    defects: Literal["mask", "keep"] = _option(
        "data", "Dead and hot pixels: masked, or kept as they are.", "mask", before="keep"
    )
    checkpoint_every: float = _option(
        "compute", "Seconds between checkpoints.", 30.0, decides=False, kind=_FROM_ZERO
    )

    @property
    def turns(self) -> int:
        """Number K of rotations."""
        from mtdcore._base.typing import pair
        from mtdcore.model.rotations import usual_rotations

        return usual_rotations(pair(self.box_size)) if self.rotations is None else self.rotations

    @classmethod
    def from_record(cls, record: object) -> Self:
        """The parameters of a run, of this version or an older one.

        Raises:
            ValueError: an option is unknown here, or has a value that it cannot have.
        """
        from mtdcore._base.records import from_record

        old = {one.name: one.metadata["before"] for one in fields(cls) if one.metadata["before"] is not _SAME}
        found = from_record(cls, {**old, **record} if isinstance(record, Mapping) else record)
        for name, kind in _kinds().items():
            value = getattr(found, name)
            try:
                if value is not None:
                    kind.convert(value, None, None)
            except click.BadParameter as problem:
                raise ValueError(f"{name}: {problem.message}") from problem
        return found

    def refuse_contradictions(self) -> None:
        """Raise UsageError where an option would be ignored because of another one."""
        images = self.initial is not None and not self.initial.isalpha()
        moments, of_em = self.method == "moments", "is of the iterations of EM, not of --method moments"
        for given, beside, what in (
            (self.min_separation is not None, self.likelihood == "patch", "--min-separation is of the window likelihood, not of --likelihood patch"),
            (self.expected_count is not None, self.likelihood == "patch", "--expected-count is of the window likelihood, not of --likelihood patch"),
            (self.amplitude_std != 0.0, self.likelihood == "patch", "--amplitude-std is of the window likelihood, not of --likelihood patch"),
            (self.step != type(self).step, self.update != "gradient", "--step is of --update gradient"),
            (self.update == "denoising", self.prior is None, "--update denoising needs a --prior"),
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

    def described(self) -> dict[str, Any]:
        """The options by name, with what their help says of the default where none was given."""
        texts = {one.name: one.metadata["help"].partition("Default: ")[2].rstrip(".") for one in fields(self)}
        own = {name: getattr(self, name) for name in texts}
        return {name: texts[name] or "none" if value is None else value for name, value in own.items()}

    def in_pixels(self, pixel_size: float | None) -> Self:
        """With all lengths in pixels of the measurement.

        Args:
            pixel_size: angstrom; None: unknown.

        Raises:
            UsageError: a length is in angstrom, and the pixel size is not known.
        """
        return replace(self, diameter=in_pixels("--diameter", self.diameter, pixel_size))

    def deciding(self) -> dict[str, Any]:
        """What may change a bit of the result, by name; a file counts by its content."""
        return by_content(
            {one.name: getattr(self, one.name) for one in fields(self) if one.metadata["decides"]}
        )


def by_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with a digest of the content in place of a file that is read."""
    files = {name: Path(options[name]) for name in ("prior", "initial") if options[name] is not None}
    digests = {
        name: hashlib.sha256(f.read_bytes()).hexdigest()[:16] for name, f in files.items() if f.is_file()
    }
    return {**options, **{name: f"sha256:{digest}" for name, digest in digests.items()}}


def run_options(function: F) -> F:
    """The options of :class:`RunParameters`."""
    kinds = _kinds()
    for one in reversed(fields(RunParameters)):
        more: dict[str, Any] = {name: one.metadata[name] for name in ("help", "group", "metavar")}
        if kinds[one.name] is click.BOOL:
            more |= {"is_flag": True, "default": one.default}
        elif one.default is MISSING:
            more |= {"type": kinds[one.name], "required": True}
        else:
            more |= {"type": kinds[one.name], "default": one.default, "show_default": one.default is not None}
        flag = f"--{one.name.replace('_', '-')}"
        if kinds[one.name] is click.BOOL and one.default is None:
            flag += flag.replace("--", "/--no-", 1)
        function = click.option(flag, cls=GroupedOption, **more)(function)
    return function


def _kinds() -> dict[str, click.ParamType[Any]]:
    """The type of every option for click."""
    hints = get_type_hints(RunParameters)
    return {one.name: one.metadata["kind"] or _kind(hints[one.name]) for one in fields(RunParameters)}


def _kind(hint: Any) -> click.ParamType[Any]:
    """Words are a choice, numbers positive, and either of them where both may stand."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = [word for member in members for word in get_args(member)]
    plain = [member for member in members if not get_args(member) and member is not NoneType]
    if not plain:
        return click.Choice(words)
    if words:
        return CountOr(*words) if plain == [int] else NumberOr(*words)
    kinds: dict[Any, click.ParamType[Any]] = {
        int: COUNT,
        float: POSITIVE,
        str: click.STRING,
        bool: click.BOOL,
        Path: PATH,
    }
    return kinds[plain[0]]
