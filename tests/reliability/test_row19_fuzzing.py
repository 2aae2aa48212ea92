"""Damaged files of every kind (row 19): read, or refused with an error of ours; no crash, no hang, memory capped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzing.py")


def fuzz(folder, cases, seed, *kinds):
    command = [sys.executable, str(SCRIPT), str(folder), str(cases), str(seed), *kinds]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_few_cases_of_every_reader(tmp_path):
    pytest.importorskip("mrcfile")
    pytest.importorskip("tifffile")
    found = fuzz(tmp_path, 12, 1)
    assert len(found) == 13
    assert all(kind["cases"] == 12 and kind["refused"] > 2 for kind in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_cases(tmp_path, seed):
    """4 x 13 x 200 = 10,400."""
    pytest.importorskip("mrcfile")
    pytest.importorskip("tifffile")
    assert sum(kind["cases"] for kind in fuzz(tmp_path, 200, seed)) == 2600
