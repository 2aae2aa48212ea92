"""RunParameters: options of ``mtd recover``, entries of ``run.json``, and what ``--resume`` compares."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click import UsageError

from mtdcli.commands import recover_volume
from mtdcli.commands.recover import command
from mtdcli.run.finished import FinishedRun
from mtdcli.run.parameters import RunParameters
from mtdcli.volumes.parameters import VolumeParameters
from mtdcore._base.records import to_record
from mtdcore.errors import InputError

OWN = {
    "measurement",
    "volume",
    "output",
    "trust",
    "resume",
    "watch_page",
    "strict",
    "force",
    "as_json",
    "help",
}


def parsed(*words):
    context = command.make_context("recover", ["m", "-o", "run", *map(str, words)])
    return RunParameters(**{name: value for name, value in context.params.items() if name not in OWN})


def test_a_length_may_be_in_angstrom():
    """120 angstrom once had to be divided by hand by a pixel size that the list knows."""
    assert parsed("--box-size", 12, "--diameter", 40).diameter == 40.0
    told = parsed("--box-size", 12, "--diameter", "120 a")
    assert told.diameter == "120A"
    assert told.in_pixels(3.0).diameter == pytest.approx(40.0)
    with pytest.raises(UsageError, match=r"--diameter 120A: the pixel size .* is not known"):
        told.in_pixels(None)
    for wrong in ("0", "-3", "40 nm", "A", "nan"):
        with pytest.raises(UsageError, match="no length such as 40"):
            parsed("--box-size", 12, "--diameter", wrong)


def test_every_field_is_an_option_with_its_default_and_help():
    options = {option.name: option for option in command.params if option.name not in OWN}
    assert list(options) == [field.name for field in fields(RunParameters)]
    assert all(option.help and option.group for option in options.values())
    assert parsed("--box-size", 12) == RunParameters(box_size=12)


def test_options_of_volumes_are_declared_as_those_of_images():
    words = ["m", "-o", "run", "--box-size", "12", "--no-halves", "--diameter", "60A", "--skip-bad"]
    context = recover_volume.command.make_context("recover --volume", words)
    options = {name: value for name, value in context.params.items() if name not in OWN - {"trust"}}
    given = VolumeParameters(**options)
    names = [option.name for option in recover_volume.command.params if option.name in options]
    assert names == [field.name for field in fields(VolumeParameters)]
    assert given == VolumeParameters(box_size=12, halves=False, diameter="60A", skip_bad=True)
    assert VolumeParameters.from_record(json.loads(json.dumps(to_record(given)))) == given
    assert given.in_pixels(3.0).diameter == pytest.approx(20.0)
    free = {"halves": True, "trust": 4, "device": "cuda", "stop_file": Path("x"), "checkpoint_every": 1.0}
    assert replace(given, **free).deciding() == given.deciding()
    assert replace(given, views=60).deciding() != given.deciding()


def test_what_was_given_comes_back_from_its_record():
    given = parsed(
        "--box-size", 12, "--noise-std", 2, "--min-separation", "auto", "--skip-bad", "--stop-file", "stop",
        "--max-memory", "1G", "--temperature", 4, "--initial", "blob",
    )  # fmt: skip
    assert given.stop_file == Path("stop")
    assert given.noise_std == 2.0
    assert RunParameters.from_record(json.loads(json.dumps(to_record(given)))) == given


def test_a_run_from_before_an_option_has_what_runs_did_then():
    old = RunParameters.from_record({"box_size": 12, "seed": 3})
    assert old == RunParameters(box_size=12, seed=3, defects="keep", offset="none", noise="white")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"box_size": 0}, "box_size"),
        ({"box_size": "12"}, "box_size"),
        ({"box_size": None}, "box_size"),
        ({"rotations": True}, "rotations"),
        ({"noise": "pink"}, "noise"),
        ({"temperature": 0.5}, "temperature"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": 10**400}, "tolerance"),
        ({"update": "none"}, "update"),
        ({"stop_file": "a\0b"}, "stop_file"),
        ({"diameters": 5}, "diameters"),
    ],
)
def test_values_that_an_option_cannot_have_are_refused_by_name(change, says):
    with pytest.raises(ValueError, match=says):
        RunParameters.from_record({"box_size": 12, **change})


def test_what_changes_no_bit_does_not_decide(tmp_path):
    one = RunParameters(box_size=12)
    for free in ({"threads": 3}, {"workers": 2}, {"stop_file": Path("x")}, {"checkpoint_every": 1.0}):
        assert replace(one, **free).deciding() == one.deciding()
    assert replace(one, seed=1).deciding() != one.deciding()
    start = tmp_path / "start.npy"
    start.write_bytes(b"one")
    before = replace(one, initial=str(start)).deciding()["initial"]
    start.write_bytes(b"other")
    assert before.startswith("sha256:")
    assert before != replace(one, initial=str(start)).deciding()["initial"]


def test_help_lists_options_in_groups(mtd):
    shown = mtd("recover", "--help").stdout
    places = [shown.index(f"{group.capitalize()} options:\n") for group in command.GROUPS]
    assert places == sorted(places)
    assert places[0] < shown.index("--defects") < places[1] < shown.index("--box-size") < places[2]
    assert all(shown.count(f"  --{field.name.replace('_', '-')} ") <= 1 for field in fields(RunParameters))


@pytest.fixture
def run_dir(mtd, measurement, tmp_path):
    mtd(
        "recover", measurement, "-o", tmp_path / "run", "--box-size", 12, "--iterations", 2, "--device", "cpu"
    )
    return tmp_path / "run"


def test_a_finished_run_is_typed_and_its_measurement_may_move(measurement, run_dir, tmp_path):
    run = FinishedRun.at(run_dir)
    assert run.parameters == RunParameters(box_size=12, iterations=2, device="cpu")
    assert run.record.measurement.shape == (1, 90, 100)
    measurement.rename(tmp_path / "moved.zarr")
    record = json.loads((run_dir / "run.json").read_text())
    record["measurement"]["path"] = str(tmp_path / "moved.zarr")
    (run_dir / "run.json").write_text(json.dumps(record))
    assert FinishedRun.at(run_dir).open().shape == (1, 90, 100)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("parameters", "box_size"), None, "box_size"),
        (("parameters", "rotations"), 10**9, "rotations"),
        (("parameters", "unknown"), 1, "unknown"),
        (("parameters",), 7, "expected an object"),
        (("measurement", "shape"), [1, 90], "shape"),
        (("measurement", "path"), 7, "path"),
        (("result", "evidence_nats"), None, "evidence_nats"),
        (("result", "likelihood"), {}, "model"),
        (("result", "likelihood", "views", "count"), 10**9, "rotations"),
        (("result", "likelihood", "min_separation"), 10**9, "separation"),
        (("result", "likelihood", "margin"), 0.5, "margin"),
        (("result", "likelihood", "class_weights"), [0.5, 0.5], "classes"),
        (("format",), 2, "format"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(run_dir, place, value, says):
    record = json.loads((run_dir / "run.json").read_text())
    inside = record
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    (run_dir / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=rf"run\.json should be as `mtd recover` wrote it.*{says}"):
        FinishedRun.at(run_dir)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--likelihood", "patch", "--min-separation", 9), "--min-separation is of the window likelihood"),
        (("--likelihood", "patch", "--expected-count", 9), "--expected-count is of the window likelihood"),
        (("--step", 0.1), "--step is of --update gradient"),
        (("--update", "denoising"), "--update denoising needs a --prior"),
        (("--initial", "start.npy", "--starts", 3), "--starts counts random starts"),
        (("--method", "moments", "--initial", "blob"), "--initial blob is of the iterations of EM"),
        (("--method", "moments", "--temperature", 2), "--temperature is of the iterations of EM"),
        (("--method", "moments", "--update", "exact"), "--update exact is of the iterations of EM"),
        (("--method", "moments", "--batches", 2), "--batches is of the iterations of EM"),
        (("--initial", "moments", "--classes", 2), "moments tell one target from noise"),
        (("--initial", "moments", "--micrographs", "each"), "moments take micrographs to be alike"),
        (("--resume", "--force"), "--resume continues what --force replaces"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(mtd, tmp_path, options, message):
    said = mtd(
        "recover", tmp_path / "m.npy", "-o", tmp_path / "run", "--box-size", 9, *options, code=2
    ).stderr
    assert message in said
    assert "leave one of them out" in said
    assert not (tmp_path / "run").exists()
