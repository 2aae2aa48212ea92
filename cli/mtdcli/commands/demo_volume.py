"""``mtd demo --volume``: the recovery of a small protein-like chain from its noisy projections."""

from __future__ import annotations

from pathlib import Path

import click

from ..terminal.console import command_line, emit, force_option, json_option, log
from ..terminal.options import COUNT, FROM_ZERO, PATH, option
from ..terminal.stopping import Interrupted

#: Side of the box in voxels, copies in each of eight micrographs, signal-to-noise ratio.
_BOX, _COPIES, _SNR = 16, 38, 1.0


@click.command()
@option("-o --output", "Folder to write.", PATH, "mtd-demo-volume")
@option("--seed", "Chooses the chain, places and noise.", FROM_ZERO, 0)
@option("--iterations", "Of the run.", COUNT, 120)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, output: Path, seed: int, iterations: int, force: bool, as_json: bool
) -> None:
    """Hide 304 projections of a chain of 60 residues in noise as strong as they are, and recover the chain: unknown places,
    unknown orientations, cold start. Needs no data; about half a minute on two cores.
    """
    from mtdcore.synthetic.particles import simulate_volume
    from mtdcore.synthetic.volumes import chain

    from ..run.folder import refuse_to_replace
    from ..run.lock import locked
    from ..volumes.parameters import VolumeParameters
    from . import evaluate_volume, recover_volume

    measurement, run = output / "micrographs.zarr", output / "run"
    refuse_to_replace(measurement, force)
    output.mkdir(parents=True, exist_ok=True)
    made = simulate_volume(chain(_BOX, seed), box_size=_BOX, count=_COPIES, snr=_SNR, seed=seed)
    made.save(measurement, force)
    shape = made.pixels.shape
    log(f"{len(made.positions)} copies in {shape[0]} micrographs of {shape[1]} x {shape[2]} pixels")
    parameters = VolumeParameters(box_size=_BOX, seed=seed, iterations=iterations, halves=False)
    again = command_line(ctx)
    try:
        with locked(run):
            found = recover_volume.recover(measurement, run, False, force, parameters, again)
    except Interrupted as interruption:
        log(f"{interruption}; begin anew with: {again} --force")
        ctx.exit(128 + interruption.signum)
    scores = evaluate_volume.compare(run, None)
    shown = {name: scores[name] for name in ("correlation", "shape", "mirrored")}
    emit({"report": found["report"], "copies": found["copies"], **shown}, as_json)
    log(f"open {Path(found['report']).absolute()} in a browser")
