"""``mtd serve`` and ``mtd recover --watch-page``: the page of a run while it goes on, on this machine alone."""

import base64
import hashlib
import re
import urllib.error
import urllib.request

import numpy as np
import pytest

from mtdcli.live.page import Live
from mtdcli.live.server import serving
from mtdcli.run.folder import RunFolder
from mtdcore.model.volumes.maps import read_map

QUICK = ("--box-size", 12, "--rotations", 1, "--tolerance", 0, "--device", "cpu", "--iterations", 6)


def read(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
        return answer.read().decode(), answer.headers


def test_a_run_is_shown_before_while_and_after_it_goes(mtd, measurement, tmp_path):
    run, stop = tmp_path / "run", tmp_path / "stop"
    stop.touch()
    with serving(RunFolder(run)) as address:
        assert "no checkpoint yet" in read(address)[0]
        mtd("recover", measurement, "-o", run, *QUICK, "--stop-file", stop, code=143)
        page, headers = read(address)
        assert "of 6 iterations" in page
        assert page.count("data:image/png") >= 3
        # without scripts it loads itself anew; with them one script of its own may run
        assert '<noscript><meta http-equiv="refresh"' in page
        (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert not re.search(r'(src|href)="(?!data:)', page)
        stop.unlink()
        mtd("recover", measurement, "-o", run, *QUICK, "--stop-file", stop, "--resume")
        assert read(address)[0] == (run / "report.html").read_text()


@pytest.mark.parametrize(("path", "host"), [("run.json", None), ("../etc/passwd", None), ("", "example.org")])
def test_nothing_else_is_served(tmp_path, path, host):
    (tmp_path / "run.json").write_text("{}")
    with (
        serving(RunFolder(tmp_path)) as address,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        read(address + path, **({} if host is None else {"Host": host}))


def test_a_damaged_checkpoint_is_none(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a checkpoint")
    assert b"no checkpoint yet" in Live(RunFolder(tmp_path)).page


def test_a_run_of_volumes_is_shown(mtd, tmp_path):
    run, stop = tmp_path / "run", tmp_path / "stop"
    stop.touch()
    made = ("-o", tmp_path / "m.zarr", "--box-size", 10, "--count", 8, "--snr", 3)
    mtd("simulate", "--volume", "protein", *made)
    short = ("--box-size", 10, "--iterations", 5, "--views", 60, "--parts", 2, "--no-halves")
    mtd("recover", tmp_path / "m.zarr", "--volume", "-o", run, *short, "--stop-file", stop, code=143)
    page = Live(RunFolder(run)).page.decode()
    assert "of 5 iterations" in page
    assert re.findall(r'class="pixels".*?<figcaption>(.*?)</figcaption>', page) == [
        f"across {axis}; the only start left" for axis in "zyx"
    ]
    assert page.count(" over the iterations") == 4


def test_recover_says_where_its_page_is_and_ends_with_the_same_bits(mtd, measurement, tmp_path):
    shown = mtd("recover", measurement, "-o", tmp_path / "a", *QUICK, "--watch-page").stderr
    assert re.search(r"shown at http://127\.0\.0\.1:\d+/", shown)
    mtd("recover", measurement, "-o", tmp_path / "b", *QUICK)
    assert (tmp_path / "a/estimate.npy").read_bytes() == (tmp_path / "b/estimate.npy").read_bytes()


def test_recover_of_a_volume_says_where_its_page_is_and_ends_with_the_same_bits(mtd, tmp_path):
    made = ("-o", tmp_path / "m.zarr", "--box-size", 10, "--count", 8, "--snr", 3)
    mtd("simulate", "--volume", "protein", *made)
    short = ("--box-size", 10, "--iterations", 3, "--views", 60, "--parts", 2, "--no-halves")
    for name, more in (("a", ["--watch-page"]), ("b", [])):
        told = mtd("recover", tmp_path / "m.zarr", "--volume", "-o", tmp_path / name, *short, *more).stderr
        assert bool(re.search(r"shown at http://127\.0\.0\.1:\d+/", told)) == bool(more)
    watched, alone = (read_map(tmp_path / name / "volume.mrc")[0] for name in "ab")
    np.testing.assert_array_equal(watched, alone)


def test_a_port_in_use_is_one_clear_line(mtd, tmp_path):
    with serving(RunFolder(tmp_path)) as address:
        port = address.rstrip("/").rsplit(":", 1)[1]
        assert "in use" in mtd("serve", tmp_path, "--port", port, code=74).stderr


def test_what_is_no_run_is_said_at_once(mtd, measurement, tmp_path):
    """A measurement was waited for as if a run were to come."""
    assert "it is a measurement" in mtd("serve", measurement, code=65).stderr
    (tmp_path / "m.npy").touch()
    assert "it is a file" in mtd("serve", tmp_path / "m.npy", code=65).stderr
