"""Entry point of ``mtd``: imports a command when it runs, turns an error into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from .terminal.console import FLAGS, error, log, spelt
from .terminal.options import with_help
from .terminal.stopping import SIGNALS, Interrupted, handling_signals

#: Command -> (module, help line, example). The help lines are here so that ``mtd --help`` imports no command.
COMMANDS = {
    "demo": ("demo", "Hide a glyph in noise and recover it: no data needed, about a minute.", "mtd demo"),
    "doctor": ("doctor", "Versions, devices and a small self-test of this installation.", "mtd doctor"),
    "simulate": (
        "simulate",
        "Make a measurement with known truth from a glyph or an image.",
        "mtd simulate glyph -o measurement.zarr --snr 0.5",
    ),
    "import": (
        "import_",
        "Turn .star lists, .mrc, .tif, .npy, .npz, .png, .csv or .wav files into a prepared Zarr measurement.",
        "mtd import 'micrographs/*.mrc' -o measurement.zarr --bin 4",
    ),
    "inspect": (
        "inspect",
        "Say what a measurement or a run folder holds.",
        "mtd inspect measurement.zarr --check",
    ),
    "recover": (
        "recover",
        "Recover the target image from a measurement.",
        "mtd recover measurement.zarr -o run --box-size 28",
    ),
    "watch": (
        "watch",
        "Recover the target image from micrographs as they arrive.",
        "mtd watch Micrographs -o run --box-size 64 --rotations 36",
    ),
    "detect": (
        "detect",
        "Find the copies of a recovered image: tables in CSV and STAR.",
        "mtd detect run --threshold 0.3",
    ),
    "trust": (
        "trust",
        "Say whether the data support a result: null runs, held-out data, another start.",
        "mtd trust run --null-runs 8",
    ),
    "evaluate": (
        "evaluate",
        "Compare the estimate of a run with the truth.",
        "mtd evaluate run --truth truth.png",
    ),
    "report": ("report", "Write the report of a run again.", "mtd report run"),
    "serve": (
        "serve",
        "Show a run in a browser while it goes on.",
        "mtd serve run",
    ),
    "train-prior": (
        "train_prior",
        "Train a learned prior on images (extra: torch).",
        "mtd train-prior images.npz -o prior.safetensors --steps 20000",
    ),
    "reproduce": (
        "reproduce",
        "Repeat the experiments of arXiv:2312.08500 (extra: torch).",
        "mtd reproduce gaussian --targets 3",
    ),
}

_EPILOG = """Exit codes: 0 done, 1 nothing found or not supported (recover --strict), 2 usage, 65 unusable input data, 69 device or dependency unavailable,
74 input/output error, 75 output folder in use, 130/143/138 stopped by SIGINT/SIGTERM/SIGUSR1."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and turns every known error into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command; None for an unknown name."""
        command = load(cmd_name) if cmd_name in COMMANDS else None
        options = command.params if command else []
        FLAGS.clear()
        FLAGS.update({str(one.name): one.opts[-1] for one in options if isinstance(one, click.Option)})
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command table of ``--help``, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text, _) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run one command line and exit."""
        extra["standalone_mode"] = False
        debug = "--debug" in (sys.argv[1:] if args is None else args)
        try:
            run_and_exit(lambda: super(LazyGroup, self).main(args, *rest, **extra), debug)
        except SystemExit as ending:
            if args is None and ending.code in {128 + signum for signum in SIGNALS}:
                # the process ends: another signal must not interrupt the exit handlers of packages
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise


def run_and_exit(work: Callable[[], object], debug: bool = False) -> NoReturn:
    """Run a command with handlers for signals, warnings and log messages; exit with the code of the command or of its error."""
    before, warnings.showwarning = warnings.showwarning, _log_warning  # type: ignore[assignment]
    try:
        with handling_signals(), _logging():
            code = work()
    except Interrupted as interruption:
        error(str(interruption))
        code = 128 + interruption.signum
    except Exception as exception:  # the one place that turns exceptions into exit codes
        if debug:
            traceback.print_exc()
        code = explain(exception)
    finally:
        warnings.showwarning = before
    sys.exit(code if isinstance(code, int) else 0)


def load(name: str) -> click.Command:
    """Import the module of one command; its ``--help`` ends with an example."""
    module, _, example = COMMANDS[name]
    command: click.Command = importlib.import_module(f".commands.{module}", __package__).command
    return with_help(command, example)


class _Lines(logging.Handler):
    """Messages of the library as lines of the log."""

    def emit(self, record: logging.LogRecord) -> None:
        message = spelt(record.getMessage())
        log(message if record.levelno < logging.WARNING else f"warning: {message}")


@contextmanager
def _logging() -> Iterator[None]:
    """Show the log of the library while a command runs."""
    logger, handler = logging.getLogger("mtdcore"), _Lines()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _log_warning(message: Warning | str, *where: object) -> None:
    """A warning as one line of the log, without the line of code that raised it."""
    log(f"warning: {spelt(' '.join(str(message).split()))}")


def explain(exception: Exception) -> int:
    """Print one line about an exception and return its exit code; an unknown exception is raised again."""
    if isinstance(exception, click.exceptions.NoArgsIsHelpError):
        exception.show()
        return exception.exit_code
    if isinstance(exception, click.UsageError):
        path = exception.ctx.command_path if exception.ctx else "mtd"
        error(f"{exception.format_message().rstrip('.')}; see `{path} --help`")
        return exception.exit_code
    if isinstance(exception, click.ClickException):
        error(exception.format_message())
        return exception.exit_code
    if isinstance(exception, click.Abort):
        error("interrupted")
        return 130
    from mtdcore.errors import MtdError

    if isinstance(exception, MtdError):
        error(spelt(str(exception)))
        return exception.exit_code
    if isinstance(exception, OSError):
        error(f"reading or writing failed: {exception}")
        return 74
    if isinstance(exception, MemoryError):
        error(f"out of memory: {exception}; fewer --threads need less")
        return 69
    raise exception


@click.command(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
@click.version_option(package_name="mtdcore", prog_name="mtd")
def main(debug: bool) -> None:
    """Multi-target detection: recover an image straight from a noisy measurement that holds many copies of it,
    at unknown places and rotations, without picking them.

    \b
    mtd demo                                              see it work
    mtd import micrographs/*.mrc -o measurement.zarr      make a measurement
    mtd recover measurement.zarr -o run --box-size 28     recover the image, report in run/report.html
    """  # noqa: D301 (click reads the backspace)
