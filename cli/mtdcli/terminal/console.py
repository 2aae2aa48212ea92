"""Output of the commands: results on stdout, the log on stderr; and options that commands share."""

from __future__ import annotations

import json
import math
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

#: Number of items of a list that the text output shows.
_SHOWN = 8

#: Entries that only --json shows: the record of the likelihood, which holds arrays, and the omit test.
_FOR_MACHINES = ("likelihood", "omit_test")


#: Options of the running command, by their argument names in the library.
FLAGS: dict[str, str] = {}


def log(message: str) -> None:
    """One line of the log, on stderr."""
    click.echo(printable(f"mtd: {message}"), err=True)


@contextmanager
def noting_doubts() -> Iterator[list[str]]:
    """Collect the warnings of class :class:`mtdcore.errors.Doubt` raised in the block; they are shown as before."""
    from mtdcore.errors import Doubt

    show_it, found = warnings.showwarning, []

    def note(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, Doubt):
            found.append(spelt(" ".join(str(message).split())))
        show_it(message, category, *where)

    warnings.showwarning = note  # type: ignore[assignment]
    try:
        yield found
    finally:
        warnings.showwarning = show_it


def error(message: str) -> None:
    """Print an error as one line on stderr."""
    click.echo(printable(f"mtd: error: {' '.join(message.split())}"), err=True)


def printable(text: str) -> str:
    """Text that every stream can encode: file names may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def spelt(message: str) -> str:
    """A message of the library with its arguments as options: ``give min_separation=28`` becomes ``give --min-separation 28``.

    Names of one word are words where no value follows.
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in FLAGS or (value is None and "_" not in name):
            return found[0]
        return " ".join([FLAGS[name]] if value in (None, "True") else [FLAGS[name], value.strip('"')])

    return re.sub(
        r'(?<![\w/.-])(?<!\w\()([a-z]\w*)(?:=("\w+"|\w+(?:[.+-]\w+)*))?(?![\w/=(]|\.\w)', option, message
    )


def emit(result: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on stdout: JSON, or one ``name  value`` line per entry (nested entries indented); text leaves out ``_FOR_MACHINES``."""
    if as_json:
        click.echo(to_json(result))
    else:
        click.echo(printable("\n".join(_lines(result))))


def to_json(value: Any, indent: int | None = 2) -> str:
    """Strict JSON: arrays become lists, paths become strings, non-finite numbers become null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _lines(result: Mapping[str, Any], indent: str = "") -> list[str]:
    shown = {key: value for key, value in result.items() if key not in _FOR_MACHINES}
    width = max((len(str(key)) for key in shown), default=0)
    lines = []
    for key, value in shown.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key:<{width}}  {show(value)}")
    return lines


def show(value: Any) -> str:
    """A value for people: floats to five digits, sequences joined."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(show(item) for item in value[:_SHOWN])
        return shown if 0 < len(value) <= _SHOWN else f"{shown}, ... ({len(value)} in all)" if value else "-"
    return "-" if value is None else str(value)


def command_line(ctx: click.Context) -> str:
    """The command of this context with the options that were given, ready to be pasted.

    ``--resume``, ``--force`` and ``--json`` are left out, since they do not change the result.
    """
    words = ["mtd", *str(ctx.info_name).split()]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not given or name in ("resume", "force", "as_json"):
            continue
        value = ctx.params[name]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(value, bool):
            words += (parameter.opts if value else parameter.secondary_opts)[-1:]
        elif isinstance(value, list):
            words += [parameter.opts[-1], ",".join(map(str, value))]
        elif parameter.multiple:
            words += [word for one in value for word in (parameter.opts[-1], str(one))]
        elif isinstance(value, tuple) and parameter.nargs == 1:
            words += [parameter.opts[-1], "x".join(map(str, value))]
        else:
            words += [parameter.opts[-1], *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def force_option(function: F) -> F:
    """``--force``."""
    return click.option("--force", is_flag=True, help="Replace what is there.")(function)


def with_error(mean: float, standard_error: float) -> str:
    """``0.123 +- 0.004``; a dash where every run failed."""
    if mean != mean:
        return "-"
    return f"{mean:.3f}" if standard_error != standard_error else f"{mean:.3f} +- {standard_error:.3f}"
