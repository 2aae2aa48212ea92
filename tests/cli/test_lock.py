import os
import signal
import subprocess
import sys

import pytest

from mtdcli.run import lock
from mtdcli.run.lock import FolderInUse, locked

HOLD = """
import sys, time
from pathlib import Path
from mtdcli.run.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderInUse, match=rf"process {holder.pid} on {os.uname().nodename}"),
            locked(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        (tmp_path / ".estimate.npy.1.part").write_bytes(b"left by the one that was killed")
        with locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()
            assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_the_lock_imports_no_engine():
    code = "import sys, mtdcli.commands.recover; assert not {'numpy', 'mtdcore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_failed_command_leaves_no_folder_with_a_lone_lock(mtd, tmp_path):
    new, mine = tmp_path / "new", tmp_path / "mine"
    mine.mkdir()
    for folder in (new, mine):
        mtd("recover", tmp_path / "missing.npy", "-o", folder, "--box-size", 8, code=74)
    assert not new.exists()
    assert list(mine.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_named(mtd, measurement, tmp_path):
    (tmp_path / "taken").write_text("mine")
    error = mtd("recover", measurement, "-o", tmp_path / "taken", "--box-size", 8, code=74).stderr
    assert "taken should be a folder; it is a file: choose another with -o." in error
    assert (tmp_path / "taken").read_text() == "mine"


def test_what_a_command_left_stays_with_its_lock(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "result").touch()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "result"}


def test_a_lock_that_was_removed_while_it_was_opened_holds_nothing(tmp_path, monkeypatch):
    """Another process may hold its successor."""
    run = tmp_path / "run"
    (run).mkdir()
    flock = lock.fcntl.flock

    def late(*args):
        (run / ".lock").unlink()
        return flock(*args)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with pytest.raises(FolderInUse, match="try again"), locked(run):
        pass
