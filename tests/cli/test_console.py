import json

import click
import numpy as np
import pytest

from mtdcli.main import load
from mtdcli.terminal.console import command_line, emit, show, to_json


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
