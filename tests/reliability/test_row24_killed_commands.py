"""Import, train-prior and report, killed at random moments (row 24): nothing is lost and nothing is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killing_commands.py")


def killed(command, folder, kills, seed):
    if command == "train-prior":
        pytest.importorskip("torch")
    words = [sys.executable, str(SCRIPT), command, str(folder), str(kills), str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=3000, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])["kills"]


def test_an_import_that_is_killed(tmp_path):
    assert killed("import", tmp_path, 5, 1) == 5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["import", "train-prior", "report"])
def test_fifty_kills(tmp_path, command):
    assert killed(command, tmp_path, 50, 2) == 50


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
    ):
        (tmp_path / name).touch()
    clean_beside(tmp_path / "p.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
