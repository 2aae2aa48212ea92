import io

import pytest

from mtdcli.terminal import progress
from mtdcli.terminal.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_few_seconds_and_the_last_one(clock):
    stream = io.StringIO()
    with Progress("recover", 20, "iterations", stream=stream) as bar:
        for done in range(1, 21):
            clock[0] += 1.0
            bar.update(done, {"copies": done})
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["5/20", "10/20", "15/20", "20/20"]
    assert lines[1] == "mtd: recover: 10/20 iterations, 1/s, 10 s left, copies 10"


def test_lines_become_rarer_and_a_bound_is_called_one(clock):
    """A job of a day once wrote seventeen thousand lines."""
    stream = io.StringIO()
    with Progress("trust", 20_000, stream=stream, most=True) as bar:
        for done in range(1, 8641):
            clock[0] += 10.0
            bar.update(done)
    lines = stream.getvalue().splitlines()
    assert len(lines) < 400
    assert lines[1] == "mtd: trust: 2/20000 steps, 10 s each, at most 55 h 33 min left"


def test_the_rate_counts_neither_an_earlier_run_nor_what_is_done_once(clock):
    stream = io.StringIO()
    with Progress("recover", 20, stream=stream) as bar:
        clock[0] += 60.0
        bar.update(11)
        clock[0] += 10.0
        bar.update(13)
    assert stream.getvalue().splitlines() == [
        "mtd: recover: 11/20 steps",
        "mtd: recover: 13/20 steps, 5 s each, 35 s left",
    ]


def test_a_terminal_gets_one_live_line(clock):
    stream = Terminal()
    with Progress("recover", 4, stream=stream) as bar:
        for done in range(1, 5):
            clock[0] += 1.0
            bar.update(done)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "[#####...............]" in text
    assert "[####################]" in text


def test_a_shorter_line_covers_the_longer_one(clock):
    stream = Terminal()
    with Progress("recover", 4, stream=stream) as bar:
        clock[0] += 1.0
        bar.update(1, {"note": "long" * 3})
        clock[0] += 1.0
        bar.update(2)
    _, long, short = stream.getvalue().split("\r")
    assert len(short.rstrip("\n")) >= len(long)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
