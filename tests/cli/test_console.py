import json

import click
import numpy as np
import pytest

from mtdcli.main import load
from mtdcli.terminal.console import FLAGS, command_line, emit, show, spelt, to_json


def test_json_is_strict_and_plain():
    value = {
        "a": np.float32(1.5),
        "b": np.arange(3),
        "c": float("nan"),
        "d": (1, None),
        "e": np.float64("inf"),
    }
    assert json.loads(to_json(value)) == {"a": 1.5, "b": [0, 1, 2], "c": None, "d": [1, None], "e": None}


def test_text_aligns_names_and_indents_nested_entries(capsys):
    emit({"name": "x", "sub": {"value": 0.123456789, "flag": True}}, as_json=False)
    assert capsys.readouterr().out == "name  x\nsub\n  value  0.12346\n  flag   yes\n"


def test_the_record_of_the_model_is_for_machines(capsys):
    """A filter, coded as four thousand characters, once filled the terminal."""
    result = {"noise": 1.0, "likelihood": {"whitening": {"amplitude": "eNr" * 1000}}}
    emit(result, as_json=False)
    assert capsys.readouterr().out == "noise  1\n"
    emit(result, as_json=True)
    assert json.loads(capsys.readouterr().out) == result


def test_show_joins_sequences():
    assert show([1, 2.5, None]) == "1, 2.5, -"
    assert show([]) == "-"


@pytest.mark.parametrize(
    "words",
    [
        "a.npy --box-size 1x187 -o run",
        "a.npy --box-size 28 --no-subpixel --mirror -o run",
        "a.npy --box-size 28 --subpixel --starts 3 --offset none -o run",
    ],
)
def test_the_command_of_a_run_can_be_given_again(words, monkeypatch):
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: (command_line(ctx), dict(ctx.params)))
    command = load("recover")

    def given(words):
        return command.main(words, prog_name="recover", standalone_mode=False)

    line, parameters = given(words.split())
    again, same = given(line.split()[2:])
    assert (again, same) == (line, parameters)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('give min_separation=28, or "auto".', 'give --min-separation 28, or "auto".'),
        ("give noise_std=0.2915, or less", "give --noise-std 0.2915, or less"),
        ('try noise="spectrum".', "try --noise spectrum."),
        ("asked for by mirror=True.", "asked for by --mirror."),
        ("the noise and the mirror are words", "the noise and the mirror are words"),
        ("no such file: a/noise_std.npy, noise_std.npy, b-noise_std", "no such file: a/noise_std.npy, noise_std.npy, b-noise_std"),
        ("call score(noise_std=3) of a prior, box_size", "call score(noise_std=3) of a prior, box_size"),
    ],
)  # fmt: skip
def test_messages_of_the_library_name_options(monkeypatch, said, shown):
    """What no command takes stays as it is."""
    names = ("min_separation", "noise_std", "noise", "mirror")
    for name in names:
        monkeypatch.setitem(FLAGS, name, f"--{name.replace('_', '-')}")
    monkeypatch.delitem(FLAGS, "box_size", raising=False)
    assert spelt(said) == shown


def test_a_doubt_names_options_in_the_log_and_in_the_report(mtd, tmp_path):
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(40, 40)))
    options = ("--box-size", 12, "--noise-std", 1e-6, "--iterations", 2, "--rotations", 1, "--starts", 1)
    log = mtd("recover", tmp_path / "m.npy", "-o", tmp_path / "run", *options).stderr
    assert "warning: --noise-std 1e-06 does not fit the measurement" in log
    assert any(
        "--noise-std" in one for one in json.loads((tmp_path / "run" / "run.json").read_text())["doubts"]
    )
