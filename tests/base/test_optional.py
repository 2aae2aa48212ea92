"""Packages of extras: imported where they are, named with their extra where they are not."""

import sys

import pytest

from mtdcore._base.optional import optional
from mtdcore.errors import DependencyError
from mtdcore.estep.dask import connected, local_workers


def test_an_installed_package_is_imported():
    assert optional("sys") is sys


@pytest.mark.parametrize("cluster", [lambda: local_workers(2), lambda: connected("tcp://127.0.0.1:1")])
def test_a_missing_package_is_named_with_its_extra(cluster, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)  # its import fails as where it is missing
    with pytest.raises(DependencyError, match=r"package distributed.*mtdcore\[dask\]"), cluster():
        pass
