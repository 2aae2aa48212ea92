import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from mtdcli.run_folder import RunFolder
from mtdcore.errors import InputError, RunInUseError

HOLD = """
import sys, time
from pathlib import Path
from mtdcli.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        folder = RunFolder(tmp_path)
        with (
            pytest.raises(RunInUseError, match=rf"process {holder.pid} on {os.uname().nodename}"),
            folder.lock(),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with folder.lock():
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_files_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.occupied
    image = np.random.default_rng(0).normal(size=(5, 5))
    folder.write_image(folder.estimate, image)
    folder.write_record({"seed": 3, "nan": float("nan")})
    folder.write_history([{"iteration": 1, "objective": 2.5}, {"iteration": 2, "objective": 3.5}])
    assert np.array_equal(folder.read_image(folder.estimate), image)
    assert folder.read_record() == {"seed": 3, "nan": None}
    assert list(csv.DictReader(folder.history.open())) == [
        {"iteration": "1", "objective": "2.5"},
        {"iteration": "2", "objective": "3.5"},
    ]
    assert folder.occupied
    (tmp_path / "notes.txt").write_text("mine")
    folder.clear()
    assert not folder.occupied
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", [None, "{", json.dumps([1])])
def test_a_folder_without_a_good_record_is_refused(tmp_path, content):
    folder = RunFolder(tmp_path)
    if content is not None:
        folder.record.write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        folder.read_record()


def test_a_damaged_image_is_refused(tmp_path):
    folder = RunFolder(tmp_path)
    folder.estimate.write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"estimate\.npy"):
        folder.read_image(folder.estimate)
