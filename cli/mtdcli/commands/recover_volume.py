"""``mtd recover --volume``: from micrographs to the volume whose projections they hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..terminal.console import F, command_line, emit, force_option, json_option, log
from ..terminal.options import NumberOr
from ..terminal.stopping import Interrupted, listening

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
@_option("--box-size", _COUNT, "Side of the volume, pixels.", required=True, metavar="L")
@_option(
    "--symmetry", str, "Point group: C1, C2, ..., D2, ..., T, O, I. Imposed late, on the axes found.", "C1"
)
@_option("--diameter", _POSITIVE, "Diameter of the particle, pixels. Default: the box.", metavar="PX")
@_option(
    "--min-separation",
    _COUNT,
    "Smallest distance of two copies, pixels. Default: diameter / sqrt 2, or three quarters of the box.",
    metavar="D",
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
    "--prior",
    str,
    "Learned prior over volumes: a shipped one or a .safetensors file (extra: torch).",
    metavar="NAME|PATH",
)
@_option(
    "--initial",
    click.Path(path_type=Path),
    "Start: an MRC map at the scale of the measurement. Default: rough blobs.",
    metavar="FILE",
)
@_option("--starts", _COUNT, "Random starts; half way the one of most evidence goes on.", 1, metavar="N")
@_option("--iterations", _COUNT, "Number of iterations.", 120, metavar="N")
@_option("--views", _COUNT, "Number of views in the end.", 1200, metavar="T")
@_option(
    "--band",
    click.FloatRange(0, 0.5, min_open=True),
    "Frequency limit in the end, cycles per pixel. Default: what suits the box.",
    metavar="F",
)
@_option(
    "--parts",
    _COUNT,
    "An iteration reads one of so many parts, the last ones everything. Default: 8, or the number of tiles.",
    metavar="N",
)
@_option(
    "--halves/--no-halves",
    None,
    "Recover two halves of the data as well: half maps and their shell correlation.",
    True,
    is_flag=True,
)
@_option(
    "--null-runs",
    click.IntRange(min=0),
    "Judge the result by so many runs on noise alone, at least 2. Default: not judged.",
    0,
    metavar="N",
)
@click.option(
    "--skip-bad", is_flag=True, help="Go on without micrographs or chunks that are missing or damaged."
)
@_option(
    "--defects",
    click.Choice(["mask", "keep"]),
    "Dead and hot pixels: not used, or taken as they are.",
    "mask",
)
@click.option(
    "--stop-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Stop with a checkpoint, as on SIGTERM, when this file appears.",
)
@_option("--seed", click.IntRange(min=0), "Seed of everything random.", 0)
@_option("--checkpoint-every", click.FloatRange(min=0), "Seconds between checkpoints.", 30.0)
@click.option("--resume", is_flag=True, help="Continue an interrupted run, with the same bits.")
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measurement: Path,
    output: Path,
    resume: bool,
    force: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Recover the volume whose projections MEASUREMENT holds, without picking them.

    RUN_DIR receives volume.mrc, half1.mrc and half2.mrc, particles.star (places and Euler angles for RELION), run.json, history.csv and
    report.html. Projections do not fix the hand: the mirror image explains the micrographs as well. An interrupted run saves a
    checkpoint; --resume goes on from it.
    """
    again = f"{command_line(ctx)} --volume"
    with listening(), locked(output):
        try:
            result = recover(measurement, output, resume, force, parameters, again)
        except Interrupted as interruption:
            begun = interruption.iteration or not force
            log(f"{interruption}; continue with: {again} {'--resume' if begun else '--force'}")
            ctx.exit(128 + interruption.signum)
    emit(result, as_json)


def recover(
    path: Path, output: Path, resume: bool, force: bool, parameters: dict[str, Any], again: str
) -> dict[str, Any]:
    """Run, save and report; what the command prints.

    Args:
        path: of the measurement.
        output: run folder, locked.
        resume: go on from its checkpoint.
        force: replace what is there.
        parameters: the options of ``mtd recover --volume``.
        again: the command line that repeats it.
    """
    from mtdcore.errors import StorageError
    from mtdcore.results.nulls import evidence_threshold
    from mtdcore.results.volumes import orientation_information
    from mtdcore.results.volumes.halves import volume_halves
    from mtdcore.results.volumes.maps import write_map

    from ..inputs.opening import table_of
    from ..inputs.usable import open_usable, source_of
    from ..report.volume import write_volume_report
    from ..terminal.installation import machine, versions
    from ..volumes import run as job

    folder = job.VolumeFolder(output)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    if folder.occupied and not (resume or force):
        raise StorageError(f"{folder.path} holds a run already; --resume continues it, --force replaces it.")
    measurement = open_usable(path, parameters["skip_bad"], parameters["defects"])
    table = table_of(path, source_of(measurement))
    pixel_size = None if table is None else table.entries[0].pixel_size
    log(
        f"{path}: {measurement.shape[0]} micrograph(s) of {measurement.shape[1]} x {measurement.shape[2]} pixels"
    )
    found = job.run(measurement, folder, parameters, resume and folder.checkpoint.exists() and not force)
    job.save(folder, found, pixel_size)
    copies = job.copies(measurement, found, parameters)
    copies.to_star(folder.poses, None if table is None else table.names, pixel_size)
    halves = None
    if parameters["halves"]:
        log("two halves of the data, each from the low-passed volume")
        given = job.arguments(parameters)
        shared = {name: given[name] for name in ("diameter", "min_separation", "prior") if name in given}
        halves = volume_halves(measurement, found, **shared)
        for file, half in zip(folder.halves, (halves.first, halves.second), strict=True):
            write_map(file, half, pixel_size)
    result: dict[str, Any] = {
        "evidence": found.evidence,
        "copies": found.expected_count,
        "detections": len(copies),
        "noise_std": found.noise_std,
        "orientation_information": orientation_information(found.volume, found.noise_std),
    }
    if halves is not None:
        result["resolution_pixels"] = halves.whole.resolution(0.143)
    if parameters["null_runs"]:
        evidence = job.null_evidence(measurement, found, parameters, max(2, parameters["null_runs"]))
        threshold = evidence_threshold(evidence)
        result |= {
            "null_evidence": evidence,
            "threshold": threshold,
            "supported": found.evidence > threshold,
        }
    record = {
        "format": 1,
        "kind": "volume",
        "command": again,
        "started": started,
        "seconds": time.perf_counter() - clock,
        "measurement": {"path": str(path.absolute()), "shape": measurement.shape},
        "parameters": parameters,
        "pixel_size": pixel_size,
        "result": result,
        "versions": versions(),
        "machine": machine(),
    }
    folder.write_record(record)
    write_volume_report(folder.page, found, halves, record)
    return {"run": str(folder.path), "report": str(folder.page), **result}
