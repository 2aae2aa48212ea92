"""``relion_external_mtd``: the whole way from a STAR list of micrographs to class averages and picks, as a RELION External job.

RELION calls ``relion_external_mtd --o External/jobNNN/ --in_mics LIST --label value ... --j N --pipeline_control DIR`` in
the folder of its project. Labels are the options of ``mtd import``, ``mtd recover`` and ``mtd detect``, with underscores;
flags take ``Yes`` or ``No``. The job ends with one of the files RELION_JOB_EXIT_SUCCESS, _FAILURE and _ABORTED, and
stops where RELION_JOB_ABORT_NOW appears; started again in the same folder, it goes on from its checkpoint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mtdcore import open_measurement
from mtdcore._base.files import write_whole
from mtdcore.data.micrographs.picks import Picks
from mtdcore.data.micrographs.table import MicrographTable
from mtdcore.results.relion import Version, version_of, write_output_nodes

from .inputs import picks
from .inputs.frames import Frames
from .inputs.preparing import preparation
from .inputs.stack import write_stack
from .main import load, run_and_exit
from .run.copies import write_copies, write_for_relion
from .run.finished import FinishedRun
from .run.folder import RunFolder
from .terminal.console import log, to_json
from .terminal.options import PATH, option
from .terminal.stopping import Interrupted

ABORT = "RELION_JOB_ABORT_NOW"
SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{how}" for how in ("SUCCESS", "FAILURE", "ABORTED"))

#: File with precision and recall of the copies against the picks of ``--in_coords``.
EVALUATION = "evaluation.json"

#: Options of mtd in messages, which are rewritten as RELION's labels, with underscores.
_LABEL = re.compile(r"(?<=--)\w[\w-]*")

#: Options that the job sets itself.
_OWN = {
    "output",
    "sources",
    "key",
    "measurement",
    "run_dir",
    "resume",
    "force",
    "as_json",
    "stop_file",
    "threads",
}

#: Side of the box in particle diameters, as is usual in RELION.
_BOX = 1.5

_YES, _NO = {"yes", "true", "1", "on"}, {"no", "false", "0", "off"}


class Aborted(Exception):
    """RELION asked the job to stop."""


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": ["-h", "--help"],
    },
    epilog="Further labels: the options of mtd import, mtd recover and mtd detect, with underscores instead of dashes.",
)
@option("--o output", "Folder of the job.", PATH, required=True)
@option("--in_mics", "STAR list of micrographs.", PATH, required=True)
@option(
    "--in_coords",
    "Picks to compare with; precision and recall go to evaluation.json.",
    PATH,
)
@option(
    "--particle_diameter",
    "Diameter of the particle, angstrom. Gives --diameter, and --box_size, half again as wide, where that is not given.",
    click.FloatRange(0, min_open=True),
)
@option("--j threads", "CPU threads.", click.IntRange(1), 1)
@option(
    "--pipeline_control",
    "Where the exit files go. Default: the folder of the job.",
    PATH,
)
@option(
    "--relion_version",
    "Whose names the outputs get; auto: as the STAR list says.",
    click.Choice(["auto", "4.0", "5.0"]),
    "auto",
)
@click.pass_context
def command(
    ctx: click.Context,
    output: Path,
    in_mics: Path,
    in_coords: Path | None,
    particle_diameter: float | None,
    threads: int,
    pipeline_control: Path | None,
    relion_version: str,
) -> None:
    """Class averages and picks from a list of micrographs, without picking first."""
    control = pipeline_control or output
    for folder in (output, control):
        folder.mkdir(parents=True, exist_ok=True)
    finished = (control / SUCCESS).exists()
    for name in (SUCCESS, FAILURE, ABORTED, ABORT):
        (control / name).unlink(missing_ok=True)
    ending = FAILURE
    try:
        job = _Job(output, control / ABORT, threads, particle_diameter, _options(ctx.args))
        job.check_labels(in_mics)
        again = not finished and job.same_as_before(in_mics)
        job.run(in_mics, in_coords, again)
        job.write(version_of(in_mics) if relion_version == "auto" else relion_version)  # type: ignore[arg-type]
        ending = SUCCESS
    except Aborted:
        log("stopped, as RELION asked; continue the job to go on from the last checkpoint")
        ending = ABORTED
    except Interrupted:
        ending = ABORTED
        raise
    finally:
        (control / ending).touch()
    ctx.exit(0 if ending == SUCCESS else 1)


@dataclass
class _Job:
    """The steps of a job.

    Attributes:
        output: its folder, as RELION names it.
        abort: the file by which RELION stops it.
        threads: of the recovery; like ``abort`` it may change when a job is continued.
        diameter: of the particle, angstrom.
        words: options for each command.
    """

    output: Path
    abort: Path
    threads: int
    diameter: float | None
    words: dict[str, list[str]]

    def __post_init__(self) -> None:
        self.measurement = self.output / "measurement.zarr"
        self.folder = RunFolder(self.output / "run")
        self.picks: Picks | None = None

    def same_as_before(self, in_mics: Path) -> bool:
        """Whether the folder holds an earlier job with the same options, to be continued; writes the options to job.json."""
        note, now = self.output / "job.json", to_json([str(in_mics), self.diameter, self.words])
        before = note.read_text(encoding="utf-8") if note.exists() else ""
        write_whole(note, lambda file: file.write(now.encode()))
        return before == now

    def check_labels(self, in_mics: Path) -> None:
        """Parse the options of every step before the first one starts, since importing may take hours.

        Raises:
            click.UsageError: a label is missing or its value is wrong; the message spells options as RELION does.
        """
        try:
            self._context("import", ["-o", self.measurement, *self.words["import"], "--", in_mics])
            sizes = self._sizes(1.0)
            self._context(
                "recover", [self.measurement, "-o", self.folder.path, *sizes, *self.words["recover"]]
            )
            self._context("detect", [self.folder.path, *self.words["detect"]])
        except click.UsageError as problem:
            raise click.UsageError(
                _LABEL.sub(lambda label: label[0].replace("-", "_"), problem.format_message())
            ) from problem

    def check(self) -> None:
        """Raise Aborted when RELION has asked for it."""
        if self.abort.exists():
            raise Aborted

    def run(self, in_mics: Path, in_coords: Path | None, again: bool) -> None:
        """Import, read the picks to compare with, and recover; with ``again``, skip the steps that are complete."""
        if not (again and self.measurement.exists()):
            self._import(in_mics)
        if in_coords is not None:
            self.picks = self._picks(in_coords)
        self.check()
        if not (again and self.folder.record.exists()):
            resume = again and self.folder.checkpoint.exists()
            self._recover("--resume" if resume else "--force")
        self.check()

    def write(self, version: Version) -> None:
        """Find the copies, and write the files that the next job reads."""
        options = self._context("detect", [self.folder.path, *self.words["detect"]]).params
        run = FinishedRun.at(self.folder)
        micrographs, *shape = run.record.measurement.shape
        found = write_copies(run, options["threshold"], options["device"])
        write_for_relion(run, found, self.output)
        write_output_nodes(self.output, version)
        if self.picks is not None:
            compared = picks.agreement(found, self.picks, (shape[0], shape[1]))
            write_whole(self.output / EVALUATION, lambda file: file.write(to_json(compared).encode()))
            log(
                "against the picks given: precision {precision:.3f}, recall {recall:.3f}".format_map(compared)
            )
        log(f"{len(found)} picks in {micrographs} micrographs")

    def _picks(self, in_coords: Path) -> Picks:
        table, measurement = MicrographTable.load(self.measurement), open_measurement(self.measurement)
        assert table is not None  # written by the import
        return picks.read(in_coords, table, measurement.shape[1:], "--skip-bad" in self.words["import"])

    def _import(self, in_mics: Path) -> None:
        arguments = ["-o", self.measurement, "--force", *self.words["import"], "--", in_mics]
        options = dict(self._context("import", arguments).params)
        asked = {name: options.pop(name) for name in ("sources", "key", "pixel_size", "skip_bad")}
        steps = {name: value for name, value in options.items() if name not in _OWN}
        frames = Frames(**asked, each=self.check)
        write_stack(frames, preparation(frames.sources, steps), self.measurement, force=True)

    def _recover(self, how: str) -> None:
        free = ["--threads", self.threads, "--stop-file", self.abort]
        table = MicrographTable.load(self.measurement)
        sizes = self._sizes(None if table is None else table.pixel_size)
        words = [self.measurement, "-o", self.folder.path, how, *free, *sizes, *self.words["recover"]]
        context = self._context("recover", words)
        try:
            context.command.invoke(context)
        except click.exceptions.Exit as ending:  # ended by the stop file or a signal of the batch system
            raise Aborted from ending

    def _sizes(self, pixel_size: float | None) -> list[object]:
        """Command-line words for the diameter of the particle and the box around it, at ``pixel_size`` angstrom per pixel.

        Raises:
            click.UsageError: the diameter is also given in pixels, or the pixel size is unknown.
        """
        if self.diameter is None:
            return []
        if "--diameter" in self.words["recover"]:
            raise click.UsageError("--particle_diameter (angstrom) or --diameter (pixels): give one of them")
        if pixel_size is None:
            raise click.UsageError(
                "--particle_diameter is in angstrom, and the list has no pixel size: give --diameter in pixels, or --pixel_size"
            )
        pixels = self.diameter / pixel_size
        box = (
            [] if "--box-size" in self.words["recover"] else ["--box-size", 2 * math.ceil(_BOX * pixels / 2)]
        )
        return ["--diameter", f"{pixels:.4g}", *box]

    def _context(self, name: str, arguments: Iterable[object]) -> click.Context:
        return load(name).make_context(name, [str(argument) for argument in arguments])


def _options(extra: Sequence[str]) -> dict[str, list[str]]:
    """The labels and values that RELION passes, as words for each of the commands.

    Raises:
        click.UsageError: a label without a value, or an unknown label.
    """
    words: dict[str, list[str]] = {"import": [], "recover": [], "detect": []}
    if len(extra) % 2 or any(not label.startswith("--") for label in extra[::2]):
        raise click.UsageError(f"expected pairs --label value; got {' '.join(extra)}")
    for label, value in zip(extra[::2], extra[1::2], strict=True):
        flag = "--" + label[2:].replace("_", "-")
        known = False
        for name, list_ in words.items():
            for one in load(name).params:
                if isinstance(one, click.Option) and one.name not in _OWN and flag in one.opts:
                    list_ += _word(one, flag, value)
                    known = True
        if not known:
            raise click.UsageError(
                f"no option {label}; labels are options of mtd import, mtd recover and mtd detect, with underscores"
            )
    return words


def _word(option: click.Option, flag: str, value: str) -> list[str]:
    if not option.is_flag:
        return [flag, value]
    if value.lower() in _YES:
        return [flag]
    if value.lower() in _NO:
        return list(option.secondary_opts[:1])
    raise click.UsageError(f"--{option.name} is a flag, Yes or No; got {value}")


def main() -> None:
    """Run the job and exit with its code."""
    run_and_exit(lambda: command.main(standalone_mode=False))
