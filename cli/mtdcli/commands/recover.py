"""``mtd recover``: the main job, from a measurement to a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..run.output import refuse_as_run_folder, refuse_foreign_results
from ..run.stopping import Interrupted, listening
from ..terminal.console import F, command_line, emit, force_option, json_option, log
from ..terminal.options import Address, Bytes, CountOr, NumberOr

_POSITIVE = click.FloatRange(min=0, min_open=True)
_COUNT = click.IntRange(min=1)


def _option(flag: str, kind: Any, text: str, default: Any = None, **more: Any) -> Callable[[F], F]:
    if default is not None:
        more |= {"default": default, "show_default": True}
    return click.option(flag, type=kind, help=text, **more)


@click.command()
@click.argument("measurement", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="RUN_DIR",
    type=click.Path(path_type=Path),
    help="Folder for the results.",
)
@_option("--box-size", _COUNT, "Side of the target image, pixels.", required=True, metavar="L")
@_option("--rotations", _COUNT, "Equally spaced rotations that a copy may have.", 4, metavar="K")
@_option(
    "--coarse-rotations",
    CountOr("auto"),
    "Angles that find the copies, all K are scored there (window); auto: about 0.8 L where K is at least twice that.",
    "auto",
    metavar="N|auto",
)
@_option(
    "--likelihood",
    click.Choice(["window", "patch"]),
    "Model of the measurement: window (default method) or patch (as published).",
    "window",
)
@_option(
    "--min-separation",
    CountOr("auto"),
    "Smallest distance of two copies, pixels; auto: as close as copies of the recovered size can come. Default: the box size.",
    metavar="D|auto",
)
@_option(
    "--noise-std",
    NumberOr("auto"),
    "Standard deviation of the noise; auto: estimated.",
    "auto",
    metavar="S|auto",
)
@_option(
    "--expected-count",
    _POSITIVE,
    "Number of copies to start from. Default: a tenth of the area.",
    metavar="P",
)
@_option(
    "--prior", str, "Learned prior: a shipped one or a .safetensors file (extra: torch).", metavar="NAME|PATH"
)
@_option(
    "--initial",
    str,
    "Start: random pixels in [0, 1], the same but faint, draws from the prior, a faint blob, or an image. "
    "Default: samples with a prior, faint with --update wiener, else uniform.",
    metavar="uniform|faint|samples|blob|FILE",
)
@_option(
    "--starts", _COUNT, "Random starts that race, chosen by evidence. Default: 16 samples, or 1.", metavar="N"
)
@_option(
    "--temperature",
    NumberOr("auto", minimum=1),
    "Start at this temperature and cool to 1. Default: auto for uniform starts of the window model, else 1.",
    metavar="T|auto",
)
@_option(
    "--update",
    click.Choice(["auto", "denoising", "exact", "wiener", "gradient"]),
    "M-step; auto: denoising with a prior, wiener without one where micrographs were whitened or have a CTF, else exact.",
    "auto",
)
@_option("--step", _POSITIVE, "Step size of --update gradient.", 1e-3)
@_option("--iterations", _COUNT, "Largest number of iterations.", 60, metavar="N")
@_option(
    "--batches",
    _COUNT,
    "Read the measurement in so many parts, one per iteration, and all of it in the last two: fewer passes over large ones.",
    1,
    metavar="N",
)
@_option("--tolerance", click.FloatRange(min=0), "Stop when the estimate moves less than this.", 1e-5)
@_option("--classes", _COUNT, "Different images that the copies may show.", 1, metavar="C")
@_option(
    "--micrographs",
    click.Choice(["auto", "each", "alike"]),
    "Noise level, number of copies and transfer (whitening, CTF) of each micrograph, or the same for all; "
    "auto: of each where a transfer is known.",
    "auto",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Go on without micrographs of a list, or chunks of a Zarr measurement, that are missing or damaged.",
)
@click.option(
    "--stop-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Stop with a checkpoint, as on SIGTERM, when this file appears.",
)
@_option("--seed", click.IntRange(min=0), "Seed of everything random.", 0)
@_option("--device", str, "Where to compute.", "auto", metavar="auto|cpu|cuda[:i|:all]")
@_option(
    "--precision",
    click.Choice(["float32", "float64"]),
    "Of the correlations; sums are always float64.",
    "float32",
)
@_option(
    "--threads", _COUNT, "CPU threads; they change no bit of the result. Default: all cores.", metavar="N"
)
@_option(
    "--workers",
    _COUNT,
    "Spread the work over this many processes of this machine (extra: dask).",
    metavar="N",
)
@_option(
    "--scheduler",
    Address(),
    "Spread the work over the Dask cluster of this scheduler, see docs/cluster.md.",
    metavar="ADDRESS",
)
@_option(
    "--max-memory", Bytes(), "Rather use fewer threads than more memory than this, e.g. 4G.", metavar="SIZE"
)
@_option(
    "--defects",
    click.Choice(["mask", "keep"]),
    "Dead and hot pixels: not used, or taken as they are.",
    "mask",
)
@_option("--checkpoint-every", click.FloatRange(min=0), "Seconds between checkpoints.", 30.0)
@_option(
    "--trust",
    click.IntRange(min=2),
    "Judge the result by so many null runs and two halves, as `mtd trust` does. Default: not judged.",
    metavar="N",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run; the result has the same bits as without the interruption.",
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measurement: Path,
    output: Path,
    trust: int | None,
    resume: bool,
    force: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Recover the target image from MEASUREMENT (.zarr, .npy, or micrographs: .star, .mrc(s), .tif) without picking its
    copies. Micrographs are prepared as they are read, with the defaults of `mtd import`; importing them first saves time.

    RUN_DIR receives estimate.npy, aligned_average.npy (no prior applied), run.json, history.csv,
    detections.csv and .star (`mtd detect`) and report.html. A run that is interrupted (Ctrl-C, SIGTERM, SIGUSR1) saves a checkpoint first; --resume goes on from the last one.
    """
    again = command_line(ctx)
    refuse_as_run_folder(output, measurement)
    with listening(), locked(output):
        try:
            result = _recover(measurement, output, resume, force, parameters, again)
        except Interrupted as interruption:
            begun = interruption.iteration or not force
            log(f"{interruption}; continue with: {again} {'--resume' if begun else '--force'}")
            ctx.exit(128 + interruption.signum)
        if trust is not None:
            result |= _judged(ctx, output, trust)
    emit(result, as_json)


def _judged(ctx: click.Context, output: Path, null_runs: int) -> dict[str, Any]:
    """The verdict on a run that is finished and stays so, whatever happens here."""
    from ..run.folder import RunFolder
    from .report import write_report
    from .trust import examine, findings

    folder = RunFolder(output)
    record = folder.read_record()
    try:
        examine(folder, record, null_runs)
    except Interrupted as interruption:
        log(f"the recovery is finished, its judgement is not; continue with: mtd trust {folder.path}")
        ctx.exit(128 + interruption.signum)
    write_report(folder)
    return findings(folder, record)


def _recover(
    path: Path, output: Path, resume: bool, force: bool, parameters: dict[str, Any], again: str
) -> dict[str, Any]:
    from mtdcore.em.checkpoint import load_checkpoint
    from mtdcore.errors import StorageError

    from ..inputs.opening import table_of
    from ..inputs.usable import missing, open_for, source_of
    from ..run import job
    from ..run.cluster import computing
    from ..run.folder import RunFolder
    from ..run.memory import threads_within
    from .detect import write_copies
    from .doctor import machine, versions
    from .report import write_report
    from .trust import data_share

    folder = RunFolder(output)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    if folder.occupied and not (resume or force):
        raise StorageError(f"{folder.path} holds a run already; --resume continues it, --force replaces it.")
    refuse_foreign_results(
        folder, [path, *(Path(parameters[one]) for one in ("initial", "prior") if parameters[one])]
    )
    measurement = open_for(path, parameters)
    table = table_of(path, source_of(measurement))
    threads = threads_within(parameters, measurement.shape)
    facts = job.facts(table, parameters["micrographs"])
    micrographs, height, width = measurement.shape
    with computing(parameters, threads) as (backend, executor):
        owner = job.identity(measurement, backend, parameters, facts)
        state = None
        if resume and folder.occupied and not force:
            state = load_checkpoint(folder.checkpoint, owner)
            log(f"going on after iteration {state.iteration}")
        log(f"{path}: {micrographs} micrograph(s) of {height} x {width} pixels, backend {backend.name}")
        recovery = job.run(measurement, folder, backend, parameters, owner, state, facts, executor)
    unused = micrographs * recovery.likelihood.geometry.unused_pixels((height, width))
    if unused:
        log(f"{unused} pixels at the far edges fill no whole patch and were not used")
    job.save(folder, recovery)
    if table is not None:
        table.save(folder.path)
    folder.write_record(
        {
            "format": 1,
            "command": again,
            "started": started,
            "seconds": time.perf_counter() - clock,
            "measurement": {
                "path": str(path.absolute()),
                "shape": measurement.shape,
                "dtype": str(measurement.dtype),
                "fingerprint": owner["measurement"],
                "unused_pixels": unused,
                **missing(measurement, round(recovery.statistics.pixels) + unused),
            },
            "parameters": parameters,
            "device": backend.name,
            "result": {**recovery.summary(), "data_share": data_share(recovery, parameters)},
            "versions": versions(),
            "machine": machine(),
        }
    )
    write_copies(folder, folder.read_record(), device=parameters["device"].removesuffix(":all"))
    write_report(folder)
    return {"run": str(folder.path), "report": str(folder.page), **recovery.summary()}
