"""Damaged files of every kind (row 19): read, or refused with an error of ours; no crash, no hang, memory capped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzing.py")
KINDS = 22  # in specimens.py

for package in ("torch", "mrcfile", "tifffile"):
    pytest.importorskip(package)


def fuzz(folder, cases, seed):
    command = [sys.executable, str(SCRIPT), str(folder), str(cases), str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == KINDS
    assert all(kind["cases"] == cases for kind in found)
    return found


def test_a_few_cases_of_every_reader(tmp_path):
    assert all(kind["refused"] > 0 for kind in fuzz(tmp_path, 8, 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_cases(tmp_path, seed):
    """4 x 22 x 120 = 10,560."""
    assert all(kind["refused"] > 40 for kind in fuzz(tmp_path, 120, seed))
