"""One micrograph is prepared while another is scored (``mtdcli.watching.ahead``)."""

import threading
from contextlib import closing
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from mtdcli.watching.ahead import Ahead, with_next
from mtdcore.data.micrographs.listing import find_micrographs
from mtdcore.data.preparation.prepare import Preparation
from mtdcore.errors import InputError


class Recording(Preparation):
    """Preparation that tells which thread made it."""

    made: list

    def read(self, micrograph):
        self.made.append((micrograph.name, threading.current_thread().name))
        return super().read(micrograph)


@pytest.fixture
def micrographs(tmp_path):
    for i in range(2):
        with mrcfile.new(tmp_path / f"m{i}.mrc") as file:
            file.set_data(np.random.default_rng(i).standard_normal((64, 64)).astype(np.float32))
    return [one for i in range(2) for one in find_micrographs(tmp_path / f"m{i}.mrc")]


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.setattr(Recording, "made", [], raising=False)
    return Recording()


def test_what_was_begun_is_taken_and_nothing_else(micrographs, steps):
    first, second = micrographs
    plain = Preparation()
    with closing(Ahead()) as ahead:
        ahead.begin(steps, second)
        ahead.begin(steps, second)
        np.testing.assert_array_equal(ahead.take(steps, second).pixels, plain.read(second).pixels)
        assert [name for name, _ in steps.made] == [second.name]
        assert steps.made[0][1].startswith("mtd-ahead")
        ahead.begin(steps, second)
        np.testing.assert_array_equal(ahead.take(steps, first).pixels, plain.read(first).pixels)
        assert (first.name, threading.current_thread().name) in steps.made
        ahead.begin(steps, second)
        inverted = replace(steps, invert=False)
        np.testing.assert_array_equal(
            ahead.take(inverted, second).pixels, replace(plain, invert=False).read(second).pixels
        )


def test_what_cannot_be_prepared_is_told_when_it_is_taken(micrographs, steps):
    _, second = micrographs
    with mrcfile.new(second.path, overwrite=True) as file:
        file.set_data(np.full((64, 64), np.nan, np.float32))
    with closing(Ahead()) as ahead:
        ahead.begin(steps, second)
        with pytest.raises(InputError, match=second.path.name):
            ahead.take(steps, second)


def test_each_with_the_one_after_it():
    assert list(with_next([])) == []
    assert list(with_next("a")) == [("a", None)]
    assert list(with_next(iter("abc"))) == [("a", "b"), ("b", "c"), ("c", None)]
