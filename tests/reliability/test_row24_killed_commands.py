"""Import, train-prior and report, killed at random moments (row 24): nothing is lost and nothing is left behind."""

import os
import subprocess
import sys

import pytest


def test_an_import_that_is_killed(run_script, tmp_path):
    assert run_script("killing_commands.py", "import", tmp_path, 5, 1)[-1]["kills"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["import", "train-prior", "report"])
def test_fifty_kills(run_script, tmp_path, command):
    if command == "train-prior":
        pytest.importorskip("torch")
    assert run_script("killing_commands.py", command, tmp_path, 50, 2)[-1]["kills"] == 50


def test_what_a_killed_training_left_is_cleaned_up(tmp_path):
    from mtdcli.run.output import clean_beside

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f".p.safetensors.{os.getpid()}.part", f".q.safetensors.{ended.pid}.part", "p.safetensors"]
    for name in (
        *kept,
        f".p.safetensors.{ended.pid}.part",
        f".p.safetensors.state.{ended.pid}.part",
        f".p.html.{ended.pid}.part",
        f".p.full.safetensors.{ended.pid}.part",
    ):
        (tmp_path / name).touch()
    clean_beside(tmp_path / "p.safetensors", (".html", ".full.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
