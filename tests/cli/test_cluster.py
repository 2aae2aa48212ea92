"""``mtd recover --workers`` and ``--scheduler``."""

import numpy as np
import pytest

QUICK = ("--box-size", 12, "--iterations", 3, "--tolerance", 0, "--device", "cpu")


def test_one_way_to_share_the_work(mtd, measurement, tmp_path):
    both = ("--workers", 2, "--scheduler", "tcp://x:1")
    result = mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, *both, code=2)
    assert "three ways to share the work" in result.stderr


def test_nobody_at_the_address(mtd, measurement, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("mtdcore.estep.dask._PATIENCE", 0.5)
    where = ("--scheduler", "tcp://127.0.0.1:9")
    result = mtd("recover", measurement, "-o", tmp_path / "run", *QUICK, *where, code=74)
    assert "a Dask scheduler should listen at tcp://127.0.0.1:9" in result.stderr


@pytest.mark.slow
def test_workers_change_no_bit(mtd, measurement, tmp_path):
    pytest.importorskip("distributed")
    mtd("recover", measurement, "-o", tmp_path / "alone", *QUICK)
    mtd("recover", measurement, "-o", tmp_path / "shared", *QUICK, "--workers", 2)
    alone, shared = (np.load(tmp_path / name / "estimate.npy") for name in ("alone", "shared"))
    np.testing.assert_array_equal(shared, alone)
    mtd("recover", measurement, "-o", tmp_path / "shared", *QUICK, "--resume")


def test_what_is_no_address_is_told_at_once(mtd, tmp_path):
    result = mtd(
        "recover", tmp_path / "missing.zarr", "-o", tmp_path / "run", *QUICK, "--scheduler", "foo", code=2
    )
    assert "'foo' is no address such as tls://node17:8786" in result.stderr
    assert not (tmp_path / "run").exists()
