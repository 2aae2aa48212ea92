"""``mtd recover --volume``: from micrographs to the volume whose projections they hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ..run.lock import locked
from ..run.output import refuse_as_run_folder, refuse_run
from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.options import (
    COUNT,
    FROM_ZERO,
    PATH,
    POSITIVE,
    Length,
    NumberOr,
    in_pixels,
    measurement_argument,
    option,
    run_output,
)
from ..terminal.stopping import continued, listening


@click.command()
@measurement_argument
@run_output
@option("--box-size", "Side of the volume, pixels.", COUNT, required=True, metavar="L")
@option(
    "--symmetry",
    "Point group: C1, C2, ..., D2, ..., T, O, I. Imposed late, on the axes found.",
    str,
    "C1",
    metavar="GROUP",
)
@option(
    "--diameter",
    "Diameter of the particle, pixels, or angstrom with an A: 120A. Default: the box.",
    Length(),
    metavar="PX|A",
)
@option(
    "--min-separation",
    "Smallest distance of two copies, pixels. Default: diameter / sqrt 2, or three quarters of the box.",
    COUNT,
    metavar="D",
)
@option(
    "--noise-std",
    "Standard deviation of the noise; auto: estimated.",
    NumberOr("auto"),
    "auto",
    metavar="S|auto",
)
@option(
    "--noise",
    "white, or auto: behind a radial filter where neither quiet parts nor what the copies leave are white.",
    click.Choice(["auto", "white"]),
    "auto",
)
@option(
    "--expected-count", "Number of copies to start from. Default: a tenth of the area.", POSITIVE, metavar="P"
)
@option(
    "--prior",
    "Learned prior over volumes: proteins-3d, or a .safetensors file (extra: torch). Default: a Gaussian that the data give.",
    str,
    metavar="NAME|PATH",
)
@option(
    "--initial",
    "Start: an MRC map at the scale of the measurement. Default: rough blobs.",
    PATH,
    metavar="FILE",
)
@option("--starts", "Random starts; half way the one of most evidence goes on.", COUNT, 1, metavar="N")
@option("--iterations", "Number of iterations.", COUNT, 120, metavar="N")
@option("--views", "Number of views in the end.", COUNT, 1200, metavar="T")
@option(
    "--band",
    "Frequency limit in the end, cycles per pixel. Default: what suits the box.",
    click.FloatRange(0, 0.5, min_open=True),
    metavar="F",
)
@option(
    "--parts",
    "An iteration reads one of so many parts, the last ones everything. Default: 8, or the number of tiles.",
    COUNT,
    metavar="N",
)
@option(
    "--halves/--no-halves",
    "Recover two halves of the data as well: half maps and their shell correlation.",
    default=True,
    is_flag=True,
)
@option(
    "--trust",
    "Judge the result, with up to so many null runs of each kind (see `mtd trust`). Default: not judged.",
    click.IntRange(min=2),
    metavar="N",
)
@option("--device", "Where E-steps are computed.", str, "auto", metavar="auto|cpu|cuda[:i]")
@option("--skip-bad", "Go on without micrographs or chunks that are missing or damaged.", is_flag=True)
@option(
    "--defects",
    "Dead and hot pixels: not used, or taken as they are.",
    click.Choice(["mask", "keep"]),
    "mask",
)
@option("--stop-file", "Stop with a checkpoint, as on SIGTERM, when this file appears.", PATH, metavar="FILE")
@option("--seed", "Seed of everything random.", FROM_ZERO, 0, metavar="N")
@option("--checkpoint-every", "Seconds between checkpoints.", click.FloatRange(min=0), 30.0, metavar="S")
@option("--resume", "Continue an interrupted run, with the same bits.", is_flag=True)
@option(
    "--strict",
    "Exit with code 1 when nothing is found, or --trust does not support the result; the results are written.",
    is_flag=True,
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    measurement: Path,
    output: Path,
    resume: bool,
    strict: bool,
    force: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Recover the volume whose projections MEASUREMENT holds, without picking them.

    RUN_DIR receives volume.mrc, half1.mrc and half2.mrc, particles.star (places and Euler angles for RELION), run.json, history.csv and
    report.html. Projections do not fix the hand: the mirror image explains the micrographs as well. An interrupted run saves a
    checkpoint; --resume goes on from it.
    """
    again = command_line(ctx)
    refuse_as_run_folder(output, measurement)
    with listening(), locked(output), continued(ctx, again, force):
        result = recover(measurement, output, resume, force, parameters, again)
    emit(result, as_json)
    if strict and ("nothing_found" in result or not result.get("supported", True)):
        ctx.exit(1)


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
    import mtdcore as mtd
    from mtdcore.em.volumes.state import load_volume_checkpoint
    from mtdcore.model.volumes.maps import write_map
    from mtdcore.results.volumes import orientation_information

    from ..inputs.opening import table_of
    from ..inputs.usable import missing, open_usable, source_of
    from ..report.volume import write_volume_report
    from ..run.arguments import transfers
    from ..run.folder import RunFolder
    from ..run.record import MeasurementRecord
    from ..terminal.installation import machine, versions
    from ..volumes import run as job
    from ..volumes.judging import examine

    folder = RunFolder(output)
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.perf_counter()
    refuse_run(folder, (path, parameters["initial"], parameters["prior"]), resume, force)
    measurement = open_usable(path, parameters["skip_bad"], parameters["defects"])
    table = table_of(path, source_of(measurement))
    pixel_size = None if table is None else table.pixel_size
    parameters |= {"diameter": in_pixels("--diameter", parameters["diameter"], pixel_size)}
    backend = mtd.get_backend(parameters["device"])
    count, height, width = measurement.shape
    log(f"{path}: {count} micrograph(s) of {height} x {width} pixels, backend {backend.name}")
    micrographs = transfers(table)
    if micrographs is not None:
        log("the transfer of each micrograph (CTF, whitening) is part of the model; the volume is without it")
    owner, state = job.identity(measurement, parameters, backend, micrographs), None
    if resume and folder.occupied:
        state = load_volume_checkpoint(folder.checkpoint, owner)
        log(f"going on after iteration {state.iteration}")
    before = 0.0 if state is None else sum(record.seconds for record in state.history)
    found = job.run(measurement, folder, parameters, backend, micrographs, owner, state)
    log(found.noise)
    read = MeasurementRecord(
        path=path.absolute(),
        shape=measurement.shape,
        dtype=str(measurement.dtype),
        fingerprint=owner["measurement"],
        unused_pixels=0,
        **missing(measurement, round(found.statistics.pixels)),
    )
    copies = job.copies(measurement, found, parameters, backend)
    job.save(folder, found, copies, table)
    nothing = {"nothing_found": "no copies; volume.mrc is no estimate of anything"}
    none = {} if found.found_copies else nothing
    result: dict[str, Any] = {
        "evidence": found.evidence,
        "copies": found.expected_count,
        "detections": len(copies),
        "noise_std": found.noise_std,
        "noise": found.noise,
        "offset": found.likelihood.offset,
        "orientation_information": orientation_information(found.seen, found.noise_std),
    }
    judged = examine(measurement, found, parameters, backend)
    result |= judged.numbers
    if judged.halves is not None:
        for file, half in zip(
            (folder.half1, folder.half2), (judged.halves.first, judged.halves.second), strict=True
        ):
            write_map(file, half, pixel_size)
    record = {
        "format": 1,
        "kind": "volume",
        "command": again,
        "started": started,
        "seconds": before + time.perf_counter() - clock,
        "device": backend.name,
        "measurement": read,
        "parameters": parameters,
        "pixel_size": pixel_size,
        "result": {**none, **result},
        "versions": versions(),
        "machine": machine(),
    }
    folder.write_record(record)
    write_volume_report(folder.page, found, record, judged.verdict, judged.halves, judged.chance)
    return {**none, "run": str(folder.path), "report": str(folder.page), **result}
