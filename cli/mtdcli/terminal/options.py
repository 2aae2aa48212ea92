"""Option types that several commands use, and options in groups."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .console import F, log

#: Types of options.
PATH = click.Path(path_type=Path)
COUNT, FROM_ZERO = click.IntRange(min=1), click.IntRange(min=0)
POSITIVE = click.FloatRange(min=0, min_open=True)

#: What ``--help`` calls a number, whole or not.
_NUMBERS = {click.IntRange: "N", click.FloatRange: "X"}

#: Stands for "no default".
_NONE: Any = object()


def option(flags: str, text: str, kind: Any = None, default: Any = _NONE, **more: Any) -> Callable[[F], F]:
    """An option of a command; ``--help`` shows its default unless that is None.

    Args:
        flags: its names, separated by blanks.
        text: its help.
        kind: its type, or a tuple of types.
        default: its default.
        more: keyword arguments of :class:`click.Option`.
    """
    if default is not _NONE:
        more |= {"default": default, "show_default": default is not None}
    return click.option(*flags.split(), type=kind, help=text, **more)


def with_help(command: click.Command, example: str) -> click.Command:
    """The command with a ``--help`` that calls whole numbers N, other numbers X, and ends with an example."""
    command.epilog = f"Example: {example}"
    for one in command.params:
        if one.metavar is None and type(one.type) in _NUMBERS:
            one.metavar = _NUMBERS[type(one.type)]
    return command


def measurement_argument(function: F) -> F:
    """``MEASUREMENT``, the path of one."""
    return click.argument("measurement", type=PATH)(function)


def run_argument(function: F) -> F:
    """``RUN_DIR``, the folder of a run."""
    return click.argument("run_dir", type=PATH)(function)


def watch_page_option(function: F) -> F:
    """``--watch-page``."""
    return option("--watch-page", "Show the run in a browser as it goes (see `mtd serve`).", is_flag=True)(
        function
    )


def run_output(function: F) -> F:
    """``-o RUN_DIR``."""
    return option("-o --output", "Folder for the results.", PATH, required=True, metavar="RUN_DIR")(function)


def measurement_output(function: F) -> F:
    """``-o`` for a measurement."""
    return option("-o --output", "Zarr measurement to write.", PATH, required=True)(function)


class NumberOr(click.ParamType[float | str]):
    """A number, or one of a few words.

    Args:
        words: accepted as they are.
        minimum: smallest accepted number; None: any positive one.
    """

    name = "number"

    def __init__(self, *words: str, minimum: float | None = None) -> None:
        self.words, self.minimum = words, minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """The word, or the number as a float."""
        if value in self.words:
            return str(value)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        least = self.minimum
        if not math.isfinite(number) or (number <= 0.0 if least is None else number < least):
            wanted = (
                "a positive number"
                if least is None
                else "a number" + f" of at least {least:g}" * (least > -math.inf)
            )
            self.fail(f"{value!r} is neither {' nor '.join(self.words)} nor {wanted}", param, ctx)
        return number


class Length(click.ParamType[float | str]):
    """A length in pixels, ``40``, or in angstrom, ``120A``."""

    name = "length"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Pixels as a float, or angstrom as the string given, which ends with A."""
        match = re.fullmatch(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*(A|Å|Å)?\s*", str(value), re.IGNORECASE)
        try:
            number = float(match[1]) if match else math.nan
        except ValueError:
            number = math.nan
        if match is None or not 0.0 < number < math.inf:
            self.fail(f"{value!r} is no length such as 40 (pixels) or 120A (angstrom)", param, ctx)
        return f"{match[1]}A" if match[2] else number


def in_pixels(name: str, length: float | str | None, pixel_size: float | None) -> float | None:
    """A :class:`Length` in pixels of the measurement.

    Args:
        name: of the option, for the error.
        length: as the option has it; None: not given.
        pixel_size: angstrom; None: unknown.

    Raises:
        UsageError: it is in angstrom, and the pixel size is not known.
    """
    if not isinstance(length, str):
        return length
    if pixel_size is None:
        raise click.UsageError(
            f"{name} {length}: the pixel size of the measurement is not known; give the length in pixels, or import the "
            "micrographs with --pixel-size"
        )
    pixels = float(length[:-1]) / pixel_size
    log(f"{name} {length}: {pixels:.4g} pixels of {pixel_size:.4g} angstrom")
    return pixels


class CountOr(NumberOr):
    """A whole number from 1, or one of a few words."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The word, or the number as an int."""
        number = super().convert(value, param, ctx)
        if isinstance(number, str):
            return number
        if number != int(number):
            self.fail(f"{value!r} is neither {' nor '.join(self.words)} nor a whole number", param, ctx)
        return int(number)


class Address(click.ParamType[str]):
    """Where a scheduler listens, ``tls://HOST:PORT``."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address as it is."""
        if not re.fullmatch(r"[a-z][a-z0-9]*://[^\s/]+:\d{1,5}", str(value)):
            self.fail(f"{value!r} is no address such as tls://node17:8786", param, ctx)
        return str(value)


class Bytes(click.ParamType[int]):
    """A size such as ``4G``, ``500M`` or ``1e9``; units are powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", str(value), re.IGNORECASE)
        try:
            number = float(match[1]) if match else math.nan
        except ValueError:
            number = math.nan
        if match is None or not number > 0:
            self.fail(f"{value!r} is no size such as 4G or 500M", param, ctx)
        return int(number * 1024 ** " kmgt".index(match[2].lower() or " "))


class Shape(click.ParamType[tuple[int, int]]):
    """``HxW`` in pixels, or one number for a square."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """(H, W)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
        if match is None:
            self.fail(f"{value!r} is no size in pixels such as 308x308", param, ctx)
        return int(match[1]), int(match[2] or match[1])


class Box(Shape):
    """``L`` for a square box, kept as a number, or ``HxW``."""

    name = "box"

    def convert(  # type: ignore[override]
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        """The side, or (height, width)."""
        match = None if isinstance(value, list | tuple) else re.fullmatch(r"(\d+)(?:x(\d+))?", str(value))
        sides = tuple(value if match is None else (int(match[1]), int(match[2] or match[1])))
        if not (len(sides) == 2 and all(isinstance(n, int) and n > 0 for n in sides)):
            self.fail(f"{value!r} is no box in pixels such as 28 or 1x187", param, ctx)
        return sides[0] if sides[0] == sides[1] else (sides[0], sides[1])


class Device(click.ParamType[str]):
    """Where to compute: a processor or a card, an array library (``torch:xpu``), or a backend of a plug-in.

    Args:
        more: devices that this command takes besides ``auto``, ``cpu``, ``cuda`` and ``cuda:1``.
    """

    name = "device"

    def __init__(self, *more: str) -> None:
        self.more = more

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The device as given. A device from a record (``param`` is None) is not checked: it may be that of a plug-in on another machine."""
        name = str(value)
        if param is None or name in self.more or re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            return name
        from mtdcore._base.plugins import plugin_names

        if name.partition(":")[0] in ("array", "reference", "torch", *plugin_names("mtdcore.backends")):
            return name
        devices = ", ".join(["auto", "cpu", "cuda", "cuda:1", *self.more])
        self.fail(
            f"{value!r} is no device; devices are {devices}, and `mtd doctor` says which this machine has",
            param,
            ctx,
        )


class GroupedOption(click.Option):
    """An option that ``--help`` lists under a heading of its own.

    Args:
        group: the heading, one of those of :class:`GroupedCommand`.
        parameters: those of :class:`click.Option`.
    """

    def __init__(self, *parameters: Any, group: str, **named: Any) -> None:
        super().__init__(*parameters, **named)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists its options in groups; an option without one belongs to the output."""

    GROUPS = ("data", "target", "model", "search", "prior", "compute", "output")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each group."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        for group in self.GROUPS:
            found = [one.get_help_record(ctx) for one in options if getattr(one, "group", "output") == group]
            if found:
                with formatter.section(f"{group.capitalize()} options"):
                    formatter.write_dl([line for line in found if line is not None])
