"""A recovery is watched: one picture redrawn in a notebook, lines on a terminal."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

import mtdcore as mtd
from mtdcore.results import Live


@pytest.fixture
def recover():
    """Runs five iterations with a callback."""
    made = mtd.simulate(mtd.datasets.glyphs(1, 10)[0], side=60, density=0.1, snr=4.0, seed=1)

    def run(callback):
        return mtd.recover(
            made.measurement, box_size=10, rotations=4, iterations=5, backend="array", callback=callback
        )

    return run


class Notebook:
    """What IPython does with a picture that has an identity: shown once, then replaced."""

    def __init__(self, monkeypatch, shell):
        self.shown, self.replaced = [], []
        ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
        ipython.get_ipython, ipython.version_info = lambda: shell, (9, 0)  # matplotlib asks for the latter
        display.display = self.display
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, thing, *, display_id):
        assert display_id is True
        self.shown.append(thing._repr_html_())
        return self

    def update(self, thing):
        self.replaced.append(thing._repr_html_())


def test_one_picture_is_redrawn(monkeypatch, recover, capsys):
    notebook = Notebook(monkeypatch, SimpleNamespace(kernel=object()))
    live = Live(seconds=0)
    found = recover(live)
    assert (len(notebook.shown), len(notebook.replaced)) == (1, 4)
    assert "iteration 1," in notebook.shown[0]
    assert repr(found.state) in notebook.replaced[-1]
    assert len({page.split("base64,")[1] for page in notebook.replaced}) == 4
    assert found.stopped == "iterations"
    recover(live)  # the next run has a picture of its own
    assert (len(notebook.shown), len(notebook.replaced)) == (2, 8)
    assert capsys.readouterr().err == ""


def test_quick_runs_are_not_held_up_by_drawing(monkeypatch, recover):
    notebook = Notebook(monkeypatch, SimpleNamespace(kernel=object()))
    recover(Live(seconds=3600))
    assert (len(notebook.shown), len(notebook.replaced)) == (1, 0)


@pytest.mark.parametrize("shell", ["none", "terminal"])
def test_elsewhere_there_are_lines(monkeypatch, recover, capsys, shell):
    """Without IPython, and in its terminal, which shows no pictures."""
    if shell == "terminal":
        notebook = Notebook(monkeypatch, SimpleNamespace())
    found = recover(Live(every=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("iteration ")[1].split(",")[0] for line in lines] == ["2", "4"]
    assert f"{found.history[3].expected_count:,.1f} copies" in lines[1]
    assert shell == "none" or notebook.shown == []
