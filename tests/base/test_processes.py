"""Which processes certainly run no more."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from mtdcore._base.processes import Process

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the start of a process is not known"
)


def test_this_process_is_not_gone_and_reads_back():
    one = Process.current()
    assert not one.gone
    assert Process.parse(str(one)) == one


def test_an_id_that_was_given_to_a_later_process_is_told():
    one = Process.current()
    assert replace(one, started=str(int(one.started) - 1)).gone


def test_processes_started_apart_have_starts_in_order():
    code = "from mtdcore._base.processes import Process; print(Process.current())"
    time.sleep(0.05)  # the system counts hundredths of a second
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    later = Process.parse(text)
    assert int(later.started) > int(Process.current().started)
    assert later.gone
