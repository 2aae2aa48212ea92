"""docs/embedding.md: its code runs as it is printed, and its promises about manners hold."""

import logging
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import mtdcore

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def micrographs(count=3):
    target = np.zeros((16, 16))
    target[4:12, 5:9] = target[8:12, 5:13] = 3.0
    made = mtdcore.simulate(target, side=96, count=3, noise_std=1.0, micrographs=count, separation=1)
    return target, list(made.measurement.array)


def printed(incoming, stop_after=None):
    """The names after the first block."""
    seen = []
    names = {
        "incoming": incoming,
        "prepared": lambda image: image,
        "report": lambda iteration, count, target: seen.append(iteration),
        "cancelled": lambda: stop_after is not None and len(seen) >= stop_after,
    }
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    return names, seen


def test_the_first_block_recovers_the_image():
    target, images = micrographs()
    names, seen = printed(images)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 3
    assert names["found"].stopped in ("tolerance", "iterations")
    assert names["copies"] == pytest.approx(9, abs=1.5)
    assert mtdcore.relative_error(names["average"], target, max_shift=8) < 0.5


def test_the_second_block_finds_the_copies():
    picks = []
    names = printed(micrographs()[1])[0] | {"pick": lambda *place: picks.append(place)}
    exec(compile(BLOCKS[1], str(PAGE), "exec"), names)
    assert len(picks) == pytest.approx(9, abs=1)


def test_the_callback_cancels():
    names, seen = printed(micrographs()[1], stop_after=2)
    assert (seen, names["found"].stopped) == ([1, 2], "callback")


def test_the_third_block_adds_micrographs():
    target, images = micrographs()
    names = {"incoming": iter(images), "prepared": lambda image: image, "average": target, "mtdcore": mtdcore}
    exec(compile(BLOCKS[2], str(PAGE), "exec"), names)
    assert names["statistics"].pixels == 3 * 96**2
    assert mtdcore.relative_error(names["improved"], target) < 0.5


def test_exceptions_pass_through_and_threads_end():
    class Cancelled(Exception):
        pass

    def watch(state):
        raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled):
        mtdcore.recover(micrographs()[1][0], box_size=16, iterations=2, callback=watch)
    assert threading.active_count() == before


def test_a_stopped_run_goes_on_with_the_same_bits():
    image, kept = micrographs()[1][0], []
    options = {"box_size": 16, "iterations": 4, "tolerance": 0.0}
    mtdcore.recover(image, callback=lambda state: bool(kept.append(state)) or state.iteration == 2, **options)
    resumed = mtdcore.recover(image, state=kept[-1], **options)
    np.testing.assert_array_equal(resumed.target, mtdcore.recover(image, **options).target)


def test_importing_has_no_side_effects():
    """In a fresh interpreter: no handler, no level, no thread, no seed, none of the heavy packages."""
    code = """
import logging, random, sys, threading
import numpy as np
np.random.seed(1); random.seed(1)
state = np.random.get_state()[1].tobytes(), random.getstate(), np.geterr(), np.get_printoptions()
root = list(logging.root.handlers), logging.root.level
import mtdcore
assert state == (np.random.get_state()[1].tobytes(), random.getstate(), np.geterr(), np.get_printoptions())
assert root == (list(logging.root.handlers), logging.root.level)
ours = [l for n, l in logging.root.manager.loggerDict.items() if n.startswith("mtdcore")]
assert not any(getattr(l, "handlers", None) or getattr(l, "level", 0) for l in ours), ours
assert threading.active_count() == 1
assert not {"torch", "cupy", "dask", "distributed", "zarr", "click"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_running_says_nothing_and_touches_no_global_state(capfd, caplog):
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the one to leave alone)
    mtdcore.recover(micrographs()[1][0], box_size=16, iterations=2)
    assert capfd.readouterr() == ("", "")
    assert not [
        record for record in caplog.records if record.levelno >= logging.INFO and "CPU" not in record.message
    ]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
