"""``mtd inspect``: the content of a measurement or a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..terminal.console import emit, json_option
from ..terminal.options import PATH

if TYPE_CHECKING:
    from ..run.folder import RunFolder


@click.command()
@click.argument("path", type=PATH)
@click.option("--check", is_flag=True, help="Read every chunk and list what is missing or damaged.")
@click.option(
    "--picture",
    help="Draw the measurement with what is masked in it in colour: a PNG file to write.",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PNG",
)
@json_option
@click.pass_context
def command(ctx: click.Context, path: Path, check: bool, picture: Path | None, as_json: bool) -> None:
    """Describe PATH: a measurement (.zarr or .npy) or the folder of a run.

    With --check the exit code is 65 if a chunk of a Zarr measurement is missing or damaged.
    """
    from ..run.folder import RunFolder

    folder = RunFolder(path)
    if picture is not None and picture.suffix.lower() != ".png":
        raise click.UsageError(f"--picture writes a PNG file; {picture} should end in .png")
    if folder.occupied:
        if picture is not None:
            raise click.UsageError(
                "--picture draws measurements; this is the folder of a run, see its report.html"
            )
        emit(_run(folder), as_json)
        return
    described = _measurement(path, check)
    if picture is not None:
        described["picture"] = _draw(path, picture)
    emit(described, as_json)
    ctx.exit(65 if described.get("bad_chunks") else 0)


def _measurement(path: Path, check: bool) -> dict[str, Any]:
    from mtdcore import open_measurement
    from mtdcore.data.noise import estimate_noise_std
    from mtdcore.errors import InputError

    measurement = open_measurement(path)
    micrographs, height, width = measurement.shape
    described: dict[str, Any] = {
        "measurement": str(path),
        "micrographs": micrographs,
        "height": height,
        "width": width,
        "dtype": str(measurement.dtype),
        "gibibytes": micrographs * height * width * measurement.dtype.itemsize / 2**30,
    }
    if check and hasattr(measurement, "find_bad_chunks"):
        described["bad_chunks"] = [str(chunk) for chunk in measurement.find_bad_chunks()]
    if not described.get("bad_chunks"):
        try:
            described["noise_std_estimate"] = estimate_noise_std(measurement)
        except InputError as problem:
            described["noise_std_estimate"] = f"none: {problem}"
    return described | {"provenance": provenance(path)}


def _draw(path: Path, picture: Path) -> str:
    """Write the picture of a measurement; returns a description of it."""
    from mtdcore import open_measurement
    from mtdcore._base.files import write_whole

    from ..report.masks import MOST, masks

    measurement = open_measurement(path)
    drawn = masks(measurement)
    write_whole(picture, lambda file: file.write(drawn))
    shown = min(MOST, measurement.shape[0])
    return f"{picture}: {shown} of {measurement.shape[0]} micrographs, masked pixels in colour"


def provenance(path: Path) -> dict[str, Any]:
    """The attributes that `mtd simulate` or `mtd import` wrote to a Zarr array; empty for any other measurement."""
    from mtdcore.data.zarr.guard import MAX_METADATA_BYTES, ChunkDamaged, ChunkMissing, read_inside

    try:
        noted = json.loads(read_inside(path, "zarr.json", MAX_METADATA_BYTES))["attributes"]["mtdcore"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ChunkMissing, ChunkDamaged):
        return {}
    return noted if isinstance(noted, dict) else {}


def _run(folder: RunFolder) -> dict[str, Any]:
    if not folder.record.exists():
        return {
            "run": str(folder.path),
            "state": "unfinished, has a checkpoint; mtd recover --resume goes on",
        }
    from mtdcore._base.records import to_record

    from ..run.finished import FinishedRun

    record = FinishedRun.at(folder).record
    names = ("command", "started", "seconds", "device", "result")
    shown = {name: to_record(getattr(record, name)) for name in names}
    return {"run": str(folder.path), "state": "finished", **shown}
